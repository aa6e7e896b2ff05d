//! The node's pool, which can go away and come back.
//!
//! A disk that is not mounted yet, or was unmounted, or met an error, must not stop the driver: it answers
//! `Unavailable` with the reason, and goes on by itself once the same pool is there again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use pool::{Options, Pool};

/// Opens a pool when it can, and again when it must.
#[derive(Debug)]
pub struct PoolHandle {
    path: PathBuf,
    slot: Mutex<Slot>,
}

#[derive(Debug)]
struct Slot {
    options: Options,
    open: Option<Arc<Pool>>,
    /// The reason that was logged last, so that each is logged once.
    reported: Option<String>,
}

impl PoolHandle {
    /// A handle on the pool at `path`, which need not be there yet.
    #[must_use]
    pub fn new(path: PathBuf, options: Options) -> Self {
        Self {
            path,
            slot: Mutex::new(Slot {
                options,
                open: None,
                reported: None,
            }),
        }
    }

    /// The path of the pool.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pool, opened and recovered if need be. Operations that still hold an earlier opening keep it owned, and are
    /// waited for by trying again.
    ///
    /// # Errors
    /// Why it cannot be used now.
    pub fn get(&self) -> pool::Result<Arc<Pool>> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = &slot.open {
            match pool.guard() {
                Ok(()) => return Ok(Arc::clone(pool)),
                Err(error) => {
                    tracing::error!(pool = %self.path.display(), %error, "the pool cannot be used");
                    slot.open = None;
                }
            }
        }
        match Pool::open(&self.path, &slot.options) {
            Ok(pool) => {
                tracing::info!(pool = %self.path.display(), uuid = pool.marker().uuid, "the pool is open");
                slot.options.uuid = Some(pool.marker().uuid.clone());
                slot.reported = None;
                Ok(Arc::clone(slot.open.insert(Arc::new(pool))))
            }
            Err(error) => {
                let reason = error.to_string();
                if slot.reported.as_ref() != Some(&reason) {
                    tracing::error!(pool = %self.path.display(), %error, "the pool cannot be opened");
                    slot.reported = Some(reason);
                }
                Err(error.with_kind(pool::ErrorKind::Unavailable))
            }
        }
    }

    /// From now on only the pool with this UUID is the right one; any, with `None`. Another one that is open is given up:
    /// what is published from it stays as it is.
    pub fn expect(&self, uuid: Option<&str>) {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.options.uuid = uuid.map(str::to_owned);
        let wrong = |pool: &Arc<Pool>| uuid.is_some_and(|uuid| uuid != pool.marker().uuid);
        if slot.open.as_ref().is_some_and(wrong) {
            slot.open = None;
        }
    }

    /// The pool, only if it is open and can be used. Never waits for a recovery.
    #[must_use]
    pub fn peek(&self) -> Option<Arc<Pool>> {
        let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.open.clone().filter(|pool| pool.guard().is_ok())
    }
}
