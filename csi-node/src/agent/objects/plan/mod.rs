//! What to do next about one object. Pure: everything that was seen goes in, one step and what to say comes out.
//!
//! Volumes and snapshots have the same life:
//!
//! ```text
//! hold (finalizer) -> make the data -> mark it made (annotation) -> Ready -> grow ... -> remove the data -> Deleted -> release
//! ```
//! Data is removed only if `spec.delete` says so, and made only for an object that never had any.

use api::Failure as LastFailure;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proto::errors::{Failure, Kind};

/// The data of an object, as the pool shows it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// There is none.
    Absent,
    /// There is, and nothing is wrong with it.
    Present {
        /// The first field in which object and record differ, and how.
        difference: Option<String>,
        /// The object asks for a larger size than there is.
        grow: bool,
    },
    /// There is, and its record or image cannot be trusted.
    Damaged(String),
    /// It cannot be looked at now.
    Unknown(Failure),
}

/// Where an object is in its life; the states of volumes and of snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the state of that name in the API")]
pub enum State {
    #[default]
    Pending,
    Ready,
    Failed,
    DataMissing,
    Deleting,
    Deleted,
}

/// Everything that is known of an object.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `volume` or `snapshot`, for messages.
    pub what: &'static str,
    /// Its name is an id of ours.
    pub named: bool,
    /// `spec.delete`.
    pub delete: bool,
    /// It has a deletion timestamp.
    pub going: bool,
    /// It has our finalizer.
    pub held: bool,
    /// The UUID of the pool that its data was made in.
    pub created: Option<String>,
    /// The state that was reported last.
    pub state: State,
    /// What was asked for was done, as far as the last report says.
    pub satisfied: bool,
    /// The operation failed a moment ago and is not due again yet.
    pub resting: bool,
    /// The UUID of the pool that is open, or why none is.
    pub pool: Result<String, Failure>,
    /// The data.
    pub data: Data,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Set our finalizer.
    Hold,
    /// Make the data.
    Make,
    /// Annotate that it was made.
    MarkMade,
    /// Make it larger.
    Grow,
    /// Remove the data.
    Remove,
    /// Take our finalizer away.
    Release,
    /// Nothing but to say how it is.
    Report,
    /// Nothing until the next attempt is due; what was said of the last one stays.
    Rest,
    /// Nothing at all: the object is on its way out and not ours.
    Leave,
}

/// What to do, and what to say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What to do.
    pub step: Step,
    /// What to say.
    pub view: View,
}

/// How an object is, for its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Where it is in its life.
    pub state: State,
    /// Whether it can be used; `None` when that is not known.
    pub ready: Option<bool>,
    /// One word for it.
    pub reason: &'static str,
    /// What a person should know.
    pub message: String,
    /// What stands in the way of what the object asks for.
    pub failure: Option<Failure>,
}

impl Step {
    /// Whether the step changes data, so that it must not follow from a stale object.
    #[must_use]
    pub fn touches_data(self) -> bool {
        matches!(self, Self::Make | Self::Grow | Self::Remove)
    }
}

/// Decides.
#[must_use]
pub fn plan(facts: &Facts) -> Plan {
    if facts.going && !facts.held {
        return Plan::new(Step::Leave, facts.state, None, "Gone", String::new());
    }
    if !facts.named {
        let message = format!(
            "the name of the object is no id of a {}; nothing is made for it",
            facts.what
        );
        return Plan::refused("NotOurs", Failure::new(Kind::InvalidArgument, message));
    }
    let uuid = match &facts.pool {
        Ok(uuid) => uuid,
        Err(failure) => return away(facts, failure),
    };
    if let Data::Unknown(failure) = &facts.data {
        return away(facts, failure);
    }
    if facts.delete {
        return removal(facts, uuid);
    }
    if facts.going && facts.created.is_none() && facts.data == Data::Absent {
        // Nothing was made, so there is nothing to keep.
        return Plan::new(
            Step::Release,
            State::Pending,
            Some(false),
            "Gone",
            String::new(),
        );
    }
    if !facts.held {
        return Plan::pending(Step::Hold);
    }
    match &facts.created {
        Some(made_in) if made_in != uuid => missing(format!(
            "the data of this {} is in the pool {made_in}, and this node's pool is {uuid}: bring the disk of that pool back, or delete the claim if the data is lost. Nothing is made in its place",
            facts.what
        )),
        _ => existence(facts),
    }
}

