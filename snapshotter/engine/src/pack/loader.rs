//! Reading ahead of the crew, past the page cache: packers find their clusters in memory, and the guests keep their cache.
//!
//! For images in the identity layout, whose clusters are what the disk has. What is compressed is read by whoever decodes it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use pool::{Context, Result};

use super::crew::{Batch, Work, workers};
use super::pieces::{BATCH, Piece, neighbours};
use crate::advice;
use crate::direct::{self, Memory};
use crate::gang::LOOK;
use crate::layout::CLUSTER_BYTES;

/// So many batches at most are in memory, or on their way there, before a packer has them: 4 MiB.
const LOADED: usize = 8;
/// One who reads is enough for so many who pack.
const PACKERS: usize = 8;

/// How many are to read.
pub(super) fn loaders() -> usize {
    workers().div_ceil(PACKERS)
}

/// A batch, and the bytes of its clusters, one behind the other.
#[derive(Default)]
pub(super) struct Load {
    pub(super) batch: Batch,
    pub(super) bytes: Memory,
}

/// Room for the clusters of a batch.
pub(super) fn room() -> Memory {
    Memory::new(BATCH as u64 * CLUSTER_BYTES)
}

#[derive(Default)]
struct Shelf {
    loaded: BTreeMap<u64, Load>,
    /// Batches that are being read.
    coming: usize,
    /// The batch that a packer gets next. They are handed out in their order: see [`super::crew::Patience`].
    next: u64,
    free: Vec<Memory>,
}

/// See the module. Shared by those who read and those who pack.
pub(super) struct Loader<'f> {
    image: &'f File,
    direct: Option<File>,
    is_direct: AtomicBool,
    shelf: Mutex<Shelf>,
    changed: Condvar,
}

impl<'f> Loader<'f> {
    pub(super) fn new(image: &'f File) -> Self {
        let direct = direct::open(image, false);
        if let Err(error) = &direct {
            tracing::debug!(%error, "a snapshot is read through the page cache");
        }
        Self {
            image,
            is_direct: AtomicBool::new(direct.is_ok()),
            direct: direct.ok(),
            shelf: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Reads, as far ahead as there is room, until there is nothing left of `work`.
    ///
    /// # Errors
    /// `Io`, and those of finding out what there is to read.
    pub(super) fn run<I>(&self, work: &Work<I>) -> Result<()>
    where
        I: Iterator<Item = Result<Piece>>,
    {
        while let Some(mut bytes) = self.wait_for_room(work) {
            let Some(batch) = work.next()? else {
                // Whoever waits for more need not.
                self.changed.notify_all();
                break;
            };
            self.read(&batch.pieces, &mut bytes)?;
            let mut shelf = self.shelf();
            shelf.coming -= 1;
            let _none = shelf.loaded.insert(batch.number, Load { batch, bytes });
            self.changed.notify_all();
        }
        Ok(())
    }

    /// The next batch; `None` when there is none, or when the work was stopped.
    pub(super) fn next<I>(&self, work: &Work<I>) -> Option<Load>
    where
        I: Iterator<Item = Result<Piece>>,
    {
        let mut shelf = self.shelf();
        while !work.is_stopped() && work.batches() != Some(shelf.next) {
            let next = shelf.next;
            if let Some(load) = shelf.loaded.remove(&next) {
                shelf.next += 1;
                self.changed.notify_all();
                return Some(load);
            }
            shelf = self.wait(shelf);
        }
        None
    }

    /// Takes memory back that a packer does not need any more.
    pub(super) fn give_back(&self, bytes: Memory) {
        self.shelf().free.push(bytes);
    }

    fn wait_for_room<I>(&self, work: &Work<I>) -> Option<Memory> {
        let mut shelf = self.shelf();
        while !work.is_stopped() {
            if shelf.loaded.len() + shelf.coming < LOADED {
                shelf.coming += 1;
                return Some(shelf.free.pop().unwrap_or_else(room));
            }
            shelf = self.wait(shelf);
        }
        None
    }

    fn read(&self, pieces: &[Piece], bytes: &mut Memory) -> Result<()> {
        let mut rest = bytes.get(pieces.len() as u64 * CLUSTER_BYTES);
        for (run, _) in neighbours(pieces) {
            let Some(first) = pieces.get(run.start) else {
                break;
            };
            let length = run.len() * usize::try_from(CLUSTER_BYTES).unwrap_or(0);
            let (now, later) = rest.split_at_mut(length.min(rest.len()));
            let start = first.place.range().start;
            self.read_run(now, start)
                .context_with(|| format!("read the snapshot image at byte {start}"))?;
            rest = later;
        }
        Ok(())
    }

    fn read_run(&self, bytes: &mut [u8], start: u64) -> io::Result<()> {
        if let Some(direct) = &self.direct
            && self.is_direct.load(Ordering::Relaxed)
        {
            match direct.read_exact_at(bytes, start) {
                // What the disk under it wants is not what any disk wants.
                Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
                    self.is_direct.store(false, Ordering::Relaxed);
                }
                done => return done,
            }
        }
        self.image.read_exact_at(bytes, start)?;
        advice::forget(self.image, &(start..start + bytes.len() as u64));
        Ok(())
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever stops the work tells nobody, so never for long.
    fn wait<'s>(&self, shelf: MutexGuard<'s, Shelf>) -> MutexGuard<'s, Shelf> {
        let waited = self.changed.wait_timeout(shelf, LOOK);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
