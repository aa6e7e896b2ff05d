//! The one place where blocking work leaves the async runtime.
//!
//! Bounded pools, so that copies of large images never keep a mount or an unmount waiting, and a hanging disk cannot eat
//! threads without end. Work that has begun runs to its end: dropping the future does not stop it.

use std::fmt;
use std::sync::Arc;

use proto::errors::{Failure, Kind};
use tokio::sync::Semaphore;

/// How many short calls (mount, ioctl, record) run at once.
const SHORT: usize = 16;
/// How many long calls (mkfs, copy, capture, freeing) run at once.
const LONG: usize = 4;
/// How many calls that nobody waits for run at once, and those that only a person waits for.
const BACKGROUND: usize = 2;

/// Which pool a piece of work belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Mounts, ioctls, records: milliseconds.
    Short,
    /// mkfs, copies, captures, freeing: up to hours.
    Long,
    /// Reading snapshots to see whether they are sound: it must not keep any other work waiting.
    Background,
}

/// Runs blocking work.
#[derive(Clone)]
pub struct Blocking {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
    background: Arc<Semaphore>,
}

impl Default for Blocking {
    fn default() -> Self {
        Self {
            short: Arc::new(Semaphore::new(SHORT)),
            long: Arc::new(Semaphore::new(LONG)),
            background: Arc::new(Semaphore::new(BACKGROUND)),
        }
    }
}

impl fmt::Debug for Blocking {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Blocking").finish_non_exhaustive()
    }
}

impl Blocking {
    /// Runs `work` on a thread where it may block.
    ///
    /// # Errors
    /// What `work` answers; `Internal` when it panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        kind: Work,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let pool = match kind {
            Work::Short => &self.short,
            Work::Long => &self.long,
            Work::Background => &self.background,
        };
        let permit = Arc::clone(pool)
            .acquire_owned()
            .await
            .map_err(|_closed| stopped())?;
        let span = tracing::Span::current();
        #[allow(clippy::disallowed_methods, reason = "this is the place")]
        let running = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            span.in_scope(work)
        });
        running.await.map_err(|_panicked| stopped())?
    }

    /// Waits until nothing runs.
    pub async fn idle(&self) {
        let short = self
            .short
            .acquire_many(SHORT.try_into().unwrap_or(u32::MAX))
            .await;
        let long = self
            .long
            .acquire_many(LONG.try_into().unwrap_or(u32::MAX))
            .await;
        let background = self
            .background
            .acquire_many(BACKGROUND.try_into().unwrap_or(u32::MAX))
            .await;
        drop((short, long, background));
    }
}

fn stopped() -> Failure {
    Failure::new(
        Kind::Internal,
        "the operation ended without an answer; see the log of the driver",
    )
}
