//! Growing a mounted filesystem to its device.

use std::fs::File;

use nix::sys::statvfs::fstatvfs;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::record::FsType;
use crate::sys;

/// What growing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grown {
    /// The filesystem was as large as its device.
    AlreadyThere,
    /// It is now.
    Grown,
}

/// Grows the filesystem that is mounted at `mount_point` to `device_bytes`. Idempotent; never shrinks. `mount_point`
/// is open for reading, through a mount that is not read-only.
///
/// # Errors
/// `Corrupt` when the filesystem is marked as damaged, `Io`.
pub fn grow(mount_point: &File, fs: FsType, device_bytes: u64) -> Result<Grown> {
    match fs {
        FsType::Ext4 => grow_ext4(mount_point, device_bytes),
        FsType::Xfs => grow_xfs(mount_point, device_bytes),
    }
}

fn grow_ext4(mount_point: &File, device_bytes: u64) -> Result<Grown> {
    let before = fstatvfs(mount_point).during("measure the filesystem")?;
    // The kernel compares with the size it has and returns at once when that is the same.
    sys::grow_ext4(mount_point, device_bytes / before.block_size()).map_err(|error| {
        let damaged = error.raw_os_error() == Some(libc::EPERM);
        let error = Error::io("grow the ext4 filesystem", error);
        if damaged {
            error
                .with_kind(ErrorKind::Corrupt)
                .context("it is marked as damaged: unmount it and run e2fsck -f on its device")
        } else {
            error
        }
    })?;
    let after = fstatvfs(mount_point).during("measure the filesystem")?;
    Ok(if after.blocks() > before.blocks() {
        Grown::Grown
    } else {
        Grown::AlreadyThere
    })
}

fn grow_xfs(mount_point: &File, device_bytes: u64) -> Result<Grown> {
    let before = sys::xfs_geometry(mount_point).during("measure the filesystem")?;
    let wanted = device_bytes / u64::from(before.block_bytes);
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
