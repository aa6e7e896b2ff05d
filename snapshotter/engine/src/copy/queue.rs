//! Handing out what is still to be copied.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use pool::Result;

use super::CHUNK_BYTES;
use super::runs::{Chunk, Runs};
use crate::gang::LOOK;

struct State<'a> {
    runs: Runs<'a>,
    /// Somebody with little room waits for the end of a long run.
    is_awaited: bool,
}

/// See the module. Shared by those who copy.
pub(super) struct Queue<'a> {
    state: Mutex<State<'a>>,
    short: Condvar,
}

impl<'a> Queue<'a> {
    pub(super) fn new(runs: Runs<'a>) -> Self {
        let state = State {
            runs,
            is_awaited: false,
        };
        Self {
            state: Mutex::new(state),
            short: Condvar::new(),
        }
    }

    /// The next part to be copied, which fits into `room`; `None` when there is none, or once `stopped`. Long runs are for those with
    /// room for large requests; others wait until one is over.
    pub(super) fn next(&self, room: usize, stopped: &AtomicBool) -> Result<Option<Chunk>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !stopped.load(Ordering::Acquire) {
            if state.runs.is_long()? {
                if room >= CHUNK_BYTES {
                    return state.runs.next(room);
                }
                state.is_awaited = true;
                // Whoever stops the work tells nobody, so never for long.
                let waited = self.short.wait_timeout(state, LOOK);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            if std::mem::take(&mut state.is_awaited) {
                self.short.notify_all();
            }
            return state.runs.next(room);
        }
        Ok(None)
    }
}
