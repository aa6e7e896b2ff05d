//! What the state of an object means to a call that waits for it: pure functions.

use kube::ResourceExt;
use proto::errors::{Failure, Kind};

use super::failure;
use super::managed::{Managed, Stage};
use super::wait::Verdict;

/// The object a call waits for, as it was when the call began to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    uid: Option<String>,
    /// The generation and the attempt of the failure that was reported then.
    failure: Option<(i64, i64)>,
}

impl Seen {
    pub(crate) fn of<K: Managed>(object: &K) -> Self {
        Self {
            uid: object.uid(),
            failure: object.failure().map(attempt),
        }
    }

    /// The same object, not a successor of the same name.
    fn is<K: Managed>(&self, object: &K) -> bool {
        object.uid() == self.uid
    }

    /// A failure of the newest `spec` that was not there when waiting began: an agent goes on trying.
    fn is_news(&self, failure: &api::Failure) -> bool {
        Some(attempt(failure)) != self.failure
    }
}

/// Attempts are counted anew for each generation.
fn attempt(failure: &api::Failure) -> (i64, i64) {
    (failure.observed_generation, failure.attempts)
}

/// How the creation of an object has gone.
#[derive(Debug)]
pub(crate) enum Creation<K> {
    /// It exists durably.
    Made(K),
    /// It is not there any more, or about to go: look again.
    Again,
    /// It failed.
    Failed(K, Failure),
}

/// Whether a new object is made.
pub(crate) fn creation<K: Managed>(object: Option<&K>, seen: &Seen) -> Verdict<Creation<K>> {
    let Some(object) = object.filter(|object| seen.is(*object)) else {
        return Verdict::Settled(Creation::Again);
    };
    if object.delete() {
        return if is_erased(object) {
            Verdict::Settled(Creation::Again)
        } else {
            Verdict::Silent
        };
    }
    match object.stage() {
        Stage::Ready => return Verdict::Settled(Creation::Made(object.clone())),
        Stage::Failed | Stage::DataMissing => {
            return Verdict::Settled(Creation::Failed(object.clone(), unusable(object)));
        }
        Stage::Pending | Stage::Deleting | Stage::Deleted => {}
    }
    match current_failure(object) {
        Some(reported) => {
            let failure = failure::of_agent(reported, &named(object));
            if failure.kind == Kind::Busy {
                // Another operation is in the way, an unmount of the source for instance, and the agent tries again in a second.
                // Every answer but OK would be an event `ProvisioningFailed`.
                Verdict::Working
            } else if failure::ends_creation(failure.kind) || seen.is_news(reported) {
                Verdict::Settled(Creation::Failed(object.clone(), failure))
            } else {
                Verdict::Silent
            }
        }
        None if object.taken_on() => Verdict::Working,
        None => Verdict::Silent,
    }
}

/// How the deletion of an object has gone.
#[derive(Debug)]
pub(crate) enum Deletion<K> {
    /// It is gone.
    Gone,
    /// There is a step to be made: look again.
    Again,
    /// It failed.
    Failed(K, Failure),
}

/// Whether an object is deleted.
pub(crate) fn deletion<K: Managed>(object: Option<&K>, seen: &Seen) -> Verdict<Deletion<K>> {
    let Some(object) = object.filter(|object| seen.is(*object)) else {
        return Verdict::Settled(Deletion::Gone);
    };
    if is_erased(object) {
        return if object.meta().deletion_timestamp.is_none() {
            Verdict::Settled(Deletion::Again)
        } else {
            Verdict::Silent
        };
    }
    if !object.delete() {
        return Verdict::Settled(Deletion::Again);
    }
    match current_failure(object) {
        Some(reported) => {
            let failure = failure::of_agent(reported, &named(object));
            if is_refusal(failure.kind) || seen.is_news(reported) {
                Verdict::Settled(Deletion::Failed(object.clone(), failure))
            } else {
                Verdict::Silent
            }
        }
        None if object.is_observed() => Verdict::Working,
        None => Verdict::Silent,
    }
}

