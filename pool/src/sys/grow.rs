//! Growing a mounted filesystem to the size of its device (`linux/ext4.h`, `xfs_fs.h`).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::abi::{
    EXT4_IOC_RESIZE_FS, XFS_IOC_FSGEOMETRY_V1, XFS_IOC_FSGROWFSDATA, XfsGeometryV1, XfsGrowData,
};
use super::clone::check;

/// Grows the ext4 filesystem that `any_file` lies on to `blocks` blocks of its own block size. Nothing happens when it
/// is that large already.
///
/// # Errors
/// `EINVAL` for fewer blocks than it has, `EPERM` when it is marked as damaged, `EROFS` through a read-only mount.
pub fn grow_ext4(any_file: &File, blocks: u64) -> io::Result<()> {
    // SAFETY: the kernel reads one u64 that lives longer than the call.
    check(unsafe { libc::ioctl(any_file.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks) })
}

/// The size of an XFS filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XfsGeometry {
    /// Bytes in a block.
    pub block_bytes: u32,
    /// Blocks of the data section, which is all of a filesystem without a realtime device.
    pub data_blocks: u64,
    /// The share of the space that inodes may take, in percent; growing hands it back unchanged.
    pub inode_percent: u32,
}

/// The size of the XFS filesystem that `any_file` lies on.
///
/// # Errors
/// `ENOTTY` when it is not XFS.
pub fn xfs_geometry(any_file: &File) -> io::Result<XfsGeometry> {
    let mut geometry = XfsGeometryV1::default();
    // SAFETY: the kernel fills `geometry`, which has its layout and lives longer than the call.
    check(unsafe {
        libc::ioctl(
            any_file.as_raw_fd(),
            XFS_IOC_FSGEOMETRY_V1,
            &raw mut geometry,
        )
    })?;
    Ok(XfsGeometry {
        block_bytes: geometry.blocksize,
        data_blocks: geometry.datablocks,
        inode_percent: geometry.imaxpct,
    })
}

/// Grows the XFS filesystem that `any_file` lies on to `blocks` blocks of its own block size.
///
/// # Errors
/// `EINVAL` for fewer blocks than it has or more than its device has, `EWOULDBLOCK` when it is being grown already.
pub fn grow_xfs(any_file: &File, blocks: u64, inode_percent: u32) -> io::Result<()> {
    let request = XfsGrowData {
        newblocks: blocks,
        imaxpct: inode_percent,
        pad: 0,
    };
    // SAFETY: `request` is a live, fully initialised structure of the kernel's layout; the kernel only reads it.
    check(unsafe {
        libc::ioctl(
            any_file.as_raw_fd(),
            XFS_IOC_FSGROWFSDATA,
            &raw const request,
        )
    })
}
