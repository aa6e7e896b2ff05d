//! Writing out a part of a file, `sync_file_range(2)`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::clone::check;

/// Writes out what is in the page cache of `length` bytes of `file` from byte `offset`, by the thread that calls and with its
/// priority, and waits for it. Nothing is durable by that: neither the file's metadata nor the disk's own cache is written out.
///
/// # Errors
/// The kernel's. What could not be written is lost: a later sync of this file need not say so again.
pub fn write_out(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    sync_file_range(file, offset, length, flags)
}

/// Begins to write out what is in the page cache of `length` bytes of `file` from byte `offset`, and waits for nothing. What becomes
/// of it is heard by the next sync of the file, whatever is answered here.
///
/// # Errors
/// The kernel's.
pub fn begin_write_out(file: &File, offset: u64, length: u64) -> io::Result<()> {
    sync_file_range(file, offset, length, libc::SYNC_FILE_RANGE_WRITE)
}

fn sync_file_range(file: &File, offset: u64, length: u64, flags: libc::c_uint) -> io::Result<()> {
    let number = |bytes: u64| i64::try_from(bytes).map_err(|_large| io::ErrorKind::InvalidInput);
    let (offset, length) = (number(offset)?, number(length)?);
    // SAFETY: the call takes an open descriptor and plain numbers.
    check(unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, flags) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_part_of_a_file_is_written_out() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 8192], 4096).unwrap();
        begin_write_out(&file, 4096, 8192).unwrap();
        write_out(&file, 4096, 8192).unwrap();
        assert!(write_out(&file, u64::MAX, 1).is_err());
    }
}
