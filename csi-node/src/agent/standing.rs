//! How the pool stands, for everybody in the agent who asks: reconcilers, probes.

use std::sync::{Mutex, PoisonError};

use proto::errors::{Failure, Kind};
use tokio::sync::watch;

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
    /// For probes, which must not depend on the API server: whether a pool of this node is open.
    open: Mutex<Result<(), String>>,
}

impl Default for Standing {
    fn default() -> Self {
        let unknown = "the pool was not looked at yet";
        Self {
            objects: watch::Sender::new(ForObjects {
                pool: Err(Failure::new(Kind::Unavailable, unknown)),
                another_reports: false,
            }),
            open: Mutex::new(Err(unknown.to_owned())),
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

    /// Whether a pool is open; if not, why.
    pub(crate) fn open(&self) -> Result<(), String> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.clone()
    }

    pub(super) fn set_open(&self, open: Result<(), String>) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = open;
    }

    pub(super) fn set(&self, objects: ForObjects) {
        self.objects.send_if_modified(|current| {
            let changed = *current != objects;
            *current = objects;
            changed
        });
    }
}
