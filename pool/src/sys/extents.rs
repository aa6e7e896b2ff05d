//! Where a file's bytes lie on the disk beneath it (`FS_IOC_FIEMAP`).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::abi::{FIEMAP_BATCH, FS_IOC_FIEMAP, Fiemap, FiemapExtent};
use super::clone::check;

const EXTENT_LAST: u32 = 0x0001;
const EXTENT_UNKNOWN: u32 = 0x0002;
const EXTENT_DELALLOC: u32 = 0x0004;
const EXTENT_INLINE: u32 = 0x0200;

/// One run of a file's bytes on disk. All numbers are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset in the file.
    pub logical: u64,
    /// Offset on the device; `None` when the filesystem has not placed the bytes yet or keeps them inline.
    pub physical: Option<u64>,
    /// Length.
    pub length: u64,
}

/// Calls `visit` with each extent of `file`, in file order. Nothing is written out first: bytes that are not placed
/// yet have no physical offset.
///
/// # Errors
/// `EOPNOTSUPP` where the filesystem has no extent map.
pub fn extents(file: &File, mut visit: impl FnMut(Extent)) -> io::Result<()> {
    let mut map = Box::new(Fiemap {
        start: 0,
        length: u64::MAX,
        flags: 0,
        mapped_extents: 0,
        extent_count: 0,
        reserved: 0,
        extents: [FiemapExtent::default(); FIEMAP_BATCH],
    });
    loop {
        map.length = u64::MAX - map.start;
        map.mapped_extents = 0;
        map.extent_count = u32::try_from(FIEMAP_BATCH).unwrap_or(u32::MAX);
        let pointer: *mut Fiemap = &raw mut *map;
        // SAFETY: the kernel writes at most `extent_count` extents behind the header, for which the array has room.
        check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP, pointer) })?;
        let found = (map.mapped_extents as usize).min(FIEMAP_BATCH);
        for extent in &map.extents[..found] {
            let placed = extent.flags & (EXTENT_UNKNOWN | EXTENT_DELALLOC | EXTENT_INLINE) == 0;
            visit(Extent {
                logical: extent.logical,
                physical: placed.then_some(extent.physical),
                length: extent.length,
            });
        }
        let Some(last) = map.extents[..found].last() else {
            return Ok(());
        };
        if last.flags & EXTENT_LAST != 0 {
            return Ok(());
        }
        map.start = last.logical + last.length;
    }
}
