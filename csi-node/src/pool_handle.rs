//! The node's pool, which can go away and come back.
//!
//! A disk that is not mounted yet, or was unmounted, or met an error, must not stop the driver: it answers
//! `Unavailable` with the reason, and goes on by itself once the same pool is there again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pool::{Error, ErrorKind, Options, Pool};

/// Opens a pool when it can, and again when it must.
#[derive(Debug)]
pub struct PoolHandle {
    path: PathBuf,
    /// Locked for no longer than it takes to look or to replace it: whoever only looks never waits for an opening.
    open: Mutex<Option<Arc<Pool>>>,
    /// Locked while the pool is opened.
    opening: Mutex<Opening>,
}

#[derive(Debug)]
struct Opening {
    options: Options,
    /// The opening that was given up. Operations that began in it keep the pool owned until they end.
    earlier: Weak<Pool>,
    /// The reason that was logged last, so that each is logged once.
    reported: Option<String>,
}

impl PoolHandle {
    /// A handle on the pool at `path`, which need not be there yet.
    #[must_use]
    pub fn new(path: PathBuf, options: Options) -> Self {
        Self {
            path,
            open: Mutex::new(None),
            opening: Mutex::new(Opening {
                options,
                earlier: Weak::new(),
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
        if let Some(pool) = self.peek() {
            return Ok(pool);
        }
        let mut opening = self.opening();
        if let Some(pool) = self.opened() {
            match pool.guard() {
                Ok(()) => return Ok(pool),
                Err(error) => {
                    tracing::error!(pool = %self.path.display(), %error, "the pool cannot be used");
                    self.give_up(&mut opening);
                }
            }
        }
        match Pool::open(&self.path, &opening.options) {
            Ok(pool) => {
                tracing::info!(pool = %self.path.display(), uuid = pool.marker().uuid, "the pool is open");
                opening.options.uuid = Some(pool.marker().uuid.clone());
                opening.reported = None;
                Ok(Arc::clone(self.slot().insert(Arc::new(pool))))
            }
            Err(error) => {
                let error = opening.explain(error);
                let reason = error.to_string();
                if opening.reported.as_ref() != Some(&reason) {
                    tracing::error!(pool = %self.path.display(), %error, "the pool cannot be opened");
                    opening.reported = Some(reason);
                }
                Err(error.with_kind(ErrorKind::Unavailable))
            }
        }
    }

    /// From now on only the pool with this UUID is the right one; any, with `None`. Another one that is open is given up:
    /// what is published from it stays as it is.
    pub fn expect(&self, uuid: Option<&str>) {
        let mut opening = self.opening();
        opening.options.uuid = uuid.map(str::to_owned);
        let wrong = |pool: Arc<Pool>| uuid.is_some_and(|uuid| uuid != pool.marker().uuid);
        if self.opened().is_some_and(wrong) {
            self.give_up(&mut opening);
        }
    }

    /// The pool, only if it is open; whether it can still be used is not asked, so this never blocks.
    #[must_use]
    pub fn opened(&self) -> Option<Arc<Pool>> {
        self.slot().clone()
    }

    /// The pool, only if it is open and can be used. Never waits for a recovery: while one runs, nothing is open.
    #[must_use]
    pub fn peek(&self) -> Option<Arc<Pool>> {
        self.opened().filter(|pool| pool.guard().is_ok())
    }

    fn give_up(&self, opening: &mut Opening) {
        if let Some(pool) = self.slot().take() {
            opening.earlier = Arc::downgrade(&pool);
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Pool>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opening(&self) -> MutexGuard<'_, Opening> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opening {
    /// A pool that is owned may be owned by ourselves.
    fn explain(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::InUse || self.earlier.strong_count() == 0 {
            return error;
        }
        Error::new(
            ErrorKind::InUse,
            "an earlier opening of ours is still in use: operations that began before the pool failed are being stopped, and it \
             is opened again when the last one has ended",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle() -> (tempfile::TempDir, PoolHandle) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool");
        std::fs::create_dir(&path).unwrap();
        pool::init(&path, "n1").unwrap();
        (folder, PoolHandle::new(path, Options::default()))
    }

    fn rename(from: &Path, to: &Path) {
        use nix::fcntl::{AT_FDCWD, renameat};
        renameat(AT_FDCWD, from, AT_FDCWD, to).unwrap();
    }

    #[test]
    fn an_earlier_opening_that_is_still_in_use_is_told_from_another_process() {
        let (folder, handle) = handle();
        let operation = handle.get().unwrap();
        let elsewhere = folder.path().join("elsewhere");
        rename(handle.path(), &elsewhere);
        handle.get().unwrap_err();
        rename(&elsewhere, handle.path());

        let error = handle.get().unwrap_err();

        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("of ours"), "{error}");
        drop(operation);
        let other = Pool::open(handle.path(), &Options::default()).unwrap();
        let error = handle.get().unwrap_err();
        assert!(error.to_string().contains("another running"), "{error}");
        drop(other);
        handle.get().unwrap();
    }

    #[test]
    fn a_peek_neither_waits_for_whoever_opens_the_pool_nor_takes_him_for_a_loss() {
        let (_folder, handle) = handle();
        handle.get().unwrap();
        let mut opening = handle.opening();
        assert!(handle.peek().is_some());
        handle.give_up(&mut opening);
        assert!(handle.peek().is_none());
        drop(opening);
        handle.get().unwrap();
        assert!(handle.peek().is_some());
    }
}
