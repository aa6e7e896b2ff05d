//! Waiting for an agent, by watch.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::managed::Managed;
use super::mirror::Mirror;

/// How long a call waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the whole call. Below the sidecars' `--timeout`, so that the caller gets an answer that says why.
    pub call: Duration,
    /// For a sign that an agent has begun.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(285),
            silence: Duration::from_secs(30),
        }
    }
}

/// When a call that has begun gives up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    end: Instant,
    silence: Duration,
}

impl Deadline {
    pub(crate) fn begin(patience: Patience) -> Self {
        Self {
            end: Instant::now() + patience.call,
            silence: patience.silence,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }
}

/// What the state of an object means to one who waits for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict<T> {
    /// Waiting is over.
    Settled(T),
    /// An agent works on it.
    Working,
    /// No agent has shown that it works on it.
    Silent,
}

/// Waiting was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GaveUp {
    /// Whether an agent was working.
    pub(crate) working: bool,
}

/// Waits until `judge` settles on the object of this name, which is `None` once it is gone.
pub(crate) async fn wait<K: Managed, T>(
    mirror: &Mirror<K>,
    name: &str,
    deadline: Deadline,
    mut judge: impl FnMut(Option<&K>) -> Verdict<T>,
) -> Result<T, GaveUp> {
    let bell = mirror.bell(name);
    let quiet_until = (Instant::now() + deadline.silence).min(deadline.end);
    loop {
        let mut next = pin!(bell.next());
        // From here on no change is missed.
        next.as_mut().enable();
        let object: Option<Arc<K>> = mirror.get(name);
        let (until, working) = match judge(object.as_deref()) {
            Verdict::Settled(settled) => return Ok(settled),
            Verdict::Working => (deadline.end, true),
            Verdict::Silent => (quiet_until, false),
        };
        if tokio::time::timeout_at(until, next).await.is_err() {
            return Err(GaveUp { working });
        }
    }
}
