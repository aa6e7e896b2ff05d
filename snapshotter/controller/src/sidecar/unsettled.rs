//! Which CreateSnapshot calls the driver may still be at work on though nobody waits for them any more.
//!
//! Our driver ends an abandoned call soon: it joins or withdraws, and what it had asked of the API server has arrived after
//! [`SETTLES`]. A DeleteSnapshot after that time finds whatever the call has made.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Longer than one request of the driver to the API server may take.
pub(super) const SETTLES: Duration = Duration::from_secs(20);

/// When calls were abandoned.
#[derive(Debug)]
pub(crate) struct Unsettled {
    /// Nothing is known of calls before.
    begun: Instant,
    abandoned: Mutex<HashMap<String, Option<Instant>>>,
}

impl Unsettled {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            abandoned: Mutex::default(),
        }
    }

    /// The call for this content has ended without saying how it stands.
    pub(super) fn abandoned(&self, uid: &str) {
        let mut all = self.all();
        // What was so long ago counts as if it had never been.
        let young = self.begun.elapsed() < SETTLES;
        all.retain(|_, at| young || at.is_some_and(|at| at.elapsed() < SETTLES));
        all.insert(uid.to_owned(), Some(Instant::now()));
    }

    /// The driver has said how it stands.
    pub(super) fn settled(&self, uid: &str) {
        let mut all = self.all();
        if self.begun.elapsed() < SETTLES {
            all.insert(uid.to_owned(), None);
        } else {
            all.remove(uid);
        }
    }

    /// The content is no more.
    pub(super) fn forget(&self, uid: &str) {
        self.all().remove(uid);
    }

    /// How long the driver may still be at work for a content that is marked as being created.
    pub(super) fn time_left(&self, uid: &str) -> Option<Duration> {
        let since = match self.all().get(uid) {
            Some(Some(at)) => *at,
            Some(None) => return None,
            None => self.begun,
        };
        SETTLES
            .checked_sub(since.elapsed())
            .filter(|left| !left.is_zero())
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Option<Instant>>> {
        self.abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{SETTLES, Unsettled};

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_call_is_over_after_its_time() {
        let unsettled = Unsettled::new();
        unsettled.abandoned("a");
        assert_eq!(unsettled.time_left("a"), Some(SETTLES));
        tokio::time::advance(SETTLES).await;
        assert_eq!(unsettled.time_left("a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn of_calls_of_an_earlier_process_nothing_is_known() {
        let unsettled = Unsettled::new();
        assert_eq!(unsettled.time_left("a"), Some(SETTLES));
        unsettled.settled("a");
        assert_eq!(unsettled.time_left("a"), None);
        tokio::time::advance(SETTLES).await;
        assert_eq!(unsettled.time_left("b"), None);
    }
}
