//! What to do about a snapshot: the same whatever has happened before, from what is there now.

use serde_json::Value;

use super::observe::{Observed, Owner, Volume};
use super::{deletion, dynamic, preprovisioned};
use crate::names::{BOUND_FINALIZER, CLAIM_FINALIZER, SOURCE_FINALIZER};
use crate::objects::{DeletionPolicy, Meta, VolumeSnapshotContent};

/// One thing to do. Each is one request, and safe to do again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Ask for this PersistentVolume, then decide anew.
    ReadVolume(String),
    /// Give the snapshot this class.
    SetClass(String),
    /// Give the snapshot exactly these finalizers.
    SetFinalizers(Vec<String>),
    /// Change the snapshot's status.
    SetStatus(Value),
    /// Keep the claim while a snapshot of it is made.
    ProtectClaim,
    /// It needs no protection any more.
    ReleaseClaim,
    /// Make the snapshot's content.
    CreateContent(Value),
    /// Give a content that somebody else has made to the snapshot, and protect it with the same write.
    BindContent(Value),
    /// Tell the driver's half that the content's snapshot is being deleted, and protect the content if nobody has.
    MarkContent(String),
    DeleteContent(String),
    Tell(Telling),
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Telling {
    pub(crate) warning: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// The steps in their order, and whether to try again after them though nothing has changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// What is wrong.
    pub(crate) trouble: Option<String>,
}

impl Plan {
    pub(crate) fn nothing() -> Self {
        Self::default()
    }

    pub(crate) fn step(step: Step) -> Self {
        Self {
            steps: vec![step],
            trouble: None,
        }
    }

    pub(crate) fn steps(steps: Vec<Step>) -> Self {
        Self {
            steps,
            trouble: None,
        }
    }

    /// Tell it in the status and by an event, unless that was done, and try again later.
    pub(crate) fn trouble(seen: &Observed, reason: &'static str, message: String) -> Self {
        Self::told(seen, reason, message, true)
    }

    /// The same, and the snapshot stays as ready as it was.
    pub(crate) fn trouble_beside(seen: &Observed, reason: &'static str, message: String) -> Self {
        Self::told(seen, reason, message, false)
    }

    fn told(seen: &Observed, reason: &'static str, message: String, unready: bool) -> Self {
        let status = seen.snapshot.status.as_ref();
        let known = status
            .and_then(|status| status.error.as_ref())
            .and_then(|error| error.message.as_ref());
        let mut steps = Vec::new();
        if known != Some(&message) {
            let mut status = serde_json::json!({"error": {"time": seen.now, "message": message}});
            if unready {
                status["readyToUse"] = Value::Bool(false);
            }
            steps.push(Step::SetStatus(status));
            steps.push(Step::Tell(Telling {
                warning: true,
                reason,
                message: message.clone(),
            }));
        }
        Self {
            steps,
            trouble: Some(message),
        }
    }
}

/// What to do about the snapshot.
pub(crate) fn plan(seen: &Observed) -> Plan {
    if seen.owner() == Owner::AnotherDriver {
        return Plan::nothing();
    }
    if let Some(plan) = class(seen) {
        return plan;
    }
    if !must_keep_claim(seen) {
        return Plan::step(Step::ReleaseClaim);
    }
    if seen.snapshot.is_going() {
        return deletion::plan(seen);
    }
    let source = &seen.snapshot.spec.source;
    if source.persistent_volume_claim_name.is_some()
        == source.volume_snapshot_content_name.is_some()
    {
        let message = "spec.source has to have exactly one of persistentVolumeClaimName and volumeSnapshotContentName";
        return Plan::trouble(seen, "SnapshotValidationError", message.to_owned());
    }
    let content = match content(seen) {
        Ok(content) => content,
        Err(plan) => return *plan,
    };
    if let Some(step) = finalizers(seen, content) {
        return Plan::step(step);
    }
    if seen.snapshot.is_ready() && seen.snapshot.bound_content().is_some() {
        return ready(seen);
    }
    match content {
        Some(content) if seen.snapshot.wanted_content().is_some() => {
            preprovisioned::plan(seen, content)
        }
        None if seen.snapshot.wanted_content().is_some() => preprovisioned::missing(seen),
        Some(content) => dynamic::follow(seen, content),
        None => dynamic::begin(seen),
    }
}