/// How an expansion has gone.
#[derive(Debug)]
pub(crate) enum Expansion<K> {
    /// It is that large now.
    Grown(K),
    /// It is not there any more.
    Gone,
    /// It failed.
    Failed(Failure),
}

/// Whether an object, `size` of which is asked for, has grown to it.
pub(crate) fn expansion<K: Managed>(
    object: Option<&K>,
    seen: &Seen,
    is_grown: impl Fn(&K) -> bool,
) -> Verdict<Expansion<K>> {
    let Some(object) = object.filter(|object| seen.is(*object)) else {
        return Verdict::Settled(Expansion::Gone);
    };
    if is_grown(object) {
        return Verdict::Settled(Expansion::Grown(object.clone()));
    }
    if object.delete() {
        return Verdict::Settled(Expansion::Failed(deleting(object)));
    }
    match (object.stage(), current_failure(object)) {
        (Stage::Failed | Stage::DataMissing, _) => {
            Verdict::Settled(Expansion::Failed(unusable(object)))
        }
        (_, Some(reported)) if seen.is_news(reported) => Verdict::Settled(Expansion::Failed(
            failure::of_agent(reported, &named(object)),
        )),
        (_, Some(_)) => Verdict::Silent,
        (_, None) if object.is_observed() => Verdict::Working,
        (_, None) => Verdict::Silent,
    }
}

/// Whether no data of it is left, or was ever begun.
pub(crate) fn is_erased<K: Managed>(object: &K) -> bool {
    object.stage() == Stage::Deleted || !object.taken_on()
}

/// Whether a deletion was refused because of what the object is used for. The wish is taken back then, so that it is not
/// fulfilled later, when nobody asks for it any more.
pub(crate) fn is_refusal(kind: Kind) -> bool {
    matches!(kind, Kind::InUse | Kind::Busy)
}

/// Why an object that exists cannot be used.
pub(crate) fn unusable<K: Managed>(object: &K) -> Failure {
    let kind =
        current_failure(object).map_or(Kind::Corrupt, |failure| failure::kind(&failure.kind));
    let kind = if failure::ends_creation(kind) && kind != Kind::Conflict {
        // It is there: no answer may say that nothing was left.
        Kind::Corrupt
    } else {
        kind
    };
    Failure::new(kind, format!("{}: {}", named(object), object.problem()))
}

/// The failure for an object on its way out.
pub(crate) fn deleting<K: Managed>(object: &K) -> Failure {
    Failure::new(Kind::Busy, format!("{} is being deleted", named(object)))
}

/// The failure for an agent that has not settled it in time.
pub(crate) fn overdue<K: Managed>(object: &K, working: bool, doing: &str) -> Failure {
    let what = named(object);
    if let Some(reported) = current_failure(object) {
        return failure::of_agent(reported, &what);
    }
    if working {
        let progress = object
            .progress()
            .map(|percent| format!(", {percent} % so far"))
            .unwrap_or_default();
        return Failure::new(
            Kind::Busy,
            format!("{what} is still being {doing}{progress}; call again to wait for it"),
        );
    }
    Failure::new(
        Kind::Unavailable,
        format!(
            "{what} cannot be {doing} now: csi-node of node {} does not answer; see whether the node is up and its csi-node pod runs",
            object.node()
        ),
    )
}

/// How messages name it.
pub(crate) fn named<K: Managed>(object: &K) -> String {
    format!(
        "{} {} on node {}",
        K::WORD,
        object.name_any(),
        object.node()
    )
}

/// Whether a volume that exists was asked to grow, and there is no room for that.
pub(crate) fn found_no_room<K: Managed>(object: &K) -> bool {
    let refused = current_failure(object).map(|failure| failure::kind(&failure.kind));
    object.stage() == Stage::Ready && matches!(refused, Some(Kind::NoSpace | Kind::OutOfRange))
}

/// The failure of the newest `spec`, not of an earlier one.
pub(crate) fn current_failure<K: Managed>(object: &K) -> Option<&api::Failure> {
    let generation = object.meta().generation.unwrap_or_default();
    object
        .failure()
        .filter(|failure| failure.observed_generation >= generation)
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
