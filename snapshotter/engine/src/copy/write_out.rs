//! Writing out of the page cache what was copied through it, by those who copy.

use std::fs::File;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use pool::{Context, Result};

use super::runs::Chunk;
use crate::advice;

/// So much is written out at once: for each write-out the filesystem looks for room once.
const GROUP_BYTES: u64 = 8 << 20;

/// What was written to the page cache, and nobody writes it out yet.
#[derive(Default)]
struct Group {
    /// From the first byte to the last. What lies between them is holes.
    range: Range<u64>,
    bytes: u64,
}

/// See the module. Shared by those who copy. At most two groups are in the page cache and not on the disk.
pub(super) struct WriteOut<'a> {
    target: &'a File,
    group: Mutex<Group>,
    /// What is on its way to the disk.
    behind: Mutex<Range<u64>>,
}

impl<'a> WriteOut<'a> {
    pub(super) fn new(target: &'a File) -> Self {
        Self {
            target,
            group: Mutex::default(),
            behind: Mutex::default(),
        }
    }

    /// Says that a chunk was written. Whoever completes a group writes it out: the group before it is on the disk then.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, of anything that was written before.
    pub(super) fn wrote(&self, chunk: &Chunk) -> Result<()> {
        let during = "write out the copy";
        let mut group = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        group.add(chunk.to..chunk.to + chunk.length());
        if group.bytes < GROUP_BYTES {
            return Ok(());
        }
        let full = std::mem::take(&mut *group).range;
        // Whoever completes the next one waits for this here, and all others for him.
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        drop(group);
        let length = full.end - full.start;
        pool::sys::begin_write_out(self.target, full.start, length).during(during)?;
        let before = std::mem::replace(&mut *behind, full);
        // Of no bytes the kernel would think that all up to the end are meant.
        if !before.is_empty() {
            let length = before.end - before.start;
            pool::sys::write_out(self.target, before.start, length).during(during)?;
            advice::forget(self.target, &before);
        }
        Ok(())
    }
}

impl Group {
    fn add(&mut self, chunk: Range<u64>) {
        self.bytes += chunk.end - chunk.start;
        self.range = if self.range.is_empty() {
            chunk
        } else {
            self.range.start.min(chunk.start)..self.range.end.max(chunk.end)
        };
    }
}
