//! Snapshots that are bound to a content somebody else has made.

use serde_json::json;

use super::observe::Observed;
use super::plan::{Plan, Step};
use super::status;
use crate::objects::{Meta, VolumeSnapshotContent};

/// The content that the snapshot asks for, if it may have it.
pub(super) fn content(seen: &Observed) -> Result<Option<&VolumeSnapshotContent>, Box<Plan>> {
    let Some(content) = seen.wanted.as_deref() else {
        return Ok(None);
    };
    let name = Meta::name(content);
    if content.spec.source.snapshot_handle.is_none() {
        let message = format!(
            "VolumeSnapshotContent {name} was made for a snapshot of a claim; name one with spec.source.snapshotHandle"
        );
        return Err(Box::new(Plan::trouble(
            seen,
            "SnapshotContentMismatch",
            message,
        )));
    }
    let free =
        content.ref_uid().is_empty() || content.ref_uid() == Meta::uid(seen.snapshot.as_ref());
    if !content.names(&seen.snapshot) || !free {
        let message = format!(
            "VolumeSnapshotContent {name} is for another snapshot; its spec.volumeSnapshotRef has to name this one"
        );
        return Err(Box::new(Plan::trouble(
            seen,
            "SnapshotContentMisbound",
            message,
        )));
    }
    Ok(Some(content))
}

/// The content is not there.
pub(super) fn missing(seen: &Observed) -> Plan {
    let name = seen.snapshot.wanted_content().unwrap_or_default();
    let message =
        format!("there is no VolumeSnapshotContent {name}; the snapshot is bound once it is there");
    Plan::trouble(seen, "SnapshotContentMissing", message)
}

/// The content is there and free, or bound already.
pub(super) fn plan(seen: &Observed, content: &VolumeSnapshotContent) -> Plan {
    let snapshot = seen.snapshot.as_ref();
    let class = snapshot.class_name();
    let classless = content.spec.volume_snapshot_class_name.is_none() && class.is_some();
    if content.ref_uid().is_empty() || classless {
        let mut spec = json!({"volumeSnapshotRef": {"uid": Meta::uid(snapshot)}});
        if let Some(class) = class {
            spec["volumeSnapshotClassName"] = class.into();
        }
        return Plan::step(Step::BindContent(spec));
    }
    Plan::steps(status::follow(seen, content))
}
