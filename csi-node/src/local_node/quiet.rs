//! Holding a volume still while it is cut, where blocks can be shared. Copies are the business of [`super::still`].
//!
//! | The volume is | how it is cut |
//! |---|---|
//! | not attached, or attached and used by nobody | as it is |
//! | a mounted filesystem | frozen around the cut, so that it is clean |
//! | a published device, or mounted in a container alone | as it is: one atomic call, crash-consistent |

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use nix::fcntl::OFlag;
use pool::attach::freeze::FreezeGuard;
use pool::attach::loop_device::{self, ImageKey, LoopDevice, Usage};
use pool::attach::mountinfo::MountTable;
use pool::{Context, Error, ErrorKind, Result};

/// A volume that is held still as long as this lives.
#[derive(Debug)]
pub(super) struct Quiet {
    guard: Option<FreezeGuard>,
}

/// Holds the volume behind `image` still, as far as a cut needs it.
///
/// # Errors
/// The kernel's.
pub(super) fn hold(image: &File) -> Result<Quiet> {
    let devices = loop_device::find(ImageKey::of(image)?)?;
    for device in devices.iter().filter(|device| !device.read_only) {
        write_out(device)?;
        if let Usage::Mounted(_) = loop_device::usage(device)? {
            return freeze(device);
        }
    }
    Ok(Quiet { guard: None })
}

impl Quiet {
    /// Whether writers are held back.
    pub(super) fn is_frozen(&self) -> bool {
        self.guard.is_some()
    }

    /// Lets the volume go on. A cut is one atomic call, so it is good also when the freeze ended before: crash-consistent
    /// instead of clean.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn release(self) -> Result<()> {
        if let Some(guard) = self.guard
            && !guard.thaw()?
        {
            tracing::warn!(
                "the filesystem thawed before the cut was over; the snapshot is crash-consistent"
            );
        }
        Ok(())
    }
}

/// Writes out what buffered writers of the device have in the page cache, so that what a pod wrote before it asked for a
/// snapshot is in it also without a sync of its own. A VM's disk is opened with direct I/O and has nothing there.
pub(super) fn write_out(device: &LoopDevice) -> Result<()> {
    device
        .open()?
        .sync_all()
        .context_with(|| format!("write out {}", device.path().display()))
}

fn freeze(device: &LoopDevice) -> Result<Quiet> {
    let mount_point = open_mount(device)?;
    match FreezeGuard::freeze(&mount_point) {
        Ok(guard) => Ok(Quiet { guard: Some(guard) }),
        Err(error) => {
            tracing::warn!(%error, "the filesystem cannot be frozen; the snapshot is crash-consistent");
            Ok(Quiet { guard: None })
        }
    }
}

/// Opens any place where the filesystem on `device` is mounted, and makes sure that it is that filesystem: a place may lie hidden
/// below another mount.
pub(super) fn open_mount(device: &LoopDevice) -> Result<File> {
    let mounts = MountTable::read()?;
    let mut unopened = None;
    for mount in mounts.of_filesystem(device.device_number()) {
        // A single file of it may be mounted, and be a pipe.
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits())
            .open(&mount.mount_point)
            .context_with(|| format!("open {}", mount.mount_point.display()));
        match opened {
            Ok(file)
                if file
                    .metadata()
                    .is_ok_and(|found| found.dev() == device.rdev) =>
            {
                return Ok(file);
            }
            Ok(_another_filesystem) => {}
            Err(error) => unopened = Some(error),
        }
    }
    Err(unopened.unwrap_or_else(|| {
        Error::new(
            ErrorKind::Busy,
            format!(
                "{} was mounted a moment ago and is not any more, or lies hidden below another mount; try again",
                device.path().display()
            ),
        )
    }))
}
