//! Making the filesystem, once in a volume's life.
//!
//! 1. `Unformatted`: the image must be blank. Record `Formatting`.
//! 2. `Formatting`: make the image blank again if a run before us may have begun, mkfs, fsync. Record `Formatted`.
//! 3. `Formatted` and `Inherited`: nothing, ever.
//!
//! Only one at a time: the image is locked meanwhile, also by mkfs itself, which may outlive the driver.
//!
//! Stopped after 1: mkfs runs on an image that is blank. Stopped within 2: what was written was never mounted, so it is
//! thrown away. Stopped after 2: done.

use std::fs::{File, TryLockError};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::Whence;

use super::blank::seek;
use super::{ext4, refuse_unless_blank, size, xfs};
use crate::attach::loop_device::{self, ImageKey};
use crate::attach::tool;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::fault::{self, Step};
use crate::record::{Format, FormatState, FsType, Provisioning, VolumeRecord};

/// mkfs on a sparse file takes well under a second for a terabyte; a disk that is that slow is broken.
const LIMIT: Duration = Duration::from_mins(10);

/// Makes the filesystem that `record` asks for, unless it was made before. `image` is open for reading and writing, and
/// `set_state` records a state durably before it returns.
///
/// # Errors
/// `OutOfRange` when the volume is too small for the filesystem, `Corrupt` when the image and the record disagree, `Busy` while an
/// earlier mkfs still runs, `InUse` when a loop device is bound to an image without a filesystem, `NoSpace`, `Precondition` when mkfs
/// is not installed, `Io`. The state never runs ahead of the image.
pub fn ensure_made(
    image: &File,
    record: &VolumeRecord,
    format: Format,
    mut set_state: impl FnMut(FormatState) -> Result<()>,
) -> Result<()> {
    if matches!(
        format.state,
        FormatState::Formatted | FormatState::Inherited
    ) {
        return Ok(());
    }
    refuse_too_small(record, format.fs)?;
    lock(image)?;
    match format.state {
        FormatState::Formatted | FormatState::Inherited => return Ok(()),
        FormatState::Unformatted => {
            refuse_attached(image)?;
            refuse_unless_blank(image)?;
            set_state(FormatState::Formatting)?;
            fault::reached(Step::StageFormatting)?;
        }
        FormatState::Formatting => {
            refuse_attached(image)?;
            make_blank(image, record)?;
        }
    }
    make(image, record, format.fs)?;
    // Not after an error: an mkfs that was given up may go on, and the lock ends with it and with `image`.
    image.unlock().during("unlock the image")?;
    fault::reached(Step::StageMade)?;
    set_state(FormatState::Formatted)?;
    fault::reached(Step::StageFormatted)
}

/// Whoever asks for a volume gets one that is large enough; this one was made in another way, or by an older program.
fn refuse_too_small(record: &VolumeRecord, fs: FsType) -> Result<()> {
    let least = match fs {
        FsType::Ext4 => ext4::LEAST_BYTES,
        FsType::Xfs => xfs::LEAST_BYTES,
    };
    if record.size_bytes >= least {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::OutOfRange,
        format!(
            "the volume has {} bytes, and {fs} takes {least} at least: expand it",
            record.size_bytes
        ),
    ))
}

/// mkfs holds this lock as well, because it gets `image` as its standard input: one that outlives a killed driver keeps
/// the next one from making a filesystem, and handing it out, under its hands.
fn lock(image: &File) -> Result<()> {
    match image.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::Busy,
            "an earlier mkfs of this volume has not ended yet; try again",
        )),
        Err(TryLockError::Error(error)) => Err(Error::io("lock the image", error)),
    }
}

fn refuse_attached(image: &File) -> Result<()> {
    match loop_device::find(ImageKey::of(image)?)?.first() {
        None => Ok(()),
        Some(device) => Err(Error::new(
            ErrorKind::InUse,
            format!(
                "this volume has no filesystem yet, but somebody bound its image to {}: detach it (losetup -d)",
                device.path().display()
            ),
        )),
    }
}

fn make_blank(image: &File, record: &VolumeRecord) -> Result<()> {
    image.set_len(0).during("empty the image")?;
    image
        .set_len(record.size_bytes)
        .during("give the image its size again")?;
    allocate(image, record)
}

fn make(image: &File, record: &VolumeRecord, fs: FsType) -> Result<()> {
    let (program, mut arguments) = match fs {
        FsType::Ext4 => ("mkfs.ext4", ext4::make_arguments(record.size_bytes)),
        FsType::Xfs => ("mkfs.xfs", xfs::make_arguments()),
    };
    arguments.push(path_of(image).display().to_string());
    let outcome = tool::run_holding(program, &arguments, LIMIT, image)?;
    if outcome.code != Some(0) {
        return Err(failed(program, &outcome));
    }
    if fs == FsType::Ext4 && !size::has_journal(image)? {
        return Err(Error::new(
            ErrorKind::Io,
            format!(
                "{program} made no journal, without which a power loss damages the filesystem: {}",
                outcome.output
            ),
        ));
    }
    image.sync_all().during("write the new filesystem out")?;
    match record.provisioning {
        Provisioning::Thin => release_blank_blocks(image, record.size_bytes),
        Provisioning::Thick => allocate(image, record),
    }?;
    image.sync_all().during("write the new filesystem out")
}

/// A full disk is the one failure of mkfs that its caller can do something about.
fn failed(program: &str, outcome: &tool::Outcome) -> Error {
    let full = outcome.output.contains("No space left on device")
        || outcome.output.contains("Disk quota exceeded");
    let kind = if full {
        ErrorKind::NoSpace
    } else {
        ErrorKind::Io
    };
    let code = outcome.code;
    Error::new(
        kind,
        format!("{program} ended with {code:?}: {}", outcome.output),
    )
}

/// mkfs asks for inode tables and a log that read as zero, and gets blocks that are allocated and never written: 64 MiB
/// for the log of each XFS volume. Holes read as zero too, and cost nothing.
fn release_blank_blocks(image: &File, bytes: u64) -> Result<()> {
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let mut from = 0;
    while from < bytes {
        let data = seek(image, from, Whence::SeekData)?.unwrap_or(bytes);
        if data > from {
            fallocate(image, punch, offset(from)?, offset(data - from)?)
                .during("release blank blocks of the image")?;
        }
        from = seek(image, data, Whence::SeekHole)?
            .unwrap_or(bytes)
            .max(data + 1);
    }
    Ok(())
}

fn offset(bytes: u64) -> Result<i64> {
    i64::try_from(bytes)
        .map_err(|error| Error::new(ErrorKind::Internal, format!("offset in an image: {error}")))
}

fn allocate(image: &File, record: &VolumeRecord) -> Result<()> {
    match record.provisioning {
        Provisioning::Thin => Ok(()),
        Provisioning::Thick => {
            let length = offset(record.size_bytes)?;
            fallocate(image, FallocateFlags::empty(), 0, length).during("allocate the image")
        }
    }
}

/// A path that leads to this very inode, for another process.
fn path_of(image: &File) -> PathBuf {
    PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        image.as_raw_fd()
    ))
}
