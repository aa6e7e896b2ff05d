//! A snapshot that somebody has deleted. It stays until its content has gone, and its content until the driver's snapshot has.

use super::observe::Observed;
use super::plan::{Plan, Step, Telling};
use crate::names::{
    BEING_DELETED, BOUND_FINALIZER, CLAIM_FINALIZER, CONTENT_FINALIZER, RESTORE_FINALIZER,
    SOURCE_FINALIZER,
};
use crate::objects::{DeletionPolicy, Meta, VolumeSnapshotContent};

/// What to do about a snapshot that is going.
pub(super) fn plan(seen: &Observed) -> Plan {
    let snapshot = seen.snapshot.as_ref();
    if !snapshot.waits_for_deletion() {
        return Plan::nothing();
    }
    let content = content(seen);
    if content.is_some()
        && let Some(why) = in_use(seen)
    {
        return Plan {
            steps: vec![Step::Tell(Telling {
                warning: true,
                reason: "SnapshotDeletePending",
                message: why.clone(),
            })],
            trouble: Some(why),
        };
    }
    let goes_along = content.filter(|c| c.spec.deletion_policy == DeletionPolicy::Delete);
    let mut steps = Vec::new();
    // Without its finalizer it would go at once, and the driver's snapshot stay.
    let unprotected =
        goes_along.is_some_and(|c| !c.is_going() && !c.has_finalizer(CONTENT_FINALIZER));
    if let Some(content) = content
        && (content.annotation(BEING_DELETED).is_none() || unprotected)
    {
        // Whatever the policy: somebody may change it later.
        steps.push(Step::MarkContent(Meta::name(content).to_owned()));
    }
    if let Some(content) = goes_along
        && !content.is_going()
    {
        steps.push(Step::DeleteContent(Meta::name(content).to_owned()));
    }
    if releases_claim(seen) {
        // Before the finalizers: nobody would come back for it.
        steps.push(Step::ReleaseClaim);
    }
    let gone = |name: &String| {
        name == SOURCE_FINALIZER || (name == BOUND_FINALIZER && goes_along.is_none())
    };
    let now = snapshot.finalizers_now();
    let left: Vec<String> = now.iter().filter(|name| !gone(name)).cloned().collect();
    if left.len() < now.len() {
        steps.push(Step::SetFinalizers(left));
    }
    Plan::steps(steps)
}

/// The content that is the snapshot's, both ways.
fn content(seen: &Observed) -> Option<&VolumeSnapshotContent> {
    let content = if seen.snapshot.bound_content().is_some() {
        seen.bound.as_deref()
    } else if seen.snapshot.claim_name().is_some() {
        // Made, but the status could not be written any more.
        seen.own.as_deref()
    } else {
        // Bound, likewise.
        seen.wanted.as_deref()
    };
    content.filter(|content| content.belongs_to(&seen.snapshot))
}

/// Why it cannot go yet: a volume is being made from it.
///
/// csi-provisioner's finalizer counts too: it makes a volume whose claim may be gone already, and can only end that (and delete
/// the volume) while there is a snapshot.
fn in_use(seen: &Observed) -> Option<String> {
    if let Some(claim) = &seen.restored_to {
        return Some(format!(
            "the claim {claim} is being made from this snapshot, which is deleted after that"
        ));
    }
    seen.snapshot.has_finalizer(RESTORE_FINALIZER).then(|| {
        "csi-provisioner makes a volume from this snapshot, which is deleted after that".to_owned()
    })
}

/// This snapshot does not count any more.
fn releases_claim(seen: &Observed) -> bool {
    let protected = seen
        .claim
        .as_ref()
        .is_some_and(|claim| claim.has_finalizer(CLAIM_FINALIZER));
    protected && !seen.claim_is_wanted
}
