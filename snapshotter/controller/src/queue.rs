//! Which objects have to be looked at: each once however often it has changed, never two at a time, and those that failed after a
//! pause that doubles.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How long after a failure an object is looked at again.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// After many.
    pub most: Duration,
}

impl Backoff {
    fn after(self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.most)
    }
}

/// How looking at an object ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing to do before it changes.
    Settled,
    /// Again after a pause that grows.
    Failed,
    /// Again after this time, whatever came before.
    After(Duration),
}

/// A queue of keys.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    bell: Notify,
    backoff: Backoff,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<String>,
    /// All of `ready`, and those that changed while they are looked at.
    wanted: HashSet<String>,
    running: HashSet<String>,
    later: BTreeSet<(Instant, String)>,
    due: HashMap<String, Instant>,
    failures: HashMap<String, u32>,
}

impl Queue {
    pub(crate) fn new(backoff: Backoff) -> Self {
        Self {
            state: Mutex::default(),
            bell: Notify::new(),
            backoff,
        }
    }

    /// The object has changed: it is to be looked at, also if it waits for a later time.
    pub(crate) fn add(&self, key: &str) {
        let mut state = self.state();
        state.forget_later(key);
        if state.wanted.insert(key.to_owned()) && !state.running.contains(key) {
            state.ready.push_back(key.to_owned());
        }
        drop(state);
        self.bell.notify_one();
    }

    /// The next object to look at. It is nobody else's until [`Queue::done`].
    pub(crate) async fn next(&self) -> String {
        loop {
            let soonest = {
                let mut state = self.state();
                state.promote(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.wanted.remove(&key);
                    state.running.insert(key.clone());
                    if !state.ready.is_empty() {
                        self.bell.notify_one();
                    }
                    return key;
                }
                state.later.first().map(|(at, _)| *at)
            };
            match soonest {
                Some(at) => {
                    // Whichever comes first.
                    tokio::time::timeout_at(at, self.bell.notified()).await.ok();
                }
                None => self.bell.notified().await,
            }
        }
    }

    /// The object was looked at.
    pub(crate) fn done(&self, key: &str, outcome: Outcome) {
        let mut state = self.state();
        state.running.remove(key);
        let pause = match outcome {
            Outcome::Settled => {
                state.failures.remove(key);
                None
            }
            Outcome::Failed => {
                let failures = state.failures.entry(key.to_owned()).or_default();
                let pause = self.backoff.after(*failures);
                *failures = failures.saturating_add(1);
                Some(pause)
            }
            Outcome::After(pause) => Some(pause),
        };
        if state.wanted.contains(key) {
            state.ready.push_back(key.to_owned());
        } else if let Some(pause) = pause {
            let at = Instant::now() + pause;
            state.later.insert((at, key.to_owned()));
            state.due.insert(key.to_owned(), at);
        }
        drop(state);
        self.bell.notify_one();
    }

    /// How many objects wait to be looked at, now or later.
    pub(crate) fn len(&self) -> usize {
        let state = self.state();
        state.ready.len() + state.later.len() + state.running.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn promote(&mut self, now: Instant) {
        while let Some((at, _)) = self.later.first()
            && *at <= now
            && let Some((_, key)) = self.later.pop_first()
        {
            self.due.remove(&key);
            if self.wanted.insert(key.clone()) {
                self.ready.push_back(key);
            }
        }
    }

    fn forget_later(&mut self, key: &str) {
        if let Some(at) = self.due.remove(key) {
            self.later.remove(&(at, key.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, Outcome, Queue};

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_secs(1),
        most: Duration::from_secs(5),
    };

    fn queue() -> Queue {
        Queue::new(BACKOFF)
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_is_looked_at_once_however_often_it_changed() {
        let queue = queue();
        for key in ["a", "b", "a"] {
            queue.add(key);
        }
        assert_eq!(queue.next().await, "a");
        assert_eq!(queue.next().await, "b");
        queue.done("a", Outcome::Settled);
        queue.done("b", Outcome::Settled);
        assert_eq!(queue.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_while_it_is_looked_at_is_looked_at_again_but_never_twice_at_a_time() {
        let queue = queue();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "b");
        let again = tokio::time::timeout(Duration::from_secs(100), queue.next());
        assert!(again.await.is_err());
        queue.done("a", Outcome::Settled);
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_after_a_failure_doubles_up_to_the_most_and_success_forgets_it() {
        let queue = queue();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        for seconds in [1, 2, 4, 5, 5] {
            let begun = tokio::time::Instant::now();
            queue.done("a", Outcome::Failed);
            assert_eq!(queue.next().await, "a");
            assert_eq!(begun.elapsed().as_secs(), seconds);
        }
        queue.done("a", Outcome::Settled);
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.done("a", Outcome::Failed);
        let begun = tokio::time::Instant::now();
        assert_eq!(queue.next().await, "a");
        assert_eq!(begun.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_does_not_wait_for_the_pause() {
        let queue = queue();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.done("a", Outcome::After(Duration::from_secs(3600)));
        let begun = tokio::time::Instant::now();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        assert_eq!(begun.elapsed().as_secs(), 0);
        queue.done("a", Outcome::Settled);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn many_failures_do_not_overflow() {
        assert_eq!(BACKOFF.after(1000), BACKOFF.most);
        assert_eq!(BACKOFF.after(31), BACKOFF.most);
    }
}
