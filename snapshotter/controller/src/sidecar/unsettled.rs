//! Which CreateSnapshot calls the driver may still be at work on though nobody waits for them any more.
//!
//! Our driver ends an abandoned call soon: it joins or withdraws, and what it had asked of the API server has arrived after
//! that time. A DeleteSnapshot later finds whatever the call has made.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Longer than one request of the driver to the API server may take.
pub const SETTLES: Duration = Duration::from_secs(20);

/// When calls were abandoned. Only time settles one: another call of the same name may be answered before it has ended.
#[derive(Debug)]
pub(crate) struct Unsettled {
    settles: Duration,
    /// Nothing is known of calls before.
    begun: Instant,
    abandoned: Mutex<HashMap<String, Instant>>,
}

impl Unsettled {
    /// `settles`: after which time an abandoned call is surely over.
    pub(crate) fn new(settles: Duration) -> Self {
        Self {
            settles,
            begun: Instant::now(),
            abandoned: Mutex::default(),
        }
    }

    /// The call for this content has ended without saying how it stands.
    pub(super) fn abandoned(&self, uid: &str) {
        let mut all = self.all();
        all.retain(|_, at| at.elapsed() < self.settles);
        all.insert(uid.to_owned(), Instant::now());
    }

    /// Another one is called for this content, which is marked: whoever did so may have abandoned his.
    pub(super) fn marked(&self, uid: &str) {
        if self.begun.elapsed() < self.settles {
            self.all().entry(uid.to_owned()).or_insert(self.begun);
        }
    }

    /// The content is no more.
    pub(super) fn forget(&self, uid: &str) {
        self.all().remove(uid);
    }

    /// How long the driver may still be at work for a content. `marked`: as being created.
    pub(super) fn time_left(&self, uid: &str, marked: bool) -> Option<Duration> {
        let known = self.all().get(uid).copied();
        let since = known.or_else(|| marked.then_some(self.begun))?;
        self.settles
            .checked_sub(since.elapsed())
            .filter(|left| !left.is_zero())
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{SETTLES, Unsettled};

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_call_is_over_after_its_time() {
        let unsettled = Unsettled::new(SETTLES);
        tokio::time::advance(SETTLES).await;
        assert_eq!(unsettled.time_left("a", true), None);
        unsettled.abandoned("a");
        tokio::time::advance(Duration::from_secs(1)).await;
        let left = SETTLES.checked_sub(Duration::from_secs(1));
        // Also if another call was answered meanwhile, and the mark is off.
        assert_eq!(unsettled.time_left("a", false), left);
        assert_eq!(unsettled.time_left("b", true), None);
        tokio::time::advance(SETTLES).await;
        assert_eq!(unsettled.time_left("a", true), None);
    }

    #[tokio::test(start_paused = true)]
    async fn of_calls_of_an_earlier_process_nothing_is_known() {
        let unsettled = Unsettled::new(SETTLES);
        assert_eq!(unsettled.time_left("a", true), Some(SETTLES));
        assert_eq!(unsettled.time_left("a", false), None);
        unsettled.marked("a");
        assert_eq!(unsettled.time_left("a", false), Some(SETTLES));
        tokio::time::advance(SETTLES).await;
        assert_eq!(unsettled.time_left("a", true), None);
        unsettled.marked("b");
        assert_eq!(unsettled.time_left("b", true), None);
    }
}
