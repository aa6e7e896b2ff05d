//! Whose mount is it that lies at a path?

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use pool::attach::loop_device::{self, ImageKey, LoopDevice};
use pool::attach::mountinfo::{Mount, MountTable};
use pool::attach::target::{Found, Target};
use pool::{ErrorKind, Pool, Result, VolumeId};

/// A volume, as far as mounts and loop devices know it.
#[derive(Debug)]
pub(super) enum Owner<'a> {
    /// The volume with this image.
    Image(ImageKey),
    /// A volume that is gone. A loop device may still hold its image.
    Gone(GoneVolume<'a>),
}

/// A volume of which there is no image to compare a device with: known by the paths that its image may have had.
#[derive(Debug)]
pub(super) struct GoneVolume<'a> {
    pool: &'a Pool,
    /// None for what is no id of ours: that never had an image.
    paths: Option<ImagePaths>,
}

/// The paths by which the kernel may show the image of a volume.
#[derive(Debug)]
pub(super) struct ImagePaths {
    /// The pool; and `/`, because a filesystem that was unmounted lazily is its own root.
    roots: [PathBuf; 2],
    id: VolumeId,
}

impl ImagePaths {
    /// Those of the volume `id` in the pool at `pool`.
    pub(super) fn new(pool: &Path, id: VolumeId) -> Self {
        let resolved = pool.canonicalize().unwrap_or_else(|_gone| pool.to_owned());
        Self {
            roots: [resolved, PathBuf::from("/")],
            id,
        }
    }

    /// Whether `image` is one of them: where the volume lies, or where its deletion moves it.
    pub(super) fn contain(&self, image: &Path) -> bool {
        self.roots.iter().any(|root| {
            let within = image.strip_prefix(root).ok().and_then(Path::to_str);
            match within
                .map(|path| path.split('/').collect::<Vec<_>>())
                .as_deref()
            {
                Some(["volumes", folder, "disk.img"]) => *folder == self.id.as_str(),
                Some(["trash", folder, "disk.img"]) => folder
                    .split_once('.')
                    .is_some_and(|(id, _unique)| id == self.id.as_str()),
                _ => false,
            }
        })
    }
}

/// What lies at a path.
#[derive(Debug)]
pub(super) enum Occupant {
    /// No mount.
    Free(Found),
    /// The volume.
    Ours(Seat),
    /// A mount of something else.
    Foreign(Found),
}

/// A mount of the volume.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    /// The mount that is visible.
    pub(super) mount: Mount,
    /// The device behind it.
    pub(super) device: LoopDevice,
    /// It is the device itself and not its filesystem.
    pub(super) is_block: bool,
}

impl Seat {
    /// Whether who uses it there can write.
    pub(super) fn read_only(&self) -> bool {
        if self.is_block {
            self.device.read_only
        } else {
            self.mount.read_only
        }
    }
}

impl<'a> Owner<'a> {
    /// The volume of this id, also when its record is damaged or it is gone.
    pub(super) fn of(pool: &'a Pool, id: &str) -> Result<Self> {
        let Ok(id) = VolumeId::parse(id) else {
            return Ok(Self::Gone(GoneVolume { pool, paths: None }));
        };
        match pool.open_image(&id, false) {
            Ok(image) => Ok(Self::Image(ImageKey::of(&image)?)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {
                let paths = Some(ImagePaths::new(pool.path(), id));
                Ok(Self::Gone(GoneVolume { pool, paths }))
            }
            Err(error) => Err(error),
        }
    }

    /// Its loop devices, where it can be told which those are.
    pub(super) fn devices(&self) -> Result<Vec<LoopDevice>> {
        match self {
            Self::Image(key) => loop_device::find(*key),
            Self::Gone(_) => Ok(Vec::new()),
        }
    }

    fn owns(&self, device: &LoopDevice) -> Result<bool> {
        match self {
            Self::Image(key) => Ok(device.image == *key),
            Self::Gone(volume) => volume.owns(device),
        }
    }
}

impl GoneVolume<'_> {
    /// Files of others lie on the pool's filesystem too, and other pools: the kernel must show the path of this very volume, and
    /// no other volume may have the file.
    fn owns(&self, device: &LoopDevice) -> Result<bool> {
        let Some(paths) = &self.paths else {
            return Ok(false);
        };
        let shown = loop_device::backing_path(device.number);
        if device.image.device != self.pool.device()
            || !shown.is_some_and(|path| paths.contain(&path))
        {
            return Ok(false);
        }
        Ok(!images(self.pool)?.contains(&device.image))
    }
}

