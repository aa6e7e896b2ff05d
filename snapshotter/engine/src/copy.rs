//! Copies of data where the filesystem cannot share blocks: holes stay holes, memory stays bounded.
//!
//! Several threads read and write past the page cache: neither does the copy push out what guests use of it, nor is what it writes
//! written out by the kernel's own threads, which give way to nobody. Short runs of data are written through the page cache, and out
//! of it a MiB at a time, by the same threads. Where nothing of that can be (a target in memory, ends that are no blocks) one thread copies
//! through the page cache.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use pool::{Context, Error, ErrorKind, Result};

use crate::advice;
use crate::capture::is_unshareable;
use crate::data_map::DataRuns;
use crate::direct::{self, ALIGNED};
use crate::gang::{self, Priority};
use crate::huge::HugeMemory;

/// How many copy at once.
const THREADS: usize = 4;
/// As much as each of them reads and writes at once, and has in memory.
const CHUNK_BYTES: usize = 1 << 20;
/// Up to this much is copied by the thread that calls, which costs less than to start others.
const FEW_BYTES: u64 = 8 << 20;
/// So much of the target is allocated at once, ahead of those who write it: a write past the page cache that has to allocate keeps
/// all others waiting.
const ALLOCATED_BYTES: u64 = 256 << 20;
/// A run of data that is shorter than this is scattered: allocating it and writing it past the page cache would be a transaction of the
/// filesystem's journal each. It is written through the page cache, and out of it with others.
const SCATTERED_BYTES: u64 = 1 << 20;

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
    let mut runs = Runs::new(source, target, target_offset);
    let expected = data_in(source)?;
    let mut copied = 0;
    while let Some(shared) = runs.share_next()? {
        copied += shared;
        (watch.progress)(copied.min(expected), expected);
        watch.check()?;
    }
    if source.length <= FEW_BYTES {
        let mut memory = HugeMemory::new(CHUNK_BYTES)?;
        let mut copier = Copier::new(source.file, target, None, memory.bytes());
        while let Some(chunk) = runs.next()? {
            copier.copy(&chunk)?;
            copied += chunk.length();
            (watch.progress)(copied.min(expected), expected);
            watch.check()?;
        }
    } else {
        copied += copy_by_all(source, target, runs, expected, watch)?;
        (watch.progress)(copied.min(expected), expected);
    }
    watch.check()?;
    (watch.progress)(expected, expected);
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

fn copy_by_all(
    source: Part<'_>,
    target: &File,
    runs: Runs<'_>,
    expected: u64,
    watch: &Watch<'_>,
) -> Result<u64> {
    let direct = Direct::open(source.file, target);
    let (runs, copied, stopped) = (Mutex::new(runs), AtomicU64::new(0), AtomicBool::new(false));
    let look = || {
        let copied = copied.load(Ordering::Relaxed);
        (watch.progress)(copied.min(expected), expected);
        watch.check()
    };
    let priority = match watch.deadline {
        Some(_) => Priority::Usual,
        None => Priority::Last,
    };
    let threads = if direct.is_some() { THREADS } else { 1 };
    let mut memory = HugeMemory::new(threads * CHUNK_BYTES)?;
    let memory = Mutex::new(memory.bytes().chunks_exact_mut(CHUNK_BYTES));
    let copy = || {
        let next = memory.lock().unwrap_or_else(PoisonError::into_inner).next();
        let mut copier = Copier::new(
            source.file,
            target,
            direct.as_ref(),
            next.unwrap_or_default(),
        );
        while !stopped.load(Ordering::Acquire) {
            let next = runs.lock().unwrap_or_else(PoisonError::into_inner).next()?;
            let Some(chunk) = next else { break };
            copier.copy(&chunk)?;
            copied.fetch_add(chunk.length(), Ordering::Relaxed);
        }
        Ok(())
    };
    gang::work(
        &vec![&copy as &gang::Worker<'_>; threads],
        priority,
        &stopped,
        look,
    )?;
    Ok(copied.into_inner())
}

/// A part of the two files that is copied in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chunk {
    from: Range<u64>,
    to: u64,
    /// It is of a short run.
    is_scattered: bool,
}

impl Chunk {
    fn length(&self) -> u64 {
        self.from.end - self.from.start
    }

    fn is_aligned(&self) -> bool {
        let ends = [self.from.start, self.from.end, self.to];
        ends.iter().all(|end| end.is_multiple_of(ALIGNED))
    }
}

/// What is still to be copied, in the order of the source.
struct Runs<'a> {
    source: Part<'a>,
    target: &'a File,
    target_offset: u64,
    runs: DataRuns<'a>,
    /// The rest of the run that is being copied, from the start of the part.
    run: Range<u64>,
    /// That run is short.
    is_scattered: bool,
    /// The target is allocated up to here, or cannot be allocated ahead.
    allocated: Option<u64>,
    shareable: bool,
}

impl<'a> Runs<'a> {
    fn new(source: Part<'a>, target: &'a File, target_offset: u64) -> Self {
        Self {
            source,
            target,
            target_offset,
            runs: DataRuns::new(source.file, source.offset, source.length),
            run: 0..0,
            is_scattered: false,
            allocated: Some(0),
            shareable: true,
        }
    }

