//! Thawing what a killed agent and its killed guard left frozen.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use super::thaw;
use crate::attach::loop_device;
use crate::attach::mountinfo::{Mount, MountTable};
use crate::error::Result;

/// Thaws every mounted filesystem on a loop device whose image lies on the filesystem `pool_device` (`st_dev`). Answers
/// how many were frozen. Filesystems that are not frozen stay as they are.
///
/// # Errors
/// `Io` when mounts or loop devices cannot be listed. A filesystem that cannot be thawed is logged, and the others are
/// thawed all the same.
pub fn thaw_all(pool_device: u64) -> Result<usize> {
    let table = MountTable::read()?;
    let mut thawed = 0;
    for device in loop_device::all_backed_by_device(pool_device)? {
        let number = device.device_number();
        // One of its mounts is enough; one that is hidden beneath another cannot be opened.
        let opened = table
            .of_filesystem(number)
            .find_map(|mount| open(mount, device.rdev));
        let Some((mount, root)) = opened else {
            continue;
        };
        match thaw(&root) {
            Ok(true) => {
                tracing::warn!(at = %mount.mount_point.display(), "thawed a filesystem that was left frozen");
                thawed += 1;
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!(at = %mount.mount_point.display(), %error, "cannot thaw");
            }
        }
    }
    Ok(thawed)
}

fn open(mount: &Mount, device: u64) -> Option<(&Mount, File)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&mount.mount_point)
        .ok()?;
    let same = file.metadata().ok()?.dev() == device;
    same.then_some((mount, file))
}
