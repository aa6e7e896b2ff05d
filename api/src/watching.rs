//! Watches that begin anew after an error.
//!
//! A watch that goes on from where it was waits for ever when the API server has an older state than before (a restored backup
//! of etcd): what came back is never told, nor what is gone. So after each error everything is listed again, and because
//! that is what an API server in trouble can least afford, ever less often.

use std::fmt::Debug;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

/// The longest pause after a first error, and after many.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(20);

/// Follows the objects of `api` until dropped. An error is told at once; what follows it comes after a pause, which grows from
/// one to 20 seconds as long as the API server cannot be followed.
pub fn watching<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    begin_anew(move || watcher(api.clone(), config.clone()))
}

/// Whether the API server has said what is: an event that a list is begun comes before it is even asked.
pub fn is_answer<K>(event: &Event<K>) -> bool {
    !matches!(event, Event::Init)
}

/// The events of what `begin` makes, made again after each error; over when one of them ends without an error.
pub fn begin_anew<S, K, E>(
    begin: impl Fn() -> S + Send,
) -> impl Stream<Item = Result<Event<K>, E>> + Send
where
    S: Stream<Item = Result<Event<K>, E>> + Send,
    K: Send,
    E: Send,
{
    let start = (begin, None, Pauses::default());
    stream::unfold(start, |(begin, current, mut pauses)| async move {
        let mut events = match current {
            Some(events) => events,
            None => {
                pauses.rest().await;
                Box::pin(begin())
            }
        };
        let event = events.next().await?;
        match &event {
            Ok(Event::InitDone) => pauses.complete(),
            Ok(_) => {}
            Err(_) => pauses.failed(),
        }
        let current = event.is_ok().then_some(events);
        Some((event, (begin, current, pauses)))
    })
}

/// How long to wait after errors. A watch counts as a success once it has stood, after a complete list, for longer than the
/// pause before it: so the lists of an API server that answers them and refuses the watch become fewer too.
#[derive(Debug)]
struct Pauses {
    /// The next pause, which is not over yet; at first there is none.
    due: Duration,
    longest: Duration,
    /// Since when the watch stands.
    stands: Option<Instant>,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            due: Duration::ZERO,
            longest: FIRST,
            stands: None,
        }
    }
}

impl Pauses {
    async fn rest(&self) {
        if !self.due.is_zero() {
            tokio::time::sleep(self.due).await;
        }
    }

    fn complete(&mut self) {
        self.stands = Some(Instant::now());
    }

    fn failed(&mut self) {
        let stood = self.stands.take().map(|since| since.elapsed());
        self.longest = match stood {
            Some(stood) if stood > self.due => FIRST,
            _ if self.due.is_zero() => FIRST,
            _ => self.longest.saturating_mul(2).min(LONGEST),
        };
        // Between half of it and all: the programs of all nodes lose their API server in the same instant.
        let [part, ..] = RandomState::new().hash_one(()).to_ne_bytes();
        self.due = self.longest * (256 + u32::from(part)) / 512;
    }
}
