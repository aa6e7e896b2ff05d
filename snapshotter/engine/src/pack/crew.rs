//! Work on the clusters of a disk, on all processors.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use pool::Result;

use super::pieces::{BATCH, Piece};
use crate::copy::Watch;
use crate::gang::{self, LOOK, Priority};
use crate::layout::CLUSTER_BYTES;

/// More do not make it faster: the disk is one. So memory and what is being written are bounded on large machines too.
pub(crate) const MOST_WORKERS: usize = 16;

/// Some clusters, in the order of the disk.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Its number, from 0.
    pub(crate) number: u64,
    /// At most [`BATCH`], at least one.
    pub(crate) pieces: Vec<Piece>,
}

/// What is still to be done. Shared by all who work on it.
pub(crate) struct Work<I> {
    rest: Mutex<Rest<I>>,
    done: AtomicU64,
    stopped: AtomicBool,
}

struct Rest<I> {
    pieces: I,
    next: u64,
    is_over: bool,
}

impl<I: Iterator<Item = Result<Piece>>> Work<I> {
    /// The next batch; `None` when there is none, or when the work is not wanted any more.
    pub(crate) fn next(&self) -> Result<Option<Batch>> {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_stopped() {
            return Ok(None);
        }
        let pieces: Vec<Piece> = rest.pieces.by_ref().take(BATCH).collect::<Result<_>>()?;
        if pieces.is_empty() {
            rest.is_over = true;
            return Ok(None);
        }
        let number = rest.next;
        rest.next += 1;
        Ok(Some(Batch { number, pieces }))
    }

    /// How many batches there are; `None` while that is not known.
    pub(crate) fn batches(&self) -> Option<u64> {
        let rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        rest.is_over.then_some(rest.next)
    }

    /// Says that a batch is done.
    pub(crate) fn done(&self, batch: &Batch) {
        self.done
            .fetch_add(batch.pieces.len() as u64, Ordering::Relaxed);
    }
}

impl<I> Work<I> {
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

/// How the work is done.
#[derive(Clone, Copy)]
pub(crate) struct How<'a> {
    pub(crate) watch: &'a Watch<'a>,
    /// Only while nobody else needs processors or disk.
    pub(crate) idle: bool,
    /// How many clusters there are, for the progress; more than there are does no harm.
    pub(crate) clusters: u64,
    /// Called now and then by the thread that waits, which keeps its priorities: for what must not be done by one that yields to
    /// everybody. An error ends the work.
    pub(crate) tend: &'a dyn Fn() -> Result<()>,
}

/// What somebody else does beside the crew.
pub(crate) type Other<'a, I> = dyn Fn(&Work<I>) -> Result<()> + Sync + 'a;

/// Lets `worker` run on each processor, of [`MOST_WORKERS`] at most, until there is no work left. Each is told to stop by
/// [`Work::next`].
///
/// # Errors
/// The first worker's; those of [`Watch`] and of `tend`.
pub(crate) fn share<I>(
    pieces: I,
    how: How<'_>,
    worker: impl Fn(&Work<I>) -> Result<()> + Sync,
) -> Result<()>
where
    I: Iterator<Item = Result<Piece>> + Send,
{
    share_with(pieces, how, worker, &[])
}

/// The same, with others who do something else of the same work. They have to leave when it is stopped, too.
///
/// # Errors
/// As [`share`], and theirs.
pub(crate) fn share_with<I>(
    pieces: I,
    how: How<'_>,
    worker: impl Fn(&Work<I>) -> Result<()> + Sync,
    others: &[&Other<'_, I>],
) -> Result<()>
where
    I: Iterator<Item = Result<Piece>> + Send,
{
    let work = Work {
        rest: Mutex::new(Rest {
            pieces,
            next: 0,
            is_over: false,
        }),
        done: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
    };
    let priority = priority(how.idle);
    let total = how.clusters * CLUSTER_BYTES;
    let look = || {
        let done = work.done.load(Ordering::Relaxed) * CLUSTER_BYTES;
        (how.watch.progress)(done.min(total), total);
        how.watch.check().and_then(|()| (how.tend)())
    };
    let workers = workers();
    let worker = || worker(&work);
    let mut all: Vec<&gang::Worker<'_>> = vec![&worker; workers];
    let others: Vec<_> = others.iter().map(|other| || other(&work)).collect();
    all.extend(others.iter().map(|other| other as &gang::Worker<'_>));
    gang::work(&all, priority, &work.stopped, look)?;
    // What was read may not have been all.
    how.watch.check()?;
    (how.watch.progress)(total, total);
    Ok(())
}

/// How many work.
pub(crate) fn workers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    processors.min(MOST_WORKERS)
}

pub(crate) fn priority(idle: bool) -> Priority {
    if idle {
        Priority::Idle
    } else {
        Priority::Usual
    }
}

/// Whether a worker waits for the turn of what it has done. Only for the first of what it has: so whoever has the first batch of all
/// never waits, and somebody always goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It has something else to do.
    None,
    /// It has not.
    Waits,
}

impl Patience {
    pub(crate) fn of(has_nothing_else_to_do: bool) -> Self {
        if has_nothing_else_to_do {
            Self::Waits
        } else {
            Self::None
        }
    }
}

/// Something that is done batch by batch, in their order, by whoever has the batch.
pub(crate) struct Turns<T> {
    state: Mutex<(u64, T)>,
    passed: Condvar,
}

impl<T> Turns<T> {
    pub(crate) fn new(of: T) -> Self {
        Self {
            state: Mutex::new((0, of)),
            passed: Condvar::new(),
        }
    }

    /// Takes the turn of batch `number`; `None` when it has not come, or when the work was stopped while it was waited for.
    ///
    /// # Errors
    /// Those of `act`.
    pub(crate) fn take<I, R>(
        &self,
        number: u64,
        patience: Patience,
        work: &Work<I>,
        act: impl FnOnce(&mut T) -> Result<R>,
    ) -> Result<Option<R>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.0 != number {
            if patience == Patience::None || work.is_stopped() {
                return Ok(None);
            }
            // Whoever stops the work tells nobody.
            let waited = self.passed.wait_timeout(state, LOOK);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let acted = act(&mut state.1)?;
        state.0 += 1;
        self.passed.notify_all();
        Ok(Some(acted))
    }

    pub(crate) fn into_inner(self) -> T {
        let state = self.state.into_inner();
        state.unwrap_or_else(PoisonError::into_inner).1
    }
}