/// The images of all volumes of the pool, those with a damaged record too.
pub(super) fn images(pool: &Pool) -> Result<HashSet<ImageKey>> {
    let (records, _) = pool.volumes(None, usize::MAX);
    let damaged = pool.quarantined();
    let ids = records.iter().map(|record| record.id.clone()).chain(
        damaged
            .iter()
            .filter_map(|folder| VolumeId::parse(&folder.name).ok()),
    );
    let mut keys = HashSet::new();
    for id in ids {
        if let Ok(file) = pool.open_image(&id, false) {
            keys.insert(ImageKey::of(&file)?);
        }
    }
    Ok(keys)
}

/// What lies at `target`, seen by `owner`.
pub(super) fn occupant(target: &Target, owner: &Owner<'_>) -> Result<Occupant> {
    let found = target.inspect()?;
    let Found::Mounted(mounts) = &found else {
        return Ok(Occupant::Free(found));
    };
    let Some(mount) = mounts.first() else {
        return Ok(Occupant::Foreign(found));
    };
    let (number, is_block) = match target.device_node()? {
        Some(number) => (number, true),
        None => (mount.device, false),
    };
    match loop_device::by_device_number(number)? {
        // A part of the filesystem that was bound there is none of our doing.
        Some(device) if (is_block || mount.root == Path::new("/")) && owner.owns(&device)? => {
            Ok(Occupant::Ours(Seat {
                mount: mount.clone(),
                device,
                is_block,
            }))
        }
        _ => Ok(Occupant::Foreign(found)),
    }
}

/// The mounts of `devices` and of their filesystems, but for the one at `except`. Kubelet's own bind mounts count: they
/// are gone before it asks for anything that they forbid.
pub(super) fn seats_elsewhere(
    devices: &[LoopDevice],
    except: Option<&Mount>,
) -> Result<Vec<Mount>> {
    let table = MountTable::read()?;
    let mut found = Vec::new();
    for device in devices {
        let whole = table
            .of_filesystem(device.device_number())
            .filter(|mount| mount.root == Path::new("/"));
        found.extend(whole.chain(table.of_loop_node(device.number)).cloned());
    }
    found.retain(|mount| except.is_none_or(|seat| seat.mount_point != mount.mount_point));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_of_an_image_are_those_where_the_pool_keeps_it() {
        let id = VolumeId::from_name("a");
        let paths = ImagePaths::new(Path::new("/nowhere/vd"), id.clone());
        for ours in [
            format!("/nowhere/vd/volumes/{id}/disk.img"),
            format!("/nowhere/vd/trash/{id}.0f0e/disk.img"),
            format!("/volumes/{id}/disk.img"),
            format!("/trash/{id}.0f0e/disk.img"),
        ] {
            assert!(paths.contain(Path::new(&ours)), "{ours}");
        }
        let other = VolumeId::from_name("b");
        for foreign in [
            String::new(),
            "/nowhere/vd/snap.squashfs".to_owned(),
            format!("/nowhere/vd/volumes/{other}/disk.img"),
            format!("/nowhere/vd/trash/{id}/disk.img"),
            format!("/nowhere/vd/trash/{other}.{id}/disk.img"),
            format!("/nowhere/vd/tmp/{id}.0f0e/disk.img"),
            format!("/nowhere/vd/volumes/{id}/disk.img/more"),
            format!("/nowhere/vd-2/volumes/{id}/disk.img"),
            format!("/nowhere/volumes/{id}/disk.img"),
            format!("/elsewhere/volumes/{id}/disk.img"),
        ] {
            assert!(!paths.contain(Path::new(&foreign)), "{foreign}");
        }
    }
}
