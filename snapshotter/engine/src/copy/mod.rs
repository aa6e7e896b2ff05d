//! Copies of data where the filesystem cannot share blocks: holes stay holes, memory stays bounded.
//!
//! Several threads read past the page cache, so that the copy does not push out what guests use of it. Long runs of data are written past
//! it too. Short ones are written through it, and out of it by the same threads: left there, they would be written out by the kernel's own
//! threads, which give way to nobody. Where nothing of that can be (a target in memory, ends that are no blocks) one thread copies
//! through the page cache.
//!
//! ```text
//! copy_data ─> share, as far as that goes ─> Queue: one walk over the rest ─> next chunk ─> Copier, many of them ─> WriteOut
//! ```
//! There is one walk, and every byte of it is copied: what is data and what is a hole may change while nobody writes, because pages that
//! somebody reads of what is allocated and was never written become data.

mod copier;
mod queue;
mod runs;
mod write_out;

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::slice::ChunksExactMut;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use pool::{Context, Error, ErrorKind, Result};

use self::copier::{Copier, Direct};
use self::queue::Queue;
use self::runs::Runs;
use self::write_out::WriteOut;
use crate::capture::is_unshareable;
use crate::data_map::DataRuns;
use crate::gang::{self, Priority};
use crate::huge::HugeMemory;

/// Up to this much is copied by the thread that calls, which costs less than to start others.
const FEW_BYTES: u64 = 8 << 20;
/// How many copy runs of any length: a disk is as fast as it can be with few large requests.
const WORKERS: usize = 4;
/// As much as each of them reads and writes at once, and has in memory. A run of data that is shorter than this is short: allocating it
/// and writing it past the page cache would be a transaction of the filesystem's journal each.
const CHUNK_BYTES: usize = 1 << 20;
/// How many help with short runs: a disk takes many small requests in the time of one.
const HELPERS: usize = 12;
/// And as much as each of them has.
const SHORT_CHUNK_BYTES: usize = 128 << 10;

/// What a copy has to look out for, every 50 ms and once more at its end.
pub struct Watch<'a> {
    /// The copy is worthless after this: the filesystem in the volume is frozen only until then. A copy without one gives way to
    /// all others at the disk.
    pub deadline: Option<Instant>,
    /// Answers false once the copy is not wanted any more.
    pub keep_going: &'a dyn Fn() -> bool,
    /// Hears how many bytes of data are done, and how many there are.
    pub progress: &'a dyn Fn(u64, u64),
}

impl Watch<'_> {
    /// No deadline, never stopped, nobody listening.
    pub const UNWATCHED: Self = Watch {
        deadline: None,
        keep_going: &|| true,
        progress: &|_done, _total| {},
    };

    /// Whether the copy is still wanted and worth something.
    pub(crate) fn check(&self) -> Result<()> {
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Err(Error::new(
                ErrorKind::Precondition,
                "the copy did not finish while the volume could be held still; nothing was kept of it. Unpublish the \
                 volume (stop the pod that uses it) and call again, or keep the pool on XFS or Btrfs, where a snapshot \
                 copies nothing",
            ));
        }
        if (self.keep_going)() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Uncertain,
            "the copy was stopped before it was complete; nothing was kept of it. Call again",
        ))
    }
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Watch")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// A part of a file that is to be copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) file: &'a File,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Makes sure that reading `source` gives what was last written to it, also by a loop device with direct I/O.
///
/// Such a loop device writes past the page cache of the file: the kernel throws away the cached pages of each range it
/// writes so, but only tries to, and a page that was read in at the same moment may survive. A loop device without direct
/// I/O writes into those very pages. `fdatasync` and then dropping every (now clean) page is right for both: afterwards
/// reads come from the disk, and nobody writes while we copy, which the caller has made sure of.
pub(crate) fn forget_cached(source: &File) -> Result<()> {
    source.sync_data().during("sync the source image")?;
    posix_fadvise(source, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
        .during("drop cached pages of the source image")
}

/// Copies the data of `source` to `target` from byte `target_offset`, or lets them share it where they can. Where the source has
/// holes nothing is written, so the target has to read as zero there already; it has its size. Nothing is synced. Whatever happens,
/// nothing is read or written any more when this returns.
///
/// # Errors
/// `Precondition` past the deadline and `Uncertain` when told to stop, see [`Watch`]; `NoSpace`; `Io`, also when the
/// source ends early.
pub(crate) fn copy_data(
    source: Part<'_>,
    target: &File,
    target_offset: u64,
    watch: &Watch<'_>,
) -> Result<()> {
    watch.check()?;
    let copy = Copy {
        source,
        target,
        target_offset,
        watch,
        expected: data_in(source)?,
        copied: AtomicU64::new(0),
    };
    match copy.share()? {
        rest if rest.is_empty() => {}
        rest if source.length <= FEW_BYTES => copy.by_one(rest)?,
        rest => copy.by_all(rest)?,
    }
    watch.check()?;
    (watch.progress)(copy.expected, copy.expected);
    Ok(())
}

/// How much data is in the first `length` bytes of a raw image: what a copy of it copies. That is less than what is allocated where
/// that was done ahead. Two calls for each run of data.
///
/// # Errors
/// `Io`.
pub fn data_bytes(image: &File, length: u64) -> Result<u64> {
    data_in(Part {
        file: image,
        offset: 0,
        length,
    })
}

fn data_in(source: Part<'_>) -> Result<u64> {
    let runs = DataRuns::new(source.file, source.offset, source.length);
    runs.map(|run| run.map(|run| run.end - run.start)).sum()
}

/// See [`copy_data`].
struct Copy<'a> {
    source: Part<'a>,
    target: &'a File,
    target_offset: u64,
    watch: &'a Watch<'a>,
    expected: u64,
    copied: AtomicU64,
}

