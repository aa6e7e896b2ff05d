//! How often in a row the API server did not do its part for an object: it is asked ever less often, and what it said is told
//! once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The pause after the first setback; doubled after each.
const FIRST: Duration = Duration::from_secs(5);
/// The longest one.
const LONGEST: Duration = Duration::from_secs(60);

/// The objects that had one, by name.
#[derive(Debug, Default)]
pub(super) struct Setbacks(Mutex<HashMap<String, Setback>>);

#[derive(Debug)]
struct Setback {
    pause: Duration,
    said: String,
}

impl Setbacks {
    /// One more setback. Answers whether it has not been told yet.
    pub(super) fn add(&self, name: &str, said: String) -> bool {
        let mut setbacks = self.lock();
        let last = setbacks.remove(name);
        let news = last.as_ref().is_none_or(|last| last.said != said);
        let pause = last.map_or(FIRST, |last| last.pause.saturating_mul(2).min(LONGEST));
        setbacks.insert(name.to_owned(), Setback { pause, said });
        news
    }

    /// All is well, or there is no such object any more.
    pub(super) fn end(&self, name: &str) {
        self.lock().remove(name);
    }

    /// How long to leave the object alone.
    pub(super) fn pause(&self, name: &str) -> Duration {
        self.lock().get(name).map_or(FIRST, |setback| setback.pause)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Setback>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_all_is_well_again_and_the_same_is_told_once() {
        let setbacks = Setbacks::default();
        let mut pauses = Vec::new();
        let mut news = Vec::new();
        for said in [
            "denied",
            "denied",
            "denied",
            "no answer",
            "denied",
            "denied",
        ] {
            news.push(setbacks.add("a", said.to_owned()));
            pauses.push(setbacks.pause("a").as_secs());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        assert_eq!(news, [true, false, false, true, true, false]);
        assert!(setbacks.add("b", "denied".to_owned()));
        setbacks.end("a");
        assert!(setbacks.add("a", "denied".to_owned()));
        assert_eq!(setbacks.pause("a"), FIRST);
    }
}
