//! Threads that work on one thing, and the one that waits for them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pool::{Context, Result};

/// How often the one who waits looks around.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// Who goes first where the disk and the processors are not enough for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// They are like everybody else.
    Usual,
    /// Everybody else goes first at the disk.
    Last,
    /// They get what nobody else needs.
    Idle,
}

impl Priority {
    fn take(self) {
        let taken = match self {
            Self::Usual => Ok(()),
            Self::Last => pool::sys::give_way(),
            Self::Idle => pool::sys::yield_to_others(),
        };
        if let Err(error) = taken {
            tracing::debug!(%error, "background work runs at the usual priority");
        }
    }
}

/// What one who works does.
pub(crate) type Worker<'a> = dyn Fn() -> Result<()> + Sync + 'a;

/// Runs each of `workers` on a thread of its own, which are over when this returns. The thread that calls keeps its priorities and
/// calls `look` now and then. Once `stopped` is true the workers have to leave; it is set when `look` or one of them fails.
///
/// # Errors
/// The first worker's, else the first of `look`.
pub(crate) fn work(
    workers: &[&Worker<'_>],
    priority: Priority,
    stopped: &AtomicBool,
    look: impl Fn() -> Result<()>,
) -> Result<()> {
    let gang = Gang::default();
    std::thread::scope(|scope| {
        for worker in workers {
            let member = gang.join(stopped);
            std::thread::Builder::new()
                .name("copy".to_owned())
                .spawn_scoped(scope, move || {
                    priority.take();
                    member.leave(worker());
                })
                .during("start a thread")?;
        }
        gang.wait(|| {
            let wanted = look();
            if wanted.is_err() {
                stopped.store(true, Ordering::Release);
            }
            wanted
        })
    })
}

/// Those who work now.
#[derive(Default)]
struct Gang {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Default)]
struct State {
    working: usize,
    failed: Option<pool::Error>,
}

/// One who works. He leaves also by a panic, which the scope then passes on.
struct Member<'a> {
    gang: &'a Gang,
    stopped: &'a AtomicBool,
    left: bool,
}

impl Gang {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join<'a>(&'a self, stopped: &'a AtomicBool) -> Member<'a> {
        self.state().working += 1;
        Member {
            gang: self,
            stopped,
            left: false,
        }
    }

    /// Waits until all have left, and calls `look` now and then.
    fn wait(&self, look: impl Fn() -> Result<()>) -> Result<()> {
        let mut looked = Ok(());
        let mut state = self.state();
        while state.working > 0 {
            let waited = self.left.wait_timeout(state, LOOK);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if looked.is_ok() {
                drop(state);
                looked = look();
                state = self.state();
            }
        }
        match state.failed.take() {
            Some(error) => Err(error),
            None => looked,
        }
    }
}

impl Member<'_> {
    fn leave(mut self, result: Result<()>) {
        self.left = result.is_ok();
        if let Err(error) = result {
            self.gang.state().failed.get_or_insert(error);
        }
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        if !self.left {
            self.stopped.store(true, Ordering::Release);
        }
        self.gang.state().working -= 1;
        self.gang.left.notify_all();
    }
}
