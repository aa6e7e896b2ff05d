//! Files without the page cache between: what is read comes from the disk, and neither reading nor writing takes memory from the guests.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// Offsets, lengths and addresses have to be multiples of this: what any disk wants that filesystems are made on.
pub(crate) const ALIGNED: u64 = 4096;

/// The same file once more, opened like that; a description of its own, so `file` stays as it is.
///
/// # Errors
/// The kernel's, where the filesystem cannot do it.
pub(crate) fn open(file: &File, write: bool) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut how = OpenOptions::new();
    let how = how.read(true).write(write);
    how.custom_flags(nix::libc::O_DIRECT).open(path)
}

/// Memory that begins at an aligned address.
#[derive(Default)]
pub(crate) struct Memory(Vec<u8>);

impl Memory {
    pub(crate) fn new(bytes: u64) -> Self {
        Self(vec![0; usize::try_from(bytes + ALIGNED).unwrap_or(0)])
    }

    /// Its first `length` bytes; none if there are not so many.
    pub(crate) fn get(&mut self, length: u64) -> &mut [u8] {
        let start = self.start();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let room = self.0.get_mut(start..);
        let bytes = room.and_then(|room| room.get_mut(..length));
        bytes.unwrap_or_default()
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.get(self.start()..).unwrap_or_default()
    }

    fn start(&self) -> usize {
        let alignment = usize::try_from(ALIGNED).unwrap_or(1);
        self.0.as_ptr().align_offset(alignment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_never_more_than_was_asked_for() {
        let mut memory = Memory::new(3 * ALIGNED);
        for length in [0, 1, ALIGNED, 3 * ALIGNED] {
            let bytes = memory.get(length);
            assert_eq!(bytes.len() as u64, length);
            assert_eq!(bytes.as_ptr() as u64 % ALIGNED, 0);
        }
        assert!(memory.get(5 * ALIGNED).is_empty());
    }
}
