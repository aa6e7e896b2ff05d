//! How the pool stands, for everybody in the agent who asks: reconcilers, probes.

use std::sync::{Mutex, PoisonError};

use proto::errors::{Failure, Kind};
use tokio::sync::watch;

const UNKNOWN: &str = "the pool was not looked at yet";

/// What objects have to know of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForObjects {
    /// The UUID of the pool, once it is known to be the right one.
    pub(crate) pool: Result<String, Failure>,
    /// Another agent owns the pool and reports. Two that report of one object would undo each other's words for ever.
    pub(crate) another_reports: bool,
}

/// The pool as it was seen last. Reconcilers are told when it changes.
#[derive(Debug)]
pub(crate) struct Standing {
    objects: watch::Sender<ForObjects>,
    /// For probes, which must not depend on the API server: whether a pool of this node is open, once it was looked at.
    open: Mutex<Option<Result<(), String>>>,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            objects: watch::Sender::new(ForObjects {
                pool: Err(Failure::new(Kind::Unavailable, UNKNOWN)),
                another_reports: false,
            }),
            open: Mutex::default(),
        }
    }
}

impl Standing {
    /// The UUID of the right pool.
    pub(crate) fn pool(&self) -> Result<String, Failure> {
        self.objects.borrow().pool.clone()
    }

    /// Whether another agent speaks for this node's objects.
    pub(crate) fn another_reports(&self) -> bool {
        self.objects.borrow().another_reports
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<ForObjects> {
        self.objects.subscribe()
    }

    /// Whether this agent is the one that works on the pool, if there is something to work on. That there is nothing (a disk
    /// that is not mounted, a wrong one) is the node's state and not the agent's.
    pub(crate) fn at_work(&self) -> Result<(), String> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.as_ref() {
            None => Err(UNKNOWN.to_owned()),
            Some(Err(owned)) if self.another_reports() => Err(owned.clone()),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn set_open(&self, open: Result<(), String>) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
    }

    pub(super) fn set(&self, objects: ForObjects) {
        self.objects.send_if_modified(|current| {
            let changed = *current != objects;
            *current = objects;
            changed
        });
    }
}
