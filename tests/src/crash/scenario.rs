//! What is crashed, and how.

use pool::fault::{Operation, Step};
use tonic::Status;

use super::case::Case;

/// One operation over CSI, from what it needs to what it promises.
pub trait Story {
    /// Makes what the operation needs, on a server without faults.
    fn prepare(&mut self, case: &mut Case<'_>);

    /// The operation. Called again, word for word, after a crash.
    ///
    /// # Errors
    /// The server's status, or that of a broken connection.
    fn act(&self, case: &Case<'_>) -> Result<(), Status>;

    /// Proves on a running server that the operation took effect as a whole, or, unless it was `acknowledged`, not at
    /// all.
    fn verify(&mut self, case: &Case<'_>, acknowledged: bool);

    /// Takes down what is attached, after everything was proved.
    fn clear(&mut self, _case: &Case<'_>) {}
}

/// A story with the steps it goes through.
#[derive(Debug)]
pub struct Scenario {
    /// For people.
    pub name: &'static str,
    /// Operations through whose steps the act goes.
    pub operations: &'static [Operation],
    /// Steps of these operations that this act does not come to.
    pub except: &'static [Step],
    /// The act is the start of the server itself: recovery.
    pub at_start: bool,
    /// A new telling of the story.
    pub story: fn() -> Box<dyn Story>,
}

impl Scenario {
    /// The steps at which the act can be stopped.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        Step::ALL
            .iter()
            .copied()
            .filter(|step| {
                self.operations.contains(&step.operation()) && !self.except.contains(step)
            })
            .collect()
    }
}

/// What is done to the server at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`.
    Kill,
    /// The filesystem loses what was not synced, then `kill -9`.
    PowerLoss,
}

impl Fault {
    /// The action's name in `VD_FAULT`.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::PowerLoss => "power",
        }
    }
}

/// `VD_FAULT` for `action` at `step`.
#[must_use]
pub fn fault_at(step: Step, action: &str) -> String {
    format!("{}:{action}", step.name())
}
