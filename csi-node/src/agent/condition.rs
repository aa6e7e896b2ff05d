//! Conditions, as Kubernetes keeps them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The longest message that a condition may have, in bytes.
const LONGEST_MESSAGE: usize = 32_768;

/// A condition that changed just now.
pub(super) fn new(
    type_: &str,
    status: &str,
    reason: &str,
    mut message: String,
    now: &Time,
) -> Condition {
    while message.len() > LONGEST_MESSAGE {
        message.pop();
    }
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: now.clone(),
        observed_generation: None,
    }
}

/// `condition`, with the transition time of the one `before` if it says the same.
pub(super) fn after(before: &[Condition], mut condition: Condition) -> Condition {
    let same = before
        .iter()
        .find(|old| old.type_ == condition.type_ && old.status == condition.status);
    if let Some(old) = same {
        condition.last_transition_time = old.last_transition_time.clone();
    }
    condition
}
