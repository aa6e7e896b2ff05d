//! What the driver's answers mean for a content.

use serde_json::{Value, json};
use tonic::Code;

use crate::objects::{VolumeSnapshotContent, VolumeSnapshotContentStatus};

/// A snapshot, as the driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) id: String,
    /// In nanoseconds since 1970.
    pub(super) creation_time: Option<i64>,
    pub(super) size_bytes: i64,
    pub(super) ready: bool,
    pub(super) group: String,
}

/// Why a call did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) message: String,
}

impl Refusal {
    /// Whether CreateSnapshot is over for sure, and has made nothing.
    pub(super) fn is_final(&self) -> bool {
        !matches!(
            self.code,
            Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Unavailable
                | Code::ResourceExhausted
                | Code::Aborted
        )
    }

    /// Whether the driver may be at work still. Of a final answer, and of one that says that there is no room, it is not: the
    /// upstream sidecar waits on after the latter too, since other drivers use that code for being busy.
    pub(super) fn may_be_at_work(&self) -> bool {
        !self.is_final() && self.code != Code::ResourceExhausted
    }
}

/// The change of status after a good answer; `None`: it says that already. Id, time and size are set once.
pub(super) fn status(content: &VolumeSnapshotContent, made: &Snapshot, now: i64) -> Option<Value> {
    let none = VolumeSnapshotContentStatus::default();
    let known = content.status.as_ref().unwrap_or(&none);
    let mut status = json!({});
    if known.snapshot_handle.is_none() {
        status["snapshotHandle"] = made.id.clone().into();
    }
    if known.ready_to_use != Some(made.ready) {
        status["readyToUse"] = made.ready.into();
        if made.ready && known.error.is_some() {
            status["error"] = Value::Null;
        }
    }
    if known.creation_time.is_none() {
        status["creationTime"] = made.creation_time.unwrap_or(now).into();
    }
    if known.restore_size.is_none() && made.size_bytes > 0 {
        status["restoreSize"] = made.size_bytes.into();
    }
    if known.volume_group_snapshot_handle.is_none() && !made.group.is_empty() {
        status["volumeGroupSnapshotHandle"] = made.group.clone().into();
    }
    (status != json!({})).then_some(status)
}

/// The change of status after a failure; `None`: that was told already.
pub(super) fn error(content: &VolumeSnapshotContent, message: &str, now: &str) -> Option<Value> {
    let known = content
        .status
        .as_ref()
        .and_then(|status| status.error.as_ref());
    let told = known.and_then(|error| error.message.as_deref()) == Some(message);
    (!told).then(|| json!({"readyToUse": false, "error": {"time": now, "message": message}}))
}

/// The change of status once the driver's snapshot is gone.
pub(super) fn deleted() -> Value {
    json!({"snapshotHandle": null, "readyToUse": null, "creationTime": null, "restoreSize": null})
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tonic::Code;

    use super::{Refusal, Snapshot, error, status};
    use crate::objects::VolumeSnapshotContent;

    fn content(status: &Value) -> VolumeSnapshotContent {
        serde_json::from_value(json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": {"name": "c"}, "spec": {}, "status": status,
        }))
        .unwrap()
    }

    fn made(ready: bool) -> Snapshot {
        Snapshot {
            id: "snapshot-1".to_owned(),
            creation_time: Some(7),
            size_bytes: 9,
            ready,
            group: String::new(),
        }
    }

    #[test]
    fn the_first_answer_sets_everything() {
        let status = status(&content(&Value::Null), &made(true), 1).unwrap();
        let want = json!({"snapshotHandle": "snapshot-1", "readyToUse": true, "creationTime": 7, "restoreSize": 9});
        assert_eq!(status, want);
    }

    #[test]
    fn a_driver_that_gives_no_time_and_no_size_gets_the_present_and_none() {
        let made = Snapshot {
            creation_time: None,
            size_bytes: 0,
            ..made(false)
        };
        let status = status(&content(&Value::Null), &made, 1).unwrap();
        assert_eq!(
            status,
            json!({"snapshotHandle": "snapshot-1", "readyToUse": false, "creationTime": 1})
        );
    }

    #[test]
    fn what_is_known_is_not_changed_but_for_readiness() {
        let known = json!({"snapshotHandle": "x", "readyToUse": false, "creationTime": 1, "restoreSize": 2});
        assert_eq!(status(&content(&known), &made(false), 5), None);
        assert_eq!(
            status(&content(&known), &made(true), 5),
            Some(json!({"readyToUse": true}))
        );
    }

    #[test]
    fn an_error_goes_when_the_snapshot_becomes_ready_and_not_before() {
        let known = json!({"snapshotHandle": "x", "readyToUse": false, "creationTime": 1, "restoreSize": 2, "error": {"message": "m"}});
        assert_eq!(status(&content(&known), &made(false), 5), None);
        assert_eq!(
            status(&content(&known), &made(true), 5),
            Some(json!({"readyToUse": true, "error": null}))
        );
    }

    #[test]
    fn the_same_error_is_told_once() {
        let first = error(&content(&Value::Null), "no room", "now").unwrap();
        assert_eq!(
            first,
            json!({"readyToUse": false, "error": {"time": "now", "message": "no room"}})
        );
        assert_eq!(error(&content(&first), "no room", "later"), None);
        assert!(error(&content(&first), "no node", "later").is_some());
    }

    #[test]
    fn only_answers_that_leave_it_open_are_not_final() {
        let open = [
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Unavailable,
            Code::ResourceExhausted,
            Code::Aborted,
        ];
        for code in (1..=16).map(Code::from_i32) {
            let refusal = Refusal {
                code,
                message: String::new(),
            };
            assert_eq!(refusal.is_final(), !open.contains(&code), "{code:?}");
            let at_work = open.contains(&code) && code != Code::ResourceExhausted;
            assert_eq!(refusal.may_be_at_work(), at_work, "{code:?}");
        }
    }
}
