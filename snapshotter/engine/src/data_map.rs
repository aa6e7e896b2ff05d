//! Which parts of a file are data and which are holes, by `SEEK_DATA` and `SEEK_HOLE`.
//!
//! Not by FIEMAP: on XFS that has to look up every shared block's reference count, which took 10 s and more while a
//! clone of the same blocks ran, and without FIEMAP_FLAG_SYNC it does not see data that has no place on disk yet.
//!
//! `lseek` moves the position of the open file; everything in this crate reads and writes at explicit offsets, so nobody
//! is disturbed, and two walks of one file do not disturb each other.

use std::fs::File;
use std::iter::FusedIterator;
use std::ops::Range;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use pool::{Context, Error, ErrorKind, Result};

use crate::layout::CLUSTER_BYTES;

/// The runs of data of a part of a file: byte ranges from the start of that part, ascending, never empty, with a hole
/// between each two. After an error there is nothing more.
#[derive(Debug)]
pub(crate) struct DataRuns<'a> {
    file: &'a File,
    base: u64,
    next: u64,
    end: u64,
}

impl<'a> DataRuns<'a> {
    /// The data in `length` bytes of `file` from byte `base`. What lies beyond the end of the file is a hole.
    pub(crate) fn new(file: &'a File, base: u64, length: u64) -> Self {
        Self {
            file,
            base,
            next: base,
            end: base.saturating_add(length),
        }
    }

    fn find_next(&self) -> Result<Option<Range<u64>>> {
        if self.next >= self.end {
            return Ok(None);
        }
        let Some(start) = seek(self.file, self.next, Whence::SeekData)? else {
            return Ok(None);
        };
        if start >= self.end {
            return Ok(None);
        }
        let hole = seek(self.file, start, Whence::SeekHole)?.unwrap_or(self.end);
        if start < self.next || hole <= start {
            return Err(Error::new(
                ErrorKind::Io,
                format!(
                    "the filesystem says that data of the image runs from byte {start} to byte {hole}: \
                     the file changed while it was read, or the filesystem is damaged"
                ),
            ));
        }
        Ok(Some(start..hole.min(self.end)))
    }
}

impl Iterator for DataRuns<'_> {
    type Item = Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.find_next();
        self.next = match &found {
            Ok(Some(run)) => run.end,
            Ok(None) | Err(_) => self.end,
        };
        found
            .map(|run| run.map(|run| run.start - self.base..run.end - self.base))
            .transpose()
    }
}

impl FusedIterator for DataRuns<'_> {}

/// The first data or hole at or after `from`; `None` when there is only hole until the end of the file.
fn seek(file: &File, from: u64, whence: Whence) -> Result<Option<u64>> {
    let too_far = || Error::io("find the data of the image", Errno::EOVERFLOW.into());
    let from = i64::try_from(from).map_err(|_too_large| too_far())?;
    match lseek(file, from, whence) {
        Ok(found) => u64::try_from(found)
            .map(Some)
            .map_err(|_negative| too_far()),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno).during("find the data of the image"),
    }
}

/// Byte ranges as ranges of whole clusters: every cluster that a byte range touches, neighbours joined.
#[derive(Debug)]
pub(crate) struct ClusterRuns<I> {
    bytes: I,
    pending: Option<Range<u64>>,
    byte_runs: u64,
}

impl<I: Iterator<Item = Result<Range<u64>>>> ClusterRuns<I> {
    /// `bytes` must ascend.
    pub(crate) fn new(bytes: I) -> Self {
        Self {
            bytes,
            pending: None,
            byte_runs: 0,
        }
    }

    /// How many byte ranges were read so far.
    pub(crate) fn byte_runs(&self) -> u64 {
        self.byte_runs
    }
}

impl<I: Iterator<Item = Result<Range<u64>>>> Iterator for ClusterRuns<I> {
    type Item = Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        for bytes in self.bytes.by_ref() {
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) => return Some(Err(error)),
            };
            self.byte_runs += 1;
            let run = bytes.start / CLUSTER_BYTES..bytes.end.div_ceil(CLUSTER_BYTES);
            match &mut self.pending {
                Some(pending) if run.start <= pending.end => pending.end = pending.end.max(run.end),
                pending => {
                    if let Some(done) = pending.replace(run) {
                        return Some(Ok(done));
                    }
                }
            }
        }
        self.pending.take().map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::*;

    /// The joined clusters of runs of bytes; all runs as (start, end).
    fn joined(runs: &[(u64, u64)]) -> Vec<(u64, u64)> {
        ClusterRuns::new(runs.iter().map(|(start, end)| Ok(*start..*end)))
            .map(|run| run.map(|run| (run.start, run.end)).unwrap())
            .collect()
    }

    #[test]
    fn clusters_touched_by_two_runs_are_one_run() {
        let c = CLUSTER_BYTES;
        let runs = [(0, 1), (4096, 8192), (c, c + 1), (3 * c, 4 * c)];
        assert_eq!(joined(&runs), [(0, 2), (3, 4)]);
        assert_eq!(joined(&[]), []);
        assert_eq!(joined(&[(c - 1, c + 1)]), [(0, 2)]);
    }

    proptest! {
        #[test]
        fn cluster_runs_cover_exactly_the_touched_clusters(
            cuts in proptest::collection::btree_set(0..40 * CLUSTER_BYTES, 0..40),
        ) {
            let cuts: Vec<u64> = cuts.into_iter().collect();
            let runs: Vec<_> = cuts.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            let touched: Vec<u64> = (0..40)
                .filter(|cluster| {
                    let (start, end) = (cluster * CLUSTER_BYTES, (cluster + 1) * CLUSTER_BYTES);
                    runs.iter().any(|run| run.0 < end && run.1 > start)
                })
                .collect();
            let joined = joined(&runs);
            prop_assert_eq!(joined.iter().flat_map(|run| run.0..run.1).collect::<Vec<_>>(), touched);
            prop_assert!(joined.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }

    #[test]
    fn data_is_found_where_it_was_written_and_nowhere_else() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(16 << 20).unwrap();
        file.write_all_at(&[1; 4096], 0).unwrap();
        file.write_all_at(&[1; 8192], 5 << 20).unwrap();
        file.write_all_at(&[1; 4096], (16 << 20) - 4096).unwrap();
        let runs = |base, length| -> Vec<_> {
            DataRuns::new(&file, base, length)
                .map(|run| run.map(|run| (run.start, run.end)).unwrap())
                .collect()
        };
        let (mib, end) = (1 << 20, 16 << 20);
        let all = [(0, 4096), (5 * mib, 5 * mib + 8192), (end - 4096, end)];
        assert_eq!(runs(0, end), all);
        assert_eq!(runs(5 * mib + 4096, 4096), [(0, 4096)]);
        assert_eq!(runs(4096, mib), []);
        assert_eq!(runs(end - 4096, mib), [(0, 4096)]);
        assert_eq!(runs(end, mib), []);
    }
}
