//! Unpublishing and unstaging while the pool cannot be used.
//!
//! A disk that fails under running pods must not keep them from ending: kubelet would wait for ever, and the node could not be
//! drained. Nothing about a volume can be read then, not even which inode is behind a loop device; but mountinfo still says what
//! is mounted, and the kernel still shows the path that each device's image had. Taking down needs no more, and writes nothing
//! to the pool.

use std::path::Path;

use pool::attach::loop_device::{self, LostDevice};
use pool::attach::mount;
use pool::attach::mountinfo::{DeviceNumber, Mount, MountTable};
use pool::attach::target::{Found, Target, TargetBase};
use pool::{Error, ErrorKind, Pool, Result, VolumeId};

use super::occupant::ImagePaths;
use super::request::Place;
use super::stage::taken;

/// Whether the pool's filesystem can still be asked about the volume. One that has failed may still answer about itself.
///
/// # Errors
/// `Io` when it has failed.
pub(super) fn can_be_read(pool: &Pool, id: &str) -> Result<()> {
    let Ok(id) = VolumeId::parse(id) else {
        return Ok(());
    };
    match pool.open_image(&id, false) {
        Err(error) if error.kind() == ErrorKind::Io => {
            pool.look_again();
            Err(error)
        }
        _there_or_not => Ok(()),
    }
}

/// A volume of a pool that cannot be used, by the paths that its image may have had.
#[derive(Debug)]
pub(super) struct LostVolume {
    /// None for what is no id of ours: that never had an image.
    images: Option<ImagePaths>,
}

impl LostVolume {
    /// The volume `id` of the pool at `pool`; no volume at all if that is not an id of ours.
    pub(super) fn new(pool: &Path, id: &str) -> Self {
        let id = VolumeId::parse(id).ok();
        Self {
            images: id.map(|id| ImagePaths::new(pool, id)),
        }
    }

    fn is(&self, image: &Path) -> bool {
        self.images
            .as_ref()
            .is_some_and(|known| known.contain(image))
    }

    fn devices(&self) -> Result<Vec<LostDevice>> {
        loop_device::find_lost(|image| self.is(image))
    }

    /// The mount at `target` and the device behind it, if it is this volume's; `None` where nothing is mounted.
    fn seat(&self, target: &Target) -> Result<Option<(Mount, LostDevice)>> {
        let found = target.inspect()?;
        let Found::Mounted(mounts) = &found else {
            return Ok(None);
        };
        let mount = mounts.first().ok_or_else(|| taken(target, &found))?;
        let number = target.device_node()?.unwrap_or(mount.device);
        match loop_device::lost_by_device_number(number)? {
            Some(device) if self.is(&device.image) => Ok(Some((mount.clone(), device))),
            _ => Err(taken(target, &found)),
        }
    }
}

/// As `unpublish::unpublish`. Devices stay until the unstage.
///
/// # Errors
/// `InUse` when a process is in it; `Conflict` when something else lies at the target.
pub(super) fn unpublish(volume: &LostVolume, targets: &TargetBase, place: &Place) -> Result<()> {
    let Some(target) = targets.open(&place.path)? else {
        return Ok(());
    };
    while volume.seat(&target)?.is_some() {
        mount::unmount_top(&target)?;
    }
    if !target.remove()? {
        return Err(taken(&target, &target.inspect()?));
    }
    Ok(())
}

/// As `unstage::unstage`. What a pool that is merely not open right now leaves is the same.
///
/// # Errors
/// `InUse` while the volume is published somewhere, or a process holds it.
pub(super) fn unstage(volume: &LostVolume, targets: &TargetBase, place: &Place) -> Result<()> {
    let devices = volume.devices()?;
    if let Some(staging) = targets.open(&place.path)? {
        while let Some((mount, device)) = volume.staged(&staging)? {
            refuse_if_published(&device, &mount)?;
            mount::unmount_top(&staging)?;
        }
    }
    for device in &devices {
        loop_device::detach_lost(device)?;
    }
    loop_device::remove_unused(&place.volume)
}

impl LostVolume {
    /// As [`LostVolume::seat`]; what else lies in kubelet's folder is left to kubelet.
    fn staged(&self, staging: &Target) -> Result<Option<(Mount, LostDevice)>> {
        match self.seat(staging) {
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
            answer => answer,
        }
    }
}

fn refuse_if_published(device: &LostDevice, staged: &Mount) -> Result<()> {
    let table = MountTable::read()?;
    let number = DeviceNumber::from_raw(device.rdev);
    let other = table
        .of_filesystem(number)
        .filter(|mount| mount.root == Path::new("/"))
        .find(|mount| mount.mount_point != staged.mount_point);
    match other {
        None => Ok(()),
        Some(other) => Err(Error::new(
            ErrorKind::InUse,
            format!(
                "the volume is still mounted at {}: unpublish it there first",
                other.mount_point.display()
            ),
        )),
    }
}