    /// Lets the target share the next run of data. `None` where that cannot be, or when there is none.
    fn share_next(&mut self) -> Result<Option<u64>> {
        if !self.shareable || !self.find()? {
            return Ok(None);
        }
        let chunk = self.chunk(u64::MAX);
        let (from, length) = (chunk.from.start, chunk.length());
        match pool::sys::clone_range(self.source.file, from, length, self.target, chunk.to) {
            Ok(()) => {
                self.run.start = self.run.end;
                Ok(Some(length))
            }
            Err(error) if is_unshareable(&error) => {
                self.shareable = false;
                Ok(None)
            }
            Err(error) => Err(Error::io("share the blocks of the image", error)),
        }
    }

    /// The next part to be copied; the target is allocated there.
    fn next(&mut self) -> Result<Option<Chunk>> {
        if !self.find()? {
            return Ok(None);
        }
        let chunk = self.chunk(CHUNK_BYTES as u64);
        if !chunk.is_scattered
            && self
                .allocated
                .is_some_and(|end| end < chunk.to + chunk.length())
        {
            self.allocate(chunk.to)?;
        }
        self.run.start += chunk.length();
        Ok(Some(chunk))
    }

    /// Whether there is a run that is not wholly copied.
    fn find(&mut self) -> Result<bool> {
        while self.run.is_empty() {
            match self.runs.next().transpose()? {
                Some(run) => {
                    self.is_scattered = run.end - run.start < SCATTERED_BYTES;
                    self.run = run;
                }
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The next `most` bytes of the run.
    fn chunk(&self, most: u64) -> Chunk {
        let length = most.min(self.run.end - self.run.start);
        let from = self.source.offset + self.run.start;
        Chunk {
            from: from..from + length,
            to: self.target_offset + self.run.start,
            is_scattered: self.is_scattered,
        }
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

/// Two files, opened so that reads and writes go past the page cache.
struct Direct {
    source: File,
    target: File,
}

impl Direct {
    /// `None` where that cannot be.
    fn open(source: &File, target: &File) -> Option<Self> {
        let opened = direct::open(source, false).and_then(|source| {
            let target = direct::open(target, true)?;
            Ok(Self { source, target })
        });
        if let Err(error) = &opened {
            tracing::debug!(%error, "the copy goes through the page cache");
        }
        opened.ok()
    }
}

struct Copier<'a> {
    source: &'a File,
    target: &'a File,
    direct: Option<&'a Direct>,
    /// What was written to the page cache since: where, and how much of that by this thread.
    cached: Range<u64>,
    cached_bytes: u64,
    /// What is being written out of the page cache.
    behind: Option<Range<u64>>,
    /// Room for a chunk.
    memory: &'a mut [u8],
}

impl<'a> Copier<'a> {
    fn new(
        source: &'a File,
        target: &'a File,
        direct: Option<&'a Direct>,
        memory: &'a mut [u8],
    ) -> Self {
        Self {
            source,
            target,
            direct,
            cached: 0..0,
            cached_bytes: 0,
            behind: None,
            memory,
        }
    }

    fn copy(&mut self, chunk: &Chunk) -> Result<()> {
        let length = usize::try_from(chunk.length()).unwrap_or(usize::MAX);
        let Some(bytes) = self.memory.get_mut(..length) else {
            let text = format!("{length} bytes do not fit into the memory of a copy");
            return Err(Error::new(ErrorKind::Internal, text));
        };
        if let Some(direct) = self.direct
            && chunk.is_aligned()
        {
            let target = if chunk.is_scattered {
                self.target
            } else {
                &direct.target
            };
            match through(bytes, chunk, &direct.source, target) {
                // What the disk under it wants is not what any disk wants.
                Err(error) if error.errno() == Some(Errno::EINVAL as i32) => self.direct = None,
                Ok(()) if chunk.is_scattered => return self.write_out(chunk),
                done => return done,
            }
        }
        through(bytes, chunk, self.source, self.target)
    }

    /// Begins to write the chunks of a MiB out of the page cache, and lets go of those before them. What lies between them is other
    /// threads', and goes with them.
    fn write_out(&mut self, chunk: &Chunk) -> Result<()> {
        let during = "write out the copy";
        if self.cached_bytes == 0 {
            self.cached.start = chunk.to;
        }
        self.cached.end = chunk.to + chunk.length();
        self.cached_bytes += chunk.length();
        if self.cached_bytes < CHUNK_BYTES as u64 {
            return Ok(());
        }
        self.cached_bytes = 0;
        let length = self.cached.end - self.cached.start;
        pool::sys::begin_write_out(self.target, self.cached.start, length).during(during)?;
        let Some(before) = self.behind.replace(self.cached.clone()) else {
            return Ok(());
        };
        let length = before.end - before.start;
        pool::sys::write_out(self.target, before.start, length).during(during)?;
        advice::forget(self.target, &before);
        Ok(())
    }
}

fn through(bytes: &mut [u8], chunk: &Chunk, source: &File, target: &File) -> Result<()> {
    source
        .read_exact_at(bytes, chunk.from.start)
        .context_with(|| format!("read the image at byte {}", chunk.from.start))?;
    target
        .write_all_at(bytes, chunk.to)
        .context_with(|| format!("write the copy at byte {}", chunk.to))
}