/// The object is held, and belongs to this pool or to none yet.
fn existence(facts: &Facts) -> Plan {
    match &facts.data {
        Data::Absent if facts.created.is_some() => missing(format!(
            "the data of this {} was made in this pool and is not there any more: restore the folder into the pool, or delete the claim if the data is lost. Nothing is made in its place",
            facts.what
        )),
        Data::Absent if facts.resting => Plan::pending(Step::Rest),
        Data::Absent => Plan::pending(Step::Make),
        Data::Damaged(reason) => {
            Plan::refused("Damaged", Failure::new(Kind::Corrupt, reason.clone()))
        }
        Data::Present {
            difference: Some(difference),
            ..
        } => Plan::refused(
            "Differs",
            Failure::new(
                Kind::Conflict,
                format!(
                    "the pool has another {} under this id: {difference}. Nothing was changed",
                    facts.what
                ),
            ),
        ),
        Data::Present { .. } if facts.created.is_none() => Plan::pending(Step::MarkMade),
        Data::Present { grow: true, .. } if facts.resting => ready(facts, Step::Rest),
        Data::Present { grow: true, .. } => ready(facts, Step::Grow),
        Data::Present { .. } => ready(facts, Step::Report),
        Data::Unknown(failure) => away(facts, failure),
    }
}

fn ready(facts: &Facts, step: Step) -> Plan {
    if facts.going {
        let message = format!(
            "the object was deleted by hand; the data is kept, and the object stays until the {} itself is deleted through its claim",
            facts.what
        );
        return Plan::new(step, State::Ready, Some(true), "DeletedByHand", message);
    }
    Plan::new(step, State::Ready, Some(true), "Ready", String::new())
}

fn removal(facts: &Facts, uuid: &str) -> Plan {
    let elsewhere = facts.created.as_ref().filter(|made_in| *made_in != uuid);
    let gone = facts.data == Data::Absent || elsewhere.is_some();
    let message = match elsewhere {
        None => "the data was removed".to_owned(),
        Some(pool) => format!(
            "only the object is deleted: its data was made in the pool {pool}, which this node does not have; should that \
             disk come back, the data is reported there as an orphan"
        ),
    };
    let deleted = |step| {
        Plan::new(
            step,
            State::Deleted,
            Some(false),
            "Deleted",
            message.clone(),
        )
    };
    match (gone, facts.held, facts.state) {
        (true, true, State::Deleted) => deleted(Step::Release),
        // What lies in another pool is not ours to touch; what is gone is deleted.
        (true, _, _) => deleted(Step::Report),
        (false, false, _) => Plan::pending(Step::Hold),
        (false, true, _) => Plan::new(
            if facts.resting {
                Step::Rest
            } else {
                Step::Remove
            },
            State::Deleting,
            Some(false),
            "Deleting",
            "the data is being removed".to_owned(),
        ),
    }
}

/// The pool is away: what was said before is still true, as far as anybody knows.
fn away(facts: &Facts, failure: &Failure) -> Plan {
    let mut plan = Plan::new(
        Step::Report,
        facts.state,
        None,
        "PoolUnavailable",
        failure.message.clone(),
    );
    if facts.delete || !facts.satisfied {
        plan.view.failure = Some(failure.clone());
    }
    plan
}

fn missing(message: String) -> Plan {
    Plan::new(
        Step::Report,
        State::DataMissing,
        Some(false),
        "DataMissing",
        message,
    )
}

impl Plan {
    fn new(
        step: Step,
        state: State,
        ready: Option<bool>,
        reason: &'static str,
        message: String,
    ) -> Self {
        Self {
            step,
            view: View {
                state,
                ready,
                reason,
                message,
                failure: None,
            },
        }
    }

    fn pending(step: Step) -> Self {
        Self::new(
            step,
            State::Pending,
            Some(false),
            "Pending",
            "it is being made".to_owned(),
        )
    }

    fn refused(reason: &'static str, failure: Failure) -> Self {
        let mut plan = Self::new(
            Step::Report,
            State::Failed,
            Some(false),
            reason,
            failure.message.clone(),
        );
        plan.view.failure = Some(failure);
        plan
    }
}

/// Seconds until the operation is tried again after it failed `attempts` times in a row.
#[must_use]
pub(crate) fn pause(kind: &str, attempts: i64) -> i64 {
    // Another operation is in the way, which ends soon.
    let longest = if kind == "Busy" { 4 } else { 60 };
    let exponent = attempts.clamp(1, 7) - 1;
    (1_i64 << exponent).min(longest)
}

/// Seconds until an operation that failed is due again; nothing when it is due, or when the object asks for something
/// else since then.
#[must_use]
pub(crate) fn rest(last: Option<&LastFailure>, generation: i64, now: &Time) -> Option<i64> {
    let last = last.filter(|last| last.observed_generation == generation)?;
    let since = now.0.as_second() - last.time.0.as_second();
    // A clock that was set back must not make it rest for ever.
    let left = pause(&last.kind, last.attempts) - since.max(0);
    (left > 0).then_some(left)
}

#[cfg(test)]
mod tests;
