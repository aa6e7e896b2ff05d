//! Holding back writes of a mounted filesystem, and pulling the plug on one (`linux/fs.h`, `xfs_fs.h`).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::abi::{FIFREEZE, FITHAW, XFS_IOC_GOINGDOWN};
use super::clone::check;

/// Writes everything out and blocks all new writes to the filesystem that `mount_point` lies on.
///
/// # Errors
/// `EBUSY` when it is frozen already, `EOPNOTSUPP` when it cannot be frozen.
pub fn freeze(mount_point: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open; the third argument is not used by the kernel.
    check(unsafe { libc::ioctl(mount_point.as_raw_fd(), FIFREEZE, 0) })
}

/// Lets writes go on again.
///
/// # Errors
/// `EINVAL` when the filesystem is not frozen: harmless for a caller that only wants it not to be.
pub fn thaw(mount_point: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open; the third argument is not used by the kernel.
    check(unsafe { libc::ioctl(mount_point.as_raw_fd(), FITHAW, 0) })
}

/// Stops an XFS or ext4 filesystem at once without writing its log, as a power failure would.
///
/// Only crash tests call this: everything that was not made durable before is gone.
///
/// # Errors
/// `ENOTTY` on filesystems that do not know the call.
pub fn shutdown_xfs(any_file: &File) -> io::Result<()> {
    // XFS_FSOP_GOING_FLAGS_NOLOGFLUSH
    let no_log_flush: u32 = 2;
    // SAFETY: the kernel reads one u32 that lives longer than the call.
    check(unsafe {
        libc::ioctl(
            any_file.as_raw_fd(),
            XFS_IOC_GOINGDOWN,
            &raw const no_log_flush,
        )
    })
}
