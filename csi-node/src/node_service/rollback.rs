//! Undoing the steps of a call that failed.
//!
//! On most errors kubelet forgets the volume and never calls Unstage or Unpublish. So a call that fails leaves nothing;
//! where even that fails, the error becomes `Uncertain`, upon which kubelet remembers the volume and cleans up later.

use std::fmt;

use pool::{Error, ErrorKind, Result};

type Step<'a> = Box<dyn FnOnce() -> Result<()> + 'a>;

/// What has to be undone, in the order in which it was done.
#[derive(Default)]
pub(super) struct Rollback<'a> {
    steps: Vec<Step<'a>>,
}

impl fmt::Debug for Rollback<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Rollback of {} steps", self.steps.len())
    }
}

impl<'a> Rollback<'a> {
    /// Remembers how to undo the step that was just done.
    pub(super) fn push(&mut self, undo: impl FnOnce() -> Result<()> + 'a) {
        self.steps.push(Box::new(undo));
    }

    /// Runs `work`, and undoes what it did if it fails.
    pub(super) fn run<T>(work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let mut rollback = Self::default();
        work(&mut rollback).map_err(|error| rollback.undo(error))
    }

    fn undo(self, error: Error) -> Error {
        for step in self.steps.into_iter().rev() {
            if let Err(left) = step() {
                // What was done before this step cannot be undone while this one stands.
                return error
                    .context(format!("and could not be undone ({left})"))
                    .with_kind(ErrorKind::Uncertain);
            }
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn failed() -> Error {
        Error::new(ErrorKind::NoSpace, "full")
    }

    #[test]
    fn steps_are_undone_backwards_and_the_error_stays() {
        let undone = RefCell::new(Vec::new());
        let error = Rollback::run(|rollback| -> Result<()> {
            for step in [1, 2] {
                rollback.push({
                    let undone = &undone;
                    move || {
                        undone.borrow_mut().push(step);
                        Ok(())
                    }
                });
            }
            Err(failed())
        })
        .unwrap_err();
        assert_eq!(*undone.borrow(), [2, 1]);
        assert_eq!(error.kind(), ErrorKind::NoSpace);
    }

    #[test]
    fn a_step_that_cannot_be_undone_makes_the_result_uncertain_and_stops() {
        let first = RefCell::new(false);
        let error = Rollback::run(|rollback| -> Result<()> {
            rollback.push(|| {
                *first.borrow_mut() = true;
                Ok(())
            });
            rollback.push(|| Err(Error::new(ErrorKind::InUse, "busy")));
            Err(failed())
        })
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Uncertain);
        assert!(!*first.borrow());
    }

    #[test]
    fn success_undoes_nothing() {
        let done = Rollback::run(|rollback| {
            rollback.push(|| Err(failed()));
            Ok(7)
        });
        assert_eq!(done.unwrap(), 7);
    }
}
