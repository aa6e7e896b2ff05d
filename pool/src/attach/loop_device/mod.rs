//! Loop devices: the block device a pod sees is one over the image file, with direct I/O.
//!
//! - A device belongs to an image when its status names the image's device and inode number. Others may take the number that
//!   a volume's device should have, and the path in sysfs is cut, renamed and ambiguous, so neither is looked at.
//! - No other volume gets the number of a volume's device ([`number`]): a container may still have it.
//! - One `LOOP_CONFIGURE` sets everything, so there is no moment in which a device is half made.
//! - No autoclear: a device must not vanish because its last user closed it between two calls of kubelet. What a
//!   killed agent leaves is found again by [`all_backed_by_device`].

mod configure;
mod detach;
mod lost;
mod node;
mod number;
mod writes;

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use configure::{Attached, attach, set_capacity};
pub use detach::{Usage, detach, is_claimed, is_held, remove_unused, usage};
pub use lost::{LostDevice, detach_lost, find_lost, lost_by_device_number};
pub use writes::{Writes, writes};

use crate::attach::mountinfo::DeviceNumber;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys;

/// The logical sector size of every device, in bytes. Guests write partition tables in it, so it never changes.
pub const SECTOR_BYTES: u32 = 512;

/// What an image file is, whatever it is called and even when it was unlinked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageKey {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
}

impl ImageKey {
    /// The key of an open image.
    ///
    /// # Errors
    /// `Io` when it cannot be examined.
    pub fn of(image: &File) -> Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = image.metadata().during("examine the image")?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

/// A loop device that is bound to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopDevice {
    /// The number N of `/dev/loopN`.
    pub number: u32,
    /// The device's own number, as `st_rdev` of its node.
    pub rdev: u64,
    /// The image behind it.
    pub image: ImageKey,
    /// It refuses writes.
    pub read_only: bool,
    /// It bypasses the page cache. False where the disk cannot do that with 512-byte sectors (4Kn).
    pub direct_io: bool,
    /// It goes away with its last user: somebody tried to detach it while it was open.
    pub autoclear: bool,
    /// It shows the whole image. Ours always do.
    pub whole: bool,
    /// `st_rdev` of what is behind it, where that is itself a block device; else 0.
    pub backing_rdev: u64,
}

impl LoopDevice {
    /// `/dev/loopN`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        node::path(self.number)
    }

    /// Major and minor number, as mountinfo shows them.
    #[must_use]
    pub fn device_number(&self) -> DeviceNumber {
        DeviceNumber::from_raw(self.rdev)
    }

    /// Opens the device for reading, and makes its node in `/dev` where a container has none.
    ///
    /// # Errors
    /// `NotFound` when it is gone.
    pub fn open(&self) -> Result<File> {
        node::open(self.number, false)
    }

    /// The size in bytes.
    ///
    /// # Errors
    /// `NotFound` when it is gone, `Io` when it cannot be asked.
    pub fn bytes(&self) -> Result<u64> {
        let device = self.open()?;
        sys::block_device_bytes(&device)
            .context_with(|| format!("ask the size of {}", self.path().display()))
    }
}

/// All loop devices bound to `image`, lowest number first. More than one is normal: a read-only publish has its own.
///
/// # Errors
/// `Io` when the devices cannot be listed.
pub fn find(image: ImageKey) -> Result<Vec<LoopDevice>> {
    Ok(bound()?
        .into_iter()
        .filter(|device| device.image == image)
        .collect())
}

/// All loop devices bound to files of the filesystem `device` (`st_dev`), of unlinked files too.
///
/// # Errors
/// `Io` when the devices cannot be listed.
pub fn all_backed_by_device(device: u64) -> Result<Vec<LoopDevice>> {
    Ok(bound()?
        .into_iter()
        .filter(|found| found.image.device == device)
        .collect())
}

/// The loop device of this number, if it is bound to anything.
///
/// # Errors
/// `Io` when its status cannot be read.
pub fn by_number(number: u32) -> Result<Option<LoopDevice>> {
    if !node::is_bound(number) {
        return Ok(None);
    }
    status(number)
}

/// The loop device with this device number (`st_rdev`), if it is one and is bound to anything.
///
/// # Errors
/// `Io` when its status cannot be read.
pub fn by_device_number(device: DeviceNumber) -> Result<Option<LoopDevice>> {
    if device.major != node::MAJOR {
        return Ok(None);
    }
    let raw = device.raw();
    // Minor and number are the same unless the kernel was booted with `max_part`.
    match node::bound()?.into_iter().find(|node| node.rdev == raw) {
        Some(node) => status(node.number),
        None => Ok(None),
    }
}

/// A device that cannot say what it is bound to is left out: the filesystem under it has failed, so its file is none of
/// those that a caller could open and is looking for. One dead disk of somebody else must not stop every pool.
fn bound() -> Result<Vec<LoopDevice>> {
    let mut found = Vec::new();
    for node in node::bound()? {
        let number = node.number;
        match status_of(number, node.open()) {
            // Its file lies on a filesystem that was shut down: nobody can tell which file it was, and nothing can be read or
            // written through it any more. It must not keep the other devices from being used.
            Err(error) if error.errno() == Some(libc::EIO) => {
                tracing::warn!(number, error = %error, "a loop device on a failed filesystem");
            }
            answer => found.extend(answer?),
        }
    }
    Ok(found)
}

/// What a device is bound to now; `None` when it was released meanwhile.
fn status(number: u32) -> Result<Option<LoopDevice>> {
    status_of(number, node::open(number, false))
}

fn status_of(number: u32, opened: Result<File>) -> Result<Option<LoopDevice>> {
    let device = match opened {
        Ok(device) => device,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    read_status(number, &device)
}

fn read_status(number: u32, device: &File) -> Result<Option<LoopDevice>> {
    let status = match sys::loop_status(device) {
        Ok(status) => status,
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Ok(None),
        Err(error) => {
            let path = node::path(number);
            return Err(Error::io(format!("ask {}", path.display()), error));
        }
    };
    Ok(Some(LoopDevice {
        number,
        rdev: node::rdev_of(device)?,
        image: ImageKey {
            device: status.device,
            inode: status.inode,
        },
        read_only: status.read_only,
        direct_io: status.direct_io,
        autoclear: status.autoclear,
        whole: status.offset == 0 && status.size_limit == 0,
        backing_rdev: status.backing_rdev,
    }))
}

fn is_gone(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound || matches!(error.errno(), Some(libc::ENXIO | libc::ENODEV))
}

/// Finding a device and making or releasing one is one act, or two threads would bind one image twice for writing.
fn exclusive() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The path that the kernel shows for the file behind a device, also of one that was removed. Good enough to leave a device alone,
/// never good enough to use one: the file may have been renamed, and another mounted over it.
#[must_use]
pub fn backing_path(number: u32) -> Option<PathBuf> {
    let shown = backing_path_hint(number)?;
    let path = shown.strip_suffix(" (deleted)").unwrap_or(&shown);
    Some(PathBuf::from(path))
}

/// The path that the kernel shows for the file behind a device: a hint for people, nothing to decide by.
#[must_use]
pub fn backing_path_hint(number: u32) -> Option<String> {
    let shown = fs::read(format!("/sys/block/loop{number}/loop/backing_file")).ok()?;
    Some(String::from_utf8_lossy(&shown).trim_end().to_owned())
}
