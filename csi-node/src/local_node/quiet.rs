//! Holding a volume still while it is cut or copied.
//!
//! | The volume is | blocks can be shared | they cannot |
//! |---|---|---|
//! | not attached, or attached and used by nobody | nothing to hold | nothing to hold |
//! | a mounted filesystem | frozen around the cut, so that it is clean | frozen, and copied within the time, or refused |
//! | a published device | cut as it is: one atomic call, crash-consistent | refused: nobody could say what was copied |

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use pool::attach::freeze::{FreezeGuard, LONGEST};
use pool::attach::loop_device::{self, ImageKey, LoopDevice, Usage};
use pool::attach::mountinfo::MountTable;
use pool::record::VolumeRecord;
use pool::{Context, Error, ErrorKind, Result};

/// The freeze ends by itself after [`LONGEST`]; a copy has to be over well before.
const MARGIN: Duration = Duration::from_millis(500);

/// A volume that is held still as long as this lives.
#[derive(Debug)]
pub(super) struct Quiet {
    guard: Option<FreezeGuard>,
    deadline: Option<Instant>,
}

/// Holds the volume of `source` still, as far as a cut (`shares_blocks`) or a copy needs it.
///
/// # Errors
/// `Precondition` when a copy could be torn: it says what to do.
pub(super) fn hold(source: &VolumeRecord, image: &File, shares_blocks: bool) -> Result<Quiet> {
    let devices = loop_device::find(ImageKey::of(image)?)?;
    for device in devices.iter().filter(|device| !device.read_only) {
        write_out(device)?;
        match loop_device::usage(device)? {
            Usage::None => {}
            Usage::Mounted(_) => return freeze(device, shares_blocks),
            Usage::Published(at) if !shares_blocks => {
                return Err(writable(source, &format!("published at {}", at.display())));
            }
            Usage::Held(number) if !shares_blocks => {
                return Err(writable(source, &format!("held by /dev/loop{number}")));
            }
            Usage::Published(_) | Usage::Held(_) => {}
        }
    }
    Ok(Quiet {
        guard: None,
        deadline: None,
    })
}

impl Quiet {
    /// When a copy has to be over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Lets the volume go on.
    ///
    /// # Errors
    /// `Precondition` when a copy was made and the volume was not held still until now. A cut is one atomic call, so it
    /// is good also then: crash-consistent instead of clean.
    pub(super) fn release(self, shares_blocks: bool) -> Result<()> {
        let Some(guard) = self.guard else {
            return Ok(());
        };
        let held = guard.thaw()?;
        if held {
            return Ok(());
        }
        if shares_blocks {
            tracing::warn!(
                "the filesystem thawed before the cut was over; the snapshot is crash-consistent"
            );
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Precondition,
            "the volume was written to before its copy was over: stop the pod that uses it, or use a pool on XFS or Btrfs",
        ))
    }
}

/// Writes out what buffered writers of the device have in the page cache, so that what a pod wrote before it asked for a
/// snapshot is in it also without a sync of its own. A VM's disk is opened with direct I/O and has nothing there.
fn write_out(device: &LoopDevice) -> Result<()> {
    device
        .open()?
        .sync_all()
        .context_with(|| format!("write out {}", device.path().display()))
}

fn freeze(device: &LoopDevice, shares_blocks: bool) -> Result<Quiet> {
    let mount_point = open_mount(device)?;
    match FreezeGuard::freeze(&mount_point) {
        Ok(guard) => {
            let deadline = Instant::now() + LONGEST.saturating_sub(MARGIN);
            Ok(Quiet {
                guard: Some(guard),
                deadline: Some(deadline),
            })
        }
        Err(error) if shares_blocks => {
            tracing::warn!(%error, "the filesystem cannot be frozen; the snapshot is crash-consistent");
            Ok(Quiet {
                guard: None,
                deadline: None,
            })
        }
        Err(error) => Err(error.with_kind(ErrorKind::Precondition).context(
            "the volume is mounted and cannot be held still for a copy; stop the pod that uses it",
        )),
    }
}

/// Opens any place where the filesystem on `device` is mounted, and makes sure that it is that filesystem.
fn open_mount(device: &LoopDevice) -> Result<File> {
    let mounts = MountTable::read()?;
    for mount in mounts.of_filesystem(device.device_number()) {
        let opened = File::open(&mount.mount_point)
            .context_with(|| format!("open {}", mount.mount_point.display()))?;
        // Another filesystem may be mounted over this place.
        if opened.metadata().during("look at a mount point")?.dev() == device.rdev {
            return Ok(opened);
        }
    }
    Err(Error::new(
        ErrorKind::Busy,
        format!(
            "{} was mounted a moment ago and is not any more; try again",
            device.path().display()
        ),
    ))
}

fn writable(source: &VolumeRecord, how: &str) -> Error {
    Error::new(
        ErrorKind::Precondition,
        format!(
            "the volume {} is {how}, and this pool's filesystem cannot share blocks between files, so a copy of it while it is written would be torn. Stop the pod or VM that uses it and try again, or use a pool on XFS (reflink) or Btrfs",
            source.id
        ),
    )
}
