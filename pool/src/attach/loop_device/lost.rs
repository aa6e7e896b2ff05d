//! Devices whose image nobody can look at any more, because its filesystem has failed or is gone.
//!
//! The kernel then answers `EIO` when asked which inode is behind a device. What it still tells is the path that the image
//! had when it was bound. That is good enough to take a device *down* at the caller's wish, and never good enough to use one.

use std::path::{Path, PathBuf};

use super::detach::{clear, holder, in_use, usage_of, wait_until};
use super::{Usage, backing_path, exclusive, node, number};
use crate::attach::mountinfo::DeviceNumber;
use crate::error::Result;

/// A loop device, known by its number and by the path its image had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostDevice {
    /// The number N of `/dev/loopN`.
    pub number: u32,
    /// The device's own number, as `st_rdev` of its node.
    pub rdev: u64,
    /// The path of the image as the kernel shows it. A filesystem that was unmounted lazily is its own root there.
    pub image: PathBuf,
}

/// All devices whose image had a path that `wanted` accepts, lowest number first.
///
/// # Errors
/// `Io` when the devices cannot be listed.
pub fn find_lost(wanted: impl Fn(&Path) -> bool) -> Result<Vec<LostDevice>> {
    let mut found = Vec::new();
    for node in node::bound()? {
        let Some(device) = lost(node.number)? else {
            continue;
        };
        if wanted(&device.image) {
            found.push(device);
        }
    }
    Ok(found)
}

/// The device with this device number (`st_rdev`), if it is a loop device and is bound to anything.
///
/// # Errors
/// `Io` when the devices cannot be listed.
pub fn lost_by_device_number(device: DeviceNumber) -> Result<Option<LostDevice>> {
    let raw = device.raw();
    Ok(find_lost(|_any| true)?
        .into_iter()
        .find(|found| found.rdev == raw))
}

/// Unbinds a device and waits until that is so. Idempotent: one that is bound to another path by now is left alone.
///
/// # Errors
/// `InUse` when it is mounted, published, held or open.
pub fn detach_lost(device: &LostDevice) -> Result<()> {
    let lock = exclusive();
    if !still_bound(device) {
        return Ok(());
    }
    match usage_of(device.number, device.rdev)? {
        Usage::None => {}
        user => return Err(in_use(device.number, &user)),
    }
    let Some(file) = holder(device.number)? else {
        return Ok(());
    };
    if !still_bound(device) {
        return Ok(());
    }
    clear(device.number, &file)?;
    drop(file);
    drop(lock);
    wait_until(device.number, || Ok(!still_bound(device)))?;
    number::remove(device.number)
}

fn lost(number: u32) -> Result<Option<LostDevice>> {
    let (Some(rdev), Some(image)) = (node::rdev(number)?, backing_path(number)) else {
        return Ok(None);
    };
    Ok(Some(LostDevice {
        number,
        rdev,
        image,
    }))
}

fn still_bound(device: &LostDevice) -> bool {
    matches!(lost(device.number), Ok(Some(now)) if now == *device)
}
