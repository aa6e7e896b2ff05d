//! What status says of failures and conditions.

use api::Failure as LastFailure;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use proto::errors::Failure;

use super::plan::View;

/// The failure of one more attempt.
pub(super) fn attempt(
    last: Option<&LastFailure>,
    failure: &Failure,
    generation: i64,
    now: &Time,
) -> LastFailure {
    let kind = format!("{:?}", failure.kind);
    let before = last
        .filter(|last| last.observed_generation == generation)
        .map_or(0, |last| last.attempts);
    LastFailure {
        kind,
        message: failure.message.clone(),
        observed_generation: generation,
        attempts: before.saturating_add(1),
        time: now.clone(),
    }
}

/// A failure that stands as long as things are as they are: looking again is no new attempt.
pub(super) fn standing(
    last: Option<&LastFailure>,
    failure: &Failure,
    generation: i64,
    now: &Time,
) -> LastFailure {
    let same = last.filter(|last| {
        last.observed_generation == generation
            && last.kind == format!("{:?}", failure.kind)
            && last.message == failure.message
    });
    match same {
        Some(last) => last.clone(),
        None => attempt(last, failure, generation, now),
    }
}

/// The condition `Ready` for `view`. Its transition time changes only with its status.
pub(super) fn ready(before: &[Condition], view: &View, generation: i64, now: &Time) -> Condition {
    let status = match view.ready {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let condition = crate::agent::condition::new(
        api::READY_CONDITION,
        status,
        view.reason,
        view.message.clone(),
        now,
    );
    crate::agent::condition::after(
        before,
        Condition {
            observed_generation: Some(generation),
            ..condition
        },
    )
}
