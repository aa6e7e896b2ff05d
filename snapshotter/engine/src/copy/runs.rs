//! What is still to be copied, a chunk after the other.

use std::fs::File;
use std::ops::Range;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use pool::{Context, Result};

use super::{CHUNK_BYTES, Part};
use crate::data_map::DataRuns;
use crate::direct::ALIGNED;

/// So much of the target is allocated at once, ahead of those who write it: a write past the page cache that has to allocate keeps
/// all others waiting.
const ALLOCATED_BYTES: u64 = 256 << 20;

/// A part of the two files that is copied in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) from: Range<u64>,
    pub(super) to: u64,
    /// It is of a long run, and the target is allocated there.
    pub(super) is_long: bool,
}

impl Chunk {
    pub(super) fn length(&self) -> u64 {
        self.from.end - self.from.start
    }

    pub(super) fn is_aligned(&self) -> bool {
        let ends = [self.from.start, self.from.end, self.to];
        ends.iter().all(|end| end.is_multiple_of(ALIGNED))
    }
}

/// The runs of data, in the order of the source.
pub(super) struct Runs<'a> {
    source: Part<'a>,
    target: &'a File,
    target_offset: u64,
    runs: DataRuns<'a>,
    /// The rest of the run that is being copied, from the start of the part.
    run: Range<u64>,
    /// That run is long.
    is_long: bool,
    /// The target is allocated up to here, or cannot be allocated ahead.
    allocated: Option<u64>,
}

impl<'a> Runs<'a> {
    pub(super) fn new(source: Part<'a>, target: &'a File, target_offset: u64) -> Self {
        Self {
            source,
            target,
            target_offset,
            runs: DataRuns::new(source.file, source.offset, source.length),
            run: 0..0,
            is_long: false,
            allocated: Some(0),
        }
    }

    /// Whether what comes next is of a long run.
    pub(super) fn is_long(&mut self) -> Result<bool> {
        Ok(self.find()? && self.is_long)
    }

    /// The next part to be copied, of `most` bytes at most. What is of a long run is allocated in the target.
    pub(super) fn next(&mut self, most: usize) -> Result<Option<Chunk>> {
        if !self.find()? {
            return Ok(None);
        }
        let length = (most as u64).min(self.run.end - self.run.start);
        let from = self.source.offset + self.run.start;
        let to = self.target_offset + self.run.start;
        if self.is_long && self.allocated.is_some_and(|end| end < to + length) {
            self.allocate(to)?;
        }
        self.run.start += length;
        Ok(Some(Chunk {
            from: from..from + length,
            to,
            is_long: self.is_long,
        }))
    }

    /// Whether there is a run that is not wholly copied.
    fn find(&mut self) -> Result<bool> {
        while self.run.is_empty() {
            let Some(run) = self.runs.next().transpose()? else {
                return Ok(false);
            };
            self.is_long = run.end - run.start >= CHUNK_BYTES as u64;
            self.run = run;
        }
        Ok(true)
    }

    /// Allocates what comes of the run, which begins at byte `start` of the target.
    fn allocate(&mut self, start: u64) -> Result<()> {
        let length = ALLOCATED_BYTES.min(self.run.end - self.run.start);
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let how = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(self.target, how, number(start), number(length)) {
            Ok(()) => self.allocated = Some(start + length),
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => self.allocated = None,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).during("allocate the copy"),
        }
        Ok(())
    }
}
