//! How long this copy may act.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Until when this copy is surely the only one that works. Clones are one. By default for ever: without a Lease it is the only copy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hold(Arc<Mutex<Option<Instant>>>);

impl Hold {
    /// Asked before each call of the driver: a process that was held up (a stopped machine, a full disk) does not know how long, and
    /// wakes up in the middle of anything.
    pub(crate) fn is_good(&self) -> bool {
        self.until().is_none_or(|until| Instant::now() < until)
    }

    pub(super) fn set(&self, until: Instant) {
        *self.until() = Some(until);
    }

    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