/// The class first: whatever else is wrong, a snapshot without one cannot be made. `None`: go on.
fn class(seen: &Observed) -> Option<Plan> {
    let Some(name) = seen.snapshot.class_name() else {
        // Nothing is made for a content that is there, nor for what is going.
        if seen.snapshot.wanted_content().is_some() || seen.snapshot.is_going() {
            return None;
        }
        return Some(dynamic::choose_class(seen));
    };
    if seen.class.is_some() {
        return None;
    }
    let message = format!(
        "there is no VolumeSnapshotClass {name}; create it, or make this snapshot with a class that exists"
    );
    let mut plan = Plan::trouble_beside(seen, "GetSnapshotClassFailed", message);
    if seen.snapshot.is_going() {
        // What is going needs no class.
        plan.trouble = None;
        return (!plan.steps.is_empty()).then_some(plan);
    }
    Some(plan)
}

/// Whether the claim's finalizer, if it is there, has to stay.
fn must_keep_claim(seen: &Observed) -> bool {
    let Some(claim) = &seen.claim else {
        return true;
    };
    !claim.has_finalizer(CLAIM_FINALIZER) || seen.claim_is_wanted || !seen.snapshot.is_ready()
}

/// The content of the snapshot, if it is there and nothing is wrong with it.
fn content(seen: &Observed) -> Result<Option<&VolumeSnapshotContent>, Box<Plan>> {
    if seen.snapshot.wanted_content().is_some() {
        preprovisioned::content(seen)
    } else {
        dynamic::content(seen)
    }
}

fn finalizers(seen: &Observed, content: Option<&VolumeSnapshotContent>) -> Option<Step> {
    let snapshot = &seen.snapshot;
    let mut all = snapshot.finalizers_now().to_vec();
    let before = all.len();
    if !snapshot.has_finalizer(SOURCE_FINALIZER) {
        all.push(SOURCE_FINALIZER.to_owned());
    }
    let goes_along = content.is_some_and(|c| c.spec.deletion_policy == DeletionPolicy::Delete);
    if goes_along && snapshot.bound_content().is_some() && !snapshot.has_finalizer(BOUND_FINALIZER)
    {
        all.push(BOUND_FINALIZER.to_owned());
    }
    (all.len() > before).then_some(Step::SetFinalizers(all))
}

/// A snapshot that is ready: is it still what it says?
fn ready(seen: &Observed) -> Plan {
    match &seen.bound {
        None => {
            let message = "its VolumeSnapshotContent is gone; somebody deleted it, and with it what this snapshot could be restored from";
            let mut plan = Plan::trouble(seen, "SnapshotContentMissing", message.to_owned());
            // It does not come back by asking again.
            plan.trouble = None;
            plan
        }
        Some(content) if !content.belongs_to(&seen.snapshot) => {
            let message = format!(
                "VolumeSnapshotContent {} belongs to another snapshot now",
                Meta::name(content.as_ref())
            );
            let mut plan = Plan::trouble(seen, "SnapshotMisbound", message);
            plan.trouble = None;
            plan
        }
        Some(_) => Plan::nothing(),
    }
}

/// The claim's volume: `Err` is what to do first.
pub(super) fn volume(
    seen: &Observed,
) -> Result<&k8s_openapi::api::core::v1::PersistentVolume, VolumeTrouble> {
    let name = seen.snapshot.claim_name().unwrap_or_default();
    let Some(claim) = &seen.claim else {
        return Err(VolumeTrouble::Wrong(format!(
            "there is no claim {name} in the snapshot's namespace; the snapshot is made once it is there"
        )));
    };
    let volume = claim.spec.volume_name.as_deref().unwrap_or_default();
    if !claim.is_bound() || volume.is_empty() {
        return Err(VolumeTrouble::Wrong(format!(
            "the claim {name} is not bound to a volume; the snapshot is made once it is"
        )));
    }
    match &seen.volume {
        Volume::NotAsked => Err(VolumeTrouble::Ask(volume.to_owned())),
        Volume::Missing => Err(VolumeTrouble::Wrong(format!(
            "the PersistentVolume {volume} of the claim {name} is gone"
        ))),
        Volume::Found(found) => {
            let back = found.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
            let bound = back.is_some_and(|back| {
                back.name.as_deref() == Some(name)
                    && back.namespace.as_deref() == Some(Meta::namespace(claim.as_ref()))
                    && back
                        .uid
                        .as_deref()
                        .is_none_or(|uid| uid.is_empty() || uid == Meta::uid(claim.as_ref()))
            });
            if bound {
                Ok(found)
            } else {
                Err(VolumeTrouble::Wrong(format!(
                    "the PersistentVolume {volume} does not belong to the claim {name}"
                )))
            }
        }
    }
}

/// Why there is no volume.
pub(super) enum VolumeTrouble {
    Ask(String),
    Wrong(String),
}
