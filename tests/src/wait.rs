//! Waiting for something that will happen, with a bound.

use std::time::{Duration, Instant};

/// How often a condition is looked at again.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks at `condition` until it holds; false when `limit` has passed.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Waits until `condition` holds, and panics with `what` when it does not within `limit`.
#[track_caller]
pub fn until(what: &str, limit: Duration, condition: impl FnMut() -> bool) {
    assert!(
        holds_within(limit, condition),
        "{what}: did not happen within {limit:?}"
    );
}
