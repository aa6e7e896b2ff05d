//! Nodes of loop devices in `/dev`, and what sysfs lists.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, mknod};

use crate::attach::mountinfo::DeviceNumber;
use crate::error::{Context, Error, ErrorKind, Result};

/// The driver number of loop devices.
pub(super) const MAJOR: u64 = 7;

pub(super) fn path(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/loop{number}"))
}

/// The numbers of all loop devices that are bound to something, in order.
pub(super) fn bound_numbers() -> Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir("/sys/block").during("list /sys/block")? {
        let entry = entry.during("list /sys/block")?;
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix("loop"))
            .and_then(|digits| digits.parse().ok());
        if let Some(number) = number
            && is_bound(number)
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Only a bound device has this folder.
pub(super) fn is_bound(number: u32) -> bool {
    Path::new(&format!("/sys/block/loop{number}/loop")).exists()
}

/// The device's own number by sysfs; `None` when there is no such device.
pub(super) fn rdev(number: u32) -> Result<Option<u64>> {
    let file = format!("/sys/block/loop{number}/dev");
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(format!("read {file}"), error)),
    };
    let device = text.trim().split_once(':').and_then(|(major, minor)| {
        Some(DeviceNumber {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    });
    let device = device.ok_or_else(|| {
        Error::new(
            ErrorKind::Internal,
            format!("{file} holds no device number: {text:?}"),
        )
    })?;
    Ok(Some(device.raw()))
}

pub(super) fn rdev_of(device: &File) -> Result<u64> {
    Ok(device.metadata().during("examine a loop device")?.rdev())
}

/// Opens `/dev/loopN`. A container's `/dev` was filled when the container started and lacks younger devices, so a
/// missing node is made.
pub(super) fn open(number: u32, exclusive: bool) -> Result<File> {
    open_with(number, &OpenOptions::new(), exclusive)
}

/// As [`open`], for writing, which `LOOP_CONFIGURE` needs to make a writable device.
pub(super) fn open_for_writing(number: u32) -> Result<File> {
    open_with(number, OpenOptions::new().write(true), false)
}

fn open_with(number: u32, options: &OpenOptions, exclusive: bool) -> Result<File> {
    let path = path(number);
    let wanted = rdev(number)?.ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!("there is no {}", path.display()),
        )
    })?;
    let mut options = options.clone();
    let flags = libc::O_NOFOLLOW | if exclusive { libc::O_EXCL } else { 0 };
    options.read(true).custom_flags(flags);
    let device = match options.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(&path, wanted)?;
            options.open(&path)
        }
        other => other,
    }
    .context_with(|| format!("open {}", path.display()))?;
    let metadata = device.metadata().during("examine a loop device")?;
    if metadata.file_type().is_block_device() && metadata.rdev() == wanted {
        Ok(device)
    } else {
        Err(Error::new(
            ErrorKind::Precondition,
            format!(
                "{} is not loop device {number}: remove that file, the kernel or this program makes the right one",
                path.display()
            ),
        ))
    }
}

fn make(path: &Path, rdev: u64) -> Result<()> {
    match mknod(path, SFlag::S_IFBLK, Mode::from_bits_truncate(0o660), rdev) {
        // The kernel or another thread made it meanwhile.
        Ok(()) | Err(nix::Error::EEXIST) => Ok(()),
        Err(errno) => Err(Error::io(
            format!("make the device node {}", path.display()),
            errno.into(),
        )),
    }
}
