//! Growing a filesystem to its device.
//!
//! XFS grows only while it is mounted. ext4 grows either way: mounted by one call to the kernel, for which it wants the
//! capability `CAP_SYS_RESOURCE`, and unmounted by `resize2fs`, for which it wants a full check before. A container that
//! lacks the capability so still gets its space at the next mount.

use std::fs::{self, File};
use std::time::Duration;

use super::{ext4, size};
use crate::attach::loop_device::LoopDevice;
use crate::attach::tool;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::record::FsType;
use crate::sys;

/// As for a check.
const LIMIT: Duration = Duration::from_hours(2);
/// Less than this is not worth growing for: both filesystems leave a last bit of the device alone when it is too small
/// for their unit of growth.
const SLACK_BYTES: u64 = 1 << 20;

/// What growing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grown {
    /// The filesystem was as large as its device.
    AlreadyThere,
    /// It is now.
    Grown,
}

/// Grows the filesystem on `device`, which is not mounted, where that is possible and will not be possible later: ext4
/// in a process without `CAP_SYS_RESOURCE`. Idempotent.
///
/// # Errors
/// `Corrupt` when a check finds damage, `Precondition` when a tool is not installed, `Io`.
pub fn grow_before_mount(device: &LoopDevice, fs: FsType) -> Result<Grown> {
    if fs != FsType::Ext4 || may_resize()? {
        return Ok(Grown::AlreadyThere);
    }
    let bytes = device.bytes()?;
    let is_smaller =
        size::read(&device.open()?, fs)?.is_some_and(|found| found.bytes + SLACK_BYTES <= bytes);
    if !is_smaller {
        return Ok(Grown::AlreadyThere);
    }
    let name = device.path().display().to_string();
    let check = tool::run("e2fsck", &["-f", "-p", &name], LIMIT)?;
    ext4::judge_check(&check, &name)?;
    let resize = tool::run("resize2fs", &[&name], LIMIT)?;
    if resize.code == Some(0) {
        Ok(Grown::Grown)
    } else {
        Err(Error::new(
            ErrorKind::Io,
            format!(
                "resize2fs {name} ended with {:?}: {}",
                resize.code, resize.output
            ),
        ))
    }
}

/// Grows the mounted filesystem to its device. Idempotent; never shrinks. `mount_point` is open for reading, through a
/// mount that is not read-only.
///
/// # Errors
/// `Corrupt` when the filesystem is marked as damaged, `Precondition` for ext4 without `CAP_SYS_RESOURCE`, `Io`.
pub fn grow(mount_point: &File, fs: FsType, device: &LoopDevice) -> Result<Grown> {
    let bytes = device.bytes()?;
    match fs {
        FsType::Ext4 => grow_ext4(mount_point, device, bytes),
        FsType::Xfs => grow_xfs(mount_point, bytes),
    }
}

fn grow_ext4(mount_point: &File, device: &LoopDevice, bytes: u64) -> Result<Grown> {
    let Some(before) = size::read(&device.open()?, FsType::Ext4)? else {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("{} has no ext4 superblock", device.path().display()),
        ));
    };
    if before.bytes + SLACK_BYTES > bytes {
        return Ok(Grown::AlreadyThere);
    }
    sys::grow_ext4(mount_point, bytes / before.block_bytes).map_err(|error| {
        let refused = error.raw_os_error() == Some(libc::EPERM);
        let error = Error::io("grow the mounted ext4 filesystem", error);
        match refused {
            false => error,
            true if before.damaged => error
                .context("it is marked as damaged: stop the pod, which has it checked at its next start")
                .with_kind(ErrorKind::Corrupt),
            true => error
                .context(
                    "the kernel wants CAP_SYS_RESOURCE for this: give the driver that capability (a privileged container has it), \
                     or stop its pods until the volume is unmounted: the next mount grows the filesystem",
                )
                .with_kind(ErrorKind::Precondition),
        }
    })?;
    Ok(Grown::Grown)
}

fn grow_xfs(mount_point: &File, bytes: u64) -> Result<Grown> {
    let before = sys::xfs_geometry(mount_point).during("measure the filesystem")?;
    let wanted = bytes / u64::from(before.block_bytes);
    if wanted <= before.data_blocks {
        return Ok(Grown::AlreadyThere);
    }
    sys::grow_xfs(mount_point, wanted, before.inode_percent).during("grow the XFS filesystem")?;
    // XFS leaves the last few blocks alone when they are too few for an allocation group.
    let after = sys::xfs_geometry(mount_point).during("measure the filesystem")?;
    Ok(if after.data_blocks > before.data_blocks {
        Grown::Grown
    } else {
        Grown::AlreadyThere
    })
}

/// Whether this process has `CAP_SYS_RESOURCE`.
fn may_resize() -> Result<bool> {
    const SYS_RESOURCE: u64 = 1 << 24;
    let status = fs::read_to_string("/proc/self/status").during("read /proc/self/status")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    Ok(effective.is_none_or(|mask| mask & SYS_RESOURCE != 0))
}
