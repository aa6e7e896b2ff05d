//! A snapshot's status follows its content's.

use serde_json::{Value, json};

use super::observe::Observed;
use super::plan::{Step, Telling};
use crate::objects::{
    Meta, VolumeSnapshotContent, VolumeSnapshotContentStatus, VolumeSnapshotStatus,
};
use crate::time;

/// The change of status that is due, and what to tell with it. Name, time and size are set once; readiness and error follow.
pub(super) fn follow(seen: &Observed, content: &VolumeSnapshotContent) -> Vec<Step> {
    let none = VolumeSnapshotStatus::default();
    let now = seen.snapshot.status.as_ref().unwrap_or(&none);
    let none = VolumeSnapshotContentStatus::default();
    let said = content.status.as_ref().unwrap_or(&none);
    let mut status = json!({});
    if now.bound_volume_snapshot_content_name.is_none() {
        status["boundVolumeSnapshotContentName"] = Meta::name(content).into();
    }
    let ready = said.ready_to_use.unwrap_or(false);
    if now.ready_to_use != Some(ready) {
        status["readyToUse"] = ready.into();
    }
    let mut tellings = Vec::new();
    if now.creation_time.is_none()
        && let Some(time) = said.creation_time.and_then(time::of_nanoseconds)
    {
        status["creationTime"] = time.into();
        tellings.push(("SnapshotCreated", "The snapshot was made by the CSI driver"));
    }
    if ready && now.ready_to_use != Some(true) {
        tellings.push(("SnapshotReady", "The snapshot is ready to be restored"));
    }
    if let Some(size) = said.restore_size
        && now
            .restore_size
            .as_ref()
            .is_none_or(|known| known.is_zero() && size > 0)
    {
        status["restoreSize"] = time::quantity(size).into();
    }
    if now.error != said.error {
        // Both fields, also where one is none: what is not named in a change stays as it was.
        status["error"] = match &said.error {
            Some(error) => json!({"time": error.time, "message": error.message}),
            None => Value::Null,
        };
    }
    if status == json!({}) {
        return Vec::new();
    }
    steps(status, &tellings)
}

fn steps(status: Value, tellings: &[(&'static str, &str)]) -> Vec<Step> {
    let tell = |(reason, message): &(&'static str, &str)| {
        Step::Tell(Telling {
            warning: false,
            reason,
            message: (*message).to_owned(),
        })
    };
    std::iter::once(Step::SetStatus(status))
        .chain(tellings.iter().map(tell))
        .collect()
}