impl Copy<'_> {
    /// Lets the target share what it can. What is left of the source is behind the first run that it cannot share.
    fn share(&self) -> Result<Range<u64>> {
        for run in DataRuns::new(self.source.file, self.source.offset, self.source.length) {
            let run = run?;
            let length = run.end - run.start;
            let (from, to) = (
                self.source.offset + run.start,
                self.target_offset + run.start,
            );
            match pool::sys::clone_range(self.source.file, from, length, self.target, to) {
                Ok(()) => {
                    self.add(length);
                    self.look()?;
                }
                Err(error) if is_unshareable(&error) => {
                    return Ok(run.start..self.source.length);
                }
                Err(error) => return Err(Error::io("share the blocks of the image", error)),
            }
        }
        Ok(self.source.length..self.source.length)
    }

    fn by_one(&self, rest: Range<u64>) -> Result<()> {
        let mut runs = self.runs(rest);
        let mut memory = HugeMemory::new(CHUNK_BYTES)?;
        let mut copier = Copier::new(self.source.file, self.target, None, memory.bytes());
        while let Some(chunk) = runs.next(copier.room())? {
            copier.copy(&chunk)?;
            self.add(chunk.length());
            self.look()?;
        }
        Ok(())
    }

    fn by_all(&self, rest: Range<u64>) -> Result<()> {
        let (source, target, copied) = (self.source.file, self.target, &self.copied);
        let direct = Direct::open(source, target);
        // Through the page cache one is as fast as many.
        let (workers, helpers) = if direct.is_some() {
            (WORKERS, HELPERS)
        } else {
            (1, 0)
        };
        let mut large = HugeMemory::new(workers * CHUNK_BYTES)?;
        let mut small = HugeMemory::new(helpers * SHORT_CHUNK_BYTES)?;
        let large = Mutex::new(large.bytes().chunks_exact_mut(CHUNK_BYTES));
        let small = Mutex::new(small.bytes().chunks_exact_mut(SHORT_CHUNK_BYTES));
        let write_out = WriteOut::new(target);
        let queue = Queue::new(self.runs(rest));
        let stopped = AtomicBool::new(false);
        let copy = |memory: &Mutex<ChunksExactMut<'_, u8>>| {
            let next = memory.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(memory) = next else {
                let text = "there is no memory for one of those who copy";
                return Err(Error::new(ErrorKind::Internal, text));
            };
            let direct = direct.as_ref().map(|direct| (direct, &write_out));
            let mut copier = Copier::new(source, target, direct, memory);
            while let Some(chunk) = queue.next(copier.room(), &stopped)? {
                copier.copy(&chunk)?;
                let _before = copied.fetch_add(chunk.length(), Ordering::Relaxed);
            }
            Ok(())
        };
        let (worker, helper) = (|| copy(&large), || copy(&small));
        let mut all: Vec<&gang::Worker<'_>> = vec![&worker; workers];
        all.resize(workers + helpers, &helper);
        let priority = match self.watch.deadline {
            Some(_) => Priority::Usual,
            None => Priority::Last,
        };
        gang::work(&all, priority, &stopped, || self.look())?;
        self.tell();
        Ok(())
    }

    fn runs(&self, rest: Range<u64>) -> Runs<'_> {
        let part = Part {
            file: self.source.file,
            offset: self.source.offset + rest.start,
            length: rest.end - rest.start,
        };
        Runs::new(part, self.target, self.target_offset + rest.start)
    }

    fn add(&self, bytes: u64) {
        let _before = self.copied.fetch_add(bytes, Ordering::Relaxed);
    }

    fn tell(&self) {
        let copied = self.copied.load(Ordering::Relaxed);
        (self.watch.progress)(copied.min(self.expected), self.expected);
    }

    fn look(&self) -> Result<()> {
        self.tell();
        self.watch.check()
    }
}
