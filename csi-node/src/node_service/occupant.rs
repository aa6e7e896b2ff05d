//! Whose mount is it that lies at a path?

use std::collections::HashSet;
use std::path::Path;

use pool::attach::loop_device::{self, ImageKey, LoopDevice};
use pool::attach::mountinfo::{Mount, MountTable};
use pool::attach::target::{Found, Target};
use pool::{ErrorKind, Pool, Result, VolumeId};

/// A volume, as far as mounts and loop devices know it.
#[derive(Debug)]
pub(super) enum Owner<'a> {
    /// The volume with this image.
    Image(ImageKey),
    /// A volume that is gone. A loop device may still hold its image: one on this pool that belongs to no other volume.
    Gone(&'a Pool),
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
            return Ok(Self::Gone(pool));
        };
        match pool.open_image(&id, false) {
            Ok(image) => Ok(Self::Image(ImageKey::of(&image)?)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {
                Ok(Self::Gone(pool))
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
            Self::Gone(pool) if device.image.device == pool.device() => {
                Ok(!images(pool)?.contains(&device.image))
            }
            Self::Gone(_) => Ok(false),
        }
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
