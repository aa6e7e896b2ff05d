//! Sharing blocks between files (reflink), `ioctl_ficlonerange(2)`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::abi::{FICLONE, FICLONERANGE, FileCloneRange};

/// Makes `target` share all blocks of `source`, in one atomic step.
///
/// # Errors
/// `EOPNOTSUPP` or `EXDEV` where the filesystem cannot share blocks, `ENOSPC`, `EIO`.
pub fn clone_file(source: &File, target: &File) -> io::Result<()> {
    // SAFETY: both descriptors are open for the whole call; the argument is a plain descriptor number.
    let code = unsafe { libc::ioctl(target.as_raw_fd(), FICLONE, source.as_raw_fd()) };
    check(code)
}

/// Makes `length` bytes of `target` at `target_offset` share the blocks of `source` at `source_offset`.
///
/// The call is atomic against writers of `source`: it holds the inode's lock for its whole length. All three numbers
/// must be multiples of the filesystem's block size, but for a length that ends at the end of the source.
///
/// # Errors
/// As [`clone_file`]; `EINVAL` for numbers that are not aligned.
pub fn clone_range(
    source: &File,
    source_offset: u64,
    length: u64,
    target: &File,
    target_offset: u64,
) -> io::Result<()> {
    let range = FileCloneRange {
        src_fd: i64::from(source.as_raw_fd()),
        src_offset: source_offset,
        src_length: length,
        dest_offset: target_offset,
    };
    // SAFETY: `range` is a live, fully initialised structure of the kernel's layout; the kernel only reads it.
    let code = unsafe { libc::ioctl(target.as_raw_fd(), FICLONERANGE, &raw const range) };
    check(code)
}

pub(super) fn check(code: i32) -> io::Result<()> {
    if code < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
