//! The room for a file that grows, asked for ahead of those who write it.
//!
//! Workers may be at the lowest of all priorities, and asking for room takes locks that everybody waits for: so the thread that
//! waits for them asks, and they only look how much was granted.

use std::cell::Cell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use pool::{ErrorKind, Result};

use super::crew::Work;
use crate::gang::LOOK;

/// So much is asked for at once.
const STEP: u64 = 256 << 20;
/// And is asked for when less than this is left: more than is written between two looks.
const LOW: u64 = STEP / 2;
/// And so much, where there is no room for more.
const SMALL_STEP: u64 = 8 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Grant {
    state: Mutex<State>,
    granted: Condvar,
    /// The file never becomes larger.
    most: u64,
}

#[derive(Debug, Default)]
struct State {
    /// How large the file may become.
    granted: u64,
    /// How large it is to become, as far as anybody knows.
    wanted: u64,
}

impl Grant {
    /// For a file of at most `most` bytes.
    pub(crate) fn new(most: u64) -> Self {
        Self {
            state: Mutex::default(),
            granted: Condvar::new(),
            most,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the file may have `bytes`, or the work is not wanted any more. For workers.
    pub(crate) fn wait_for<I>(&self, bytes: u64, work: &Work<I>) {
        let mut state = self.state();
        state.wanted = state.wanted.max(bytes);
        while state.granted < bytes && !work.is_stopped() {
            let waited = self.granted.wait_timeout(state, LOOK);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Asks `room` for more if there may soon be too little. For the thread that waits for the workers. `scarce` is its own to
    /// remember that there was no room for much.
    ///
    /// # Errors
    /// Those of `room`, once somebody waits for what it refuses.
    pub(crate) fn tend(
        &self,
        room: &dyn Fn(u64, u64) -> Result<()>,
        scarce: &Cell<bool>,
    ) -> Result<()> {
        let (granted, wanted) = {
            let state = self.state();
            (state.granted, state.wanted)
        };
        let is_waited_for = wanted > granted || granted == 0;
        if granted >= self.most || !(is_waited_for || wanted + LOW > granted && !scarce.get()) {
            return Ok(());
        }
        let ahead = (wanted + STEP).min(self.most);
        let new = match room(wanted, ahead) {
            Ok(()) => ahead,
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                scarce.set(true);
                if !is_waited_for {
                    return Ok(());
                }
                let small = (wanted + SMALL_STEP).min(self.most);
                room(wanted, small)?;
                small
            }
            Err(error) => return Err(error),
        };
        self.state().granted = new;
        self.granted.notify_all();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use pool::Error;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// What is asked for, where there is room for `free` bytes.
    struct Room {
        free: u64,
        asked: RefCell<Vec<u64>>,
    }

    impl Room {
        fn ask(&self, bytes: u64) -> Result<()> {
            self.asked.borrow_mut().push(bytes / MIB);
            if bytes <= self.free {
                return Ok(());
            }
            Err(Error::new(ErrorKind::NoSpace, "full"))
        }

        fn asked(&self) -> Vec<u64> {
            self.asked.take()
        }
    }

    fn want(grant: &Grant, bytes: u64) {
        grant.state().wanted = bytes;
    }

    #[test]
    fn room_is_asked_for_ahead_in_large_steps_and_never_for_more_than_there_can_be() {
        let room = Room {
            free: u64::MAX,
            asked: RefCell::default(),
        };
        let (grant, scarce) = (Grant::new(600 * MIB), Cell::default());
        let tend = || grant.tend(&|_now, then| room.ask(then), &scarce);
        tend().unwrap();
        tend().unwrap();
        assert_eq!(room.asked(), [256]);
        want(&grant, 100 * MIB);
        tend().unwrap();
        assert!(room.asked().is_empty());
        want(&grant, 200 * MIB);
        tend().unwrap();
        assert_eq!(room.asked(), [456]);
        want(&grant, 400 * MIB);
        tend().unwrap();
        assert_eq!(room.asked(), [600]);
        want(&grant, 600 * MIB);
        tend().unwrap();
        assert!(room.asked().is_empty());
    }

    #[test]
    fn where_there_is_little_room_it_is_asked_for_little_and_only_when_somebody_waits() {
        let room = Room {
            free: 300 * MIB,
            asked: RefCell::default(),
        };
        let (grant, scarce) = (Grant::new(2048 * MIB), Cell::default());
        let tend = || grant.tend(&|_now, then| room.ask(then), &scarce);
        tend().unwrap();
        want(&grant, 200 * MIB);
        tend().unwrap();
        tend().unwrap();
        assert_eq!(room.asked(), [256, 456]);
        want(&grant, 257 * MIB);
        tend().unwrap();
        assert_eq!(room.asked(), [513, 265]);
        want(&grant, 300 * MIB);
        assert_eq!(tend().unwrap_err().kind(), ErrorKind::NoSpace);
    }
}
