//! The one place where blocking work leaves the async runtime.
//!
//! Bounded pools, so that work of one kind never keeps another kind waiting: copies that run for hours no new volume, a check of a
//! large filesystem no probe, background work nobody. And a hanging disk cannot eat threads without end. Work that has begun runs to
//! its end: dropping the future does not stop it.

use std::fmt;
use std::sync::Arc;

use proto::errors::{Failure, Kind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Which pool a piece of work belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Looking, unmounting, ioctls: milliseconds.
    Short,
    /// Staging and publishing: milliseconds, but for a check of a large filesystem that is damaged, which takes up to hours.
    Mount,
    /// Making, growing, cutting and deleting where no data is copied: seconds at most.
    Change,
    /// Copying data, for a snapshot, a restore or a clone: up to hours.
    Copy,
    /// What nobody waits for, or only a person: reading snapshots to see whether they are sound, compressing them. Up to hours.
    Background,
    /// Freeing what was deleted: up to hours, and one after the other.
    Freeing,
}

impl Work {
    const ALL: [Self; 6] = [
        Self::Short,
        Self::Mount,
        Self::Change,
        Self::Copy,
        Self::Background,
        Self::Freeing,
    ];

    /// How many pieces of it run at once.
    fn at_once(self) -> u32 {
        match self {
            Self::Short | Self::Mount => 16,
            Self::Change | Self::Copy | Self::Background => 4,
            Self::Freeing => 1,
        }
    }
}

/// Runs blocking work.
#[derive(Clone)]
pub struct Blocking {
    /// In the order of [`Work::ALL`].
    pools: [Arc<Semaphore>; 6],
}

/// The right to run one piece of work now.
#[derive(Debug)]
pub struct Turn(#[allow(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl Default for Blocking {
    fn default() -> Self {
        let pool = |work: Work| Arc::new(Semaphore::new(work.at_once() as usize));
        Self {
            pools: Work::ALL.map(pool),
        }
    }
}

impl fmt::Debug for Blocking {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Blocking").finish_non_exhaustive()
    }
}

impl Blocking {
    /// Runs `work` on a thread where it may block, when it is its turn.
    ///
    /// # Errors
    /// What `work` answers; `Internal` when it panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        kind: Work,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let turn = self.turn(kind).await?;
        self.run_now(turn, work).await
    }

    /// Waits until a piece of work of this kind may run.
    ///
    /// # Errors
    /// None while the process runs.
    pub async fn turn(&self, kind: Work) -> Result<Turn, Failure> {
        let permit = Arc::clone(&self.pools[kind as usize])
            .acquire_owned()
            .await
            .map_err(|_closed| stopped())?;
        Ok(Turn(permit))
    }

    /// Runs `work`, whose turn it is, on a thread where it may block.
    ///
    /// # Errors
    /// What `work` answers; `Internal` when it panicked.
    pub async fn run_now<T: Send + 'static>(
        &self,
        turn: Turn,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let span = tracing::Span::current();
        #[allow(clippy::disallowed_methods, reason = "this is the place")]
        let running = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            span.in_scope(work)
        });
        running.await.map_err(|_panicked| stopped())?
    }

    /// Waits until nothing runs.
    pub async fn idle(&self) {
        let mut all = Vec::new();
        for work in Work::ALL {
            let pool = &self.pools[work as usize];
            all.push(pool.acquire_many(work.at_once()).await);
        }
    }
}

fn stopped() -> Failure {
    Failure::new(
        Kind::Internal,
        "the operation ended without an answer; see the log of the driver",
    )
}
