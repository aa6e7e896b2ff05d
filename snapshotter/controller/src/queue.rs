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
    /// After many of which each was meant to be the last word.
    pub most_refused: Duration,
}

impl Backoff {
    fn after(self, failures: u32, most: Duration) -> Duration {
        let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(most)
    }
}

/// How looking at an object ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing to do before it changes.
    Settled,
    /// Again after a pause that grows.
    Failed,
    /// The same, and it may grow longer: what has failed costs writes each time, and was meant to be the last word.
    Refused,
    /// Again after this time, whatever came before.
    After(Duration),
}

/// A queue of keys. Closed at first: then nobody takes from it, so nothing is put into it.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    bell: Notify,
    backoff: Backoff,
}

#[derive(Debug, Default)]
struct State {
    open: bool,
    ready: VecDeque<String>,
    /// All of `ready`, and those that changed while they are looked at.
    wanted: HashSet<String>,
    running: HashSet<String>,
    /// Those that changed while they are looked at, but not so that it is urgent.
    wanted_later: HashSet<String>,
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

    /// From now on objects are looked at. All that there is has to be added after this.
    pub(crate) fn open(&self) {
        self.state().open = true;
        self.bell.notify_one();
    }

    /// From now on no more objects are looked at. What waits is forgotten.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        let running = std::mem::take(&mut state.running);
        *state = State {
            running,
            ..State::default()
        };
    }

    /// The object has changed: it is to be looked at, also if it waits for a later time.
    pub(crate) fn add(&self, key: &str) {
        let mut state = self.state();
        if !state.open {
            return;
        }
        state.forget_later(key);
        if state.wanted.insert(key.to_owned()) && !state.running.contains(key) {
            state.ready.push_back(key.to_owned());
        }
        drop(state);
        self.bell.notify_one();
    }

    /// The object has changed, and need not be looked at before the pause after its last failure is over.
    pub(crate) fn add_later(&self, key: &str) {
        let mut state = self.state();
        if !state.open || state.wanted.contains(key) || state.due.contains_key(key) {
            return;
        }
        if state.running.contains(key) {
            state.wanted_later.insert(key.to_owned());
            return;
        }
        let failures = state.failures.get(key).copied().unwrap_or_default();
        let pause = self.backoff.after(failures, self.backoff.most);
        state.put_off(key, pause);
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
        let wanted_later = state.wanted_later.remove(key);
        if !state.open {
            return;
        }
        let pause = match outcome {
            Outcome::Settled => {
                state.failures.remove(key);
                let soon = self.backoff.after(0, self.backoff.most);
                wanted_later.then_some(soon)
            }
            Outcome::Failed => Some(self.failed(&mut state, key, self.backoff.most)),
            Outcome::Refused => Some(self.failed(&mut state, key, self.backoff.most_refused)),
            Outcome::After(pause) => Some(pause),
        };
        if state.wanted.contains(key) {
            state.ready.push_back(key.to_owned());
        } else if let Some(pause) = pause {
            state.put_off(key, pause);
        }
        drop(state);
        self.bell.notify_one();
    }

    /// How long to wait after one more failure.
    fn failed(&self, state: &mut State, key: &str, most: Duration) -> Duration {
        let failures = state.failures.entry(key.to_owned()).or_default();
        let pause = self.backoff.after(*failures, most);
        *failures = failures.saturating_add(1);
        pause
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

    fn put_off(&mut self, key: &str, pause: Duration) {
        let at = Instant::now() + pause;
        self.later.insert((at, key.to_owned()));
        self.due.insert(key.to_owned(), at);
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
        most_refused: Duration::from_secs(20),
    };

    fn queue() -> Queue {
        let queue = Queue::new(BACKOFF);
        queue.open();
        queue
    }

    /// How many seconds later the one object comes again.
    async fn again(queue: &Queue) -> u64 {
        let begun = tokio::time::Instant::now();
        assert_eq!(queue.next().await, "a");
        begun.elapsed().as_secs()
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
            queue.done("a", Outcome::Failed);
            assert_eq!(again(&queue).await, seconds);
        }
        queue.done("a", Outcome::Settled);
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.done("a", Outcome::Failed);
        assert_eq!(again(&queue).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_after_a_last_word_grows_longer() {
        let queue = queue();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        for seconds in [1, 2, 4, 8, 16, 20, 20] {
            queue.done("a", Outcome::Refused);
            assert_eq!(again(&queue).await, seconds);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_is_not_urgent_waits_for_the_pause() {
        let queue = queue();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        for seconds in [1, 2, 4] {
            // Before and after it has failed.
            queue.add_later("a");
            queue.done("a", Outcome::Failed);
            queue.add_later("a");
            assert_eq!(again(&queue).await, seconds);
        }
        // It is not forgotten either.
        queue.add_later("a");
        queue.done("a", Outcome::Settled);
        assert_eq!(again(&queue).await, 1);
        queue.done("a", Outcome::Settled);
        queue.add_later("a");
        assert_eq!(again(&queue).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_is_closed_keeps_nothing() {
        let queue = Queue::new(BACKOFF);
        queue.add("a");
        queue.add_later("a");
        assert_eq!(queue.len(), 0);
        queue.open();
        for key in ["a", "b", "c"] {
            queue.add(key);
        }
        assert_eq!(queue.next().await, "a");
        assert_eq!(queue.next().await, "b");
        queue.done("b", Outcome::Failed);
        assert_eq!(queue.len(), 3);
        queue.close();
        // What is looked at now is, to its end.
        assert_eq!(queue.len(), 1);
        queue.add("a");
        queue.done("a", Outcome::Failed);
        assert_eq!(queue.len(), 0);
        let next = tokio::time::timeout(Duration::from_secs(100), queue.next());
        assert!(next.await.is_err());
        queue.open();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.done("a", Outcome::Failed);
        assert_eq!(again(&queue).await, 1, "no failure is remembered");
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
        assert_eq!(BACKOFF.after(1000, BACKOFF.most), BACKOFF.most);
        assert_eq!(BACKOFF.after(31, BACKOFF.most), BACKOFF.most);
    }
}
