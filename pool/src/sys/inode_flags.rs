//! Per-inode settings of XFS and Btrfs (`ioctl_fsgetxattr(2)`, `ioctl_iflags(2)`).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::abi::{FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR, FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FsXattr};
use super::clone::check;

/// `FS_XFLAG_COWEXTSIZE`.
const XFLAG_COW_EXTENT_SIZE: u32 = 0x0001_0000;
/// `FS_NOCOW_FL`.
const FLAG_NOCOW: u64 = 0x0080_0000;

/// The copy-on-write allocation unit of an XFS inode, in bytes; 0 means the filesystem's default (128 KiB).
///
/// # Errors
/// `ENOTTY` or `EOPNOTSUPP` where there is no such setting.
pub fn cow_extent_size(file: &File) -> io::Result<u32> {
    Ok(fsxattr(file)?.cowextsize)
}

/// Sets the copy-on-write allocation unit of an XFS inode, in bytes, a multiple of the block size.
///
/// # Errors
/// `EINVAL` on a bad size, `ENOTTY` or `EOPNOTSUPP` where there is no such setting.
pub fn set_cow_extent_size(file: &File, bytes: u32) -> io::Result<()> {
    let mut attributes = fsxattr(file)?;
    attributes.xflags |= XFLAG_COW_EXTENT_SIZE;
    attributes.cowextsize = bytes;
    // SAFETY: `attributes` is a live structure of the kernel's layout; the kernel only reads it.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSSETXATTR, &raw const attributes) })
}

fn fsxattr(file: &File) -> io::Result<FsXattr> {
    let mut attributes = FsXattr::default();
    // SAFETY: the kernel fills `attributes`, which has its layout and lives longer than the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut attributes) })?;
    Ok(attributes)
}

/// Whether the inode is marked NOCOW (`chattr +C`), which Btrfs hands down from a folder to new files.
///
/// # Errors
/// `ENOTTY` where there are no inode flags.
pub fn is_nocow(file: &File) -> io::Result<bool> {
    Ok(inode_flags(file)? & FLAG_NOCOW != 0)
}

/// Marks a folder or an empty file NOCOW, as `chattr +C` does.
///
/// # Errors
/// `EOPNOTSUPP` on filesystems other than Btrfs.
pub fn set_nocow(file: &File) -> io::Result<()> {
    let flags = inode_flags(file)? | FLAG_NOCOW;
    // SAFETY: the kernel reads one word that lives longer than the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_SETFLAGS, &raw const flags) })
}

fn inode_flags(file: &File) -> io::Result<u64> {
    let mut flags: u64 = 0;
    // SAFETY: the kernel fills one word (it writes an int into it) that lives longer than the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETFLAGS, &raw mut flags) })?;
    Ok(flags)
}
