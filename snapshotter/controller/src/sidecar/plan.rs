//! What the driver has to be asked for.

use crate::names::{BEING_DELETED, CONTENT_FINALIZER, csi_name_of};
use crate::objects::{DeletionPolicy, Meta, VolumeSnapshotClass, VolumeSnapshotContent};

/// What a decision about a content is made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed<'a> {
    pub(super) driver: &'a str,
    /// The driver's id of a snapshot is the name it was asked for by.
    pub(super) ids_are_names: bool,
    pub(super) content: &'a VolumeSnapshotContent,
    /// The class that the content names.
    pub(super) class: Option<&'a VolumeSnapshotClass>,
    /// The driver may still be at work on an earlier CreateSnapshot.
    pub(super) unsettled: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Call CreateSnapshot: for the first time, or again to learn how it stands.
    Create {
        again: bool,
    },
    /// Ask after this snapshot, which somebody else has made.
    Check {
        id: String,
    },
    /// CreateSnapshot is over.
    Unmark,
    /// Call DeleteSnapshot, then take the snapshot's data off the status.
    Delete {
        id: String,
    },
    /// Call DeleteSnapshot for what CreateSnapshot may have made or may yet make; it counts only once the latter is settled.
    DeleteUnknown {
        id: String,
    },
    /// The content may go.
    Release,
}

/// What to do about a content. `deleted`: DeleteSnapshot has just said that there is nothing any more.
pub(super) fn plan(seen: Observed<'_>, deleted: bool) -> Step {
    let content = seen.content;
    let source = &content.spec.source;
    let foreign = content.spec.driver != seen.driver
        || seen.class.is_some_and(|class| class.driver != seen.driver);
    if foreign || (source.volume_handle.is_none() && source.snapshot_handle.is_none()) {
        return Step::Nothing;
    }
    if content.is_going()
        && let Some(step) = going(seen, deleted)
    {
        return step;
    }
    if content.is_of_a_group() {
        // Made by those who made the group.
        return Step::Nothing;
    }
    if content.is_ready() {
        return if content.is_being_created() {
            Step::Unmark
        } else {
            Step::Nothing
        };
    }
    match &source.snapshot_handle {
        Some(id) => Step::Check {
            id: content.handle().unwrap_or(id).to_owned(),
        },
        None => Step::Create {
            again: content.status.is_some(),
        },
    }
}

/// Somebody has deleted the content. `None`: it is not time yet, go on as if not.
fn going(seen: Observed<'_>, deleted: bool) -> Option<Step> {
    let content = seen.content;
    let of_nobody = content.spec.source.snapshot_handle.is_some() && content.ref_uid().is_empty();
    let marked = content.annotation(BEING_DELETED).is_some();
    let is_held = content.has_finalizer(CONTENT_FINALIZER);
    if !of_nobody && !marked {
        // Deleted by hand while its snapshot is there: that one still needs it. What cannot be held any more is gone at any moment, and
        // with it all knowledge of what would be made now.
        return (!is_held).then_some(Step::Nothing);
    }
    if content.is_being_created() && !of_nobody && !seen.ids_are_names {
        // Only CreateSnapshot can tell the id, so it has to be called until it does.
        return None;
    }
    let release = if is_held {
        Step::Release
    } else {
        Step::Nothing
    };
    let status = content.status.as_ref();
    // Its driver deletes all of the group at once.
    let in_group = status.is_some_and(|status| status.volume_group_snapshot_handle.is_some());
    if content.spec.deletion_policy == DeletionPolicy::Retain || in_group {
        return Some(release);
    }
    if let Some(id) = content.handle() {
        return Some(Step::Delete { id: id.to_owned() });
    }
    // What has no id in its status may be there all the same.
    if !is_held || of_nobody || content.is_of_a_group() {
        return Some(release);
    }
    Some(match &content.spec.source.snapshot_handle {
        Some(id) if !deleted => Step::Delete { id: id.clone() },
        None if seen.ids_are_names
            && !content.ref_uid().is_empty()
            && (seen.unsettled || !deleted) =>
        {
            Step::DeleteUnknown {
                id: csi_name_of(content.ref_uid()),
            }
        }
        _ => release,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Observed, Step, plan};
    use crate::names::{BEING_CREATED, BEING_DELETED, CONTENT_FINALIZER};
    use crate::objects::VolumeSnapshotClass;

    const DRIVER: &str = "vd.csi.io";

    fn content() -> Value {
        json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": {"name": "snapcontent-u1", "finalizers": [CONTENT_FINALIZER]},
            "spec": {
                "driver": DRIVER, "deletionPolicy": "Delete", "source": {"volumeHandle": "pvc-1"},
                "volumeSnapshotRef": {"namespace": "shop", "name": "daily", "uid": "u1"},
            },
        })
    }

    fn given() -> Value {
        let mut content = content();
        content["spec"]["source"] = json!({"snapshotHandle": "snapshot-9"});
        content
    }

    /// Deleted, and so is its snapshot.
    fn going(mut content: Value) -> Value {
        content["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        content["metadata"]["annotations"][BEING_DELETED] = json!("yes");
        content
    }

    fn with(mut content: Value, change: impl FnOnce(&mut Value)) -> Value {
        change(&mut content);
        content
    }

    fn ready(content: Value) -> Value {
        with(content, |c| {
            c["status"] = json!({"snapshotHandle": "snapshot-u1", "readyToUse": true});
        })
    }

    fn created(content: Value) -> Value {
        with(content, |c| {
            c["metadata"]["annotations"][BEING_CREATED] = json!("yes");
        })
    }

    fn retain(content: Value) -> Value {
        with(content, |c| c["spec"]["deletionPolicy"] = json!("Retain"))
    }

    fn decide(content: Value, ids_are_names: bool, unsettled: bool, deleted: bool) -> Step {
        let content = serde_json::from_value(content).unwrap();
        let seen = Observed {
            driver: DRIVER,
            ids_are_names,
            content: &content,
            class: None,
            unsettled,
        };
        plan(seen, deleted)
    }

    /// For a driver whose ids are not known beforehand.
    fn usual(content: Value) -> Step {
        decide(content, false, false, false)
    }

    /// For the own driver.
    fn own(content: Value) -> Step {
        decide(content, true, false, false)
    }

    fn id(id: &str) -> String {
        id.to_owned()
    }

    #[test]
    fn a_snapshot_is_made_and_asked_for_until_it_is_ready() {
        assert_eq!(usual(content()), Step::Create { again: false });
        let cut = with(content(), |c| {
            c["status"] = json!({"snapshotHandle": "x", "readyToUse": false});
        });
        assert_eq!(usual(cut), Step::Create { again: true });
        let failed = with(content(), |c| {
            c["status"] = json!({"error": {"message": "m"}});
        });
        assert_eq!(usual(failed), Step::Create { again: true });
        assert_eq!(usual(ready(created(content()))), Step::Unmark);
        assert_eq!(usual(ready(content())), Step::Nothing);
    }

    #[test]
    fn a_snapshot_that_somebody_else_has_made_is_only_asked_after() {
        assert_eq!(
            usual(given()),
            Step::Check {
                id: id("snapshot-9")
            }
        );
        assert_eq!(usual(ready(given())), Step::Nothing);
    }

    #[test]
    fn what_is_not_this_drivers_is_left_alone() {
        assert_eq!(
            usual(with(content(), |c| c["spec"]["driver"] = json!("other"))),
            Step::Nothing
        );
        assert_eq!(
            usual(going(
                with(content(), |c| c["spec"]["driver"] = json!("other"))
            )),
            Step::Nothing
        );
        assert_eq!(
            usual(with(content(), |c| c["spec"]["source"] = json!({}))),
            Step::Nothing
        );
        let class = VolumeSnapshotClass {
            driver: "other".to_owned(),
            ..VolumeSnapshotClass::default()
        };
        let content = serde_json::from_value(content()).unwrap();
        let seen = Observed {
            driver: DRIVER,
            ids_are_names: true,
            content: &content,
            class: Some(&class),
            unsettled: false,
        };
        assert_eq!(plan(seen, false), Step::Nothing);
    }

    #[test]
    fn members_of_groups_are_only_let_go() {
        let annotated = |content: Value| {
            with(content, |c| {
                c["metadata"]["annotations"]["groupsnapshot.storage.k8s.io/volumeGroupSnapshotHandle"] =
                    json!("g");
            })
        };
        let member = |content: Value| {
            with(ready(content), |c| {
                c["status"]["volumeGroupSnapshotHandle"] = json!("g");
            })
        };
        assert_eq!(own(annotated(content())), Step::Nothing);
        assert_eq!(own(member(content())), Step::Nothing);
        assert_eq!(own(going(annotated(content()))), Step::Release);
        assert_eq!(own(going(member(content()))), Step::Release);
        // Of this one no group is known at the driver, so nobody else would delete it.
        let deleted = Step::Delete {
            id: id("snapshot-u1"),
        };
        assert_eq!(own(going(annotated(ready(content())))), deleted);
    }

    #[test]
    fn a_deleted_snapshot_is_deleted_at_the_driver_and_then_let_go() {
        assert_eq!(
            usual(going(ready(content()))),
            Step::Delete {
                id: id("snapshot-u1")
            }
        );
        assert_eq!(
            usual(going(ready(given()))),
            Step::Delete {
                id: id("snapshot-u1")
            }
        );
        assert_eq!(usual(going(content())), Step::Release);
        let released = with(going(content()), |c| {
            c["metadata"]["finalizers"] = json!(["x"]);
        });
        assert_eq!(usual(released.clone()), Step::Nothing);
        assert_eq!(own(released), Step::Nothing);
    }

    #[test]
    fn a_given_snapshot_that_was_never_asked_after_is_deleted_all_the_same() {
        let deleted = Step::Delete {
            id: id("snapshot-9"),
        };
        assert_eq!(usual(going(given())), deleted);
        assert_eq!(
            decide(going(given()), false, false, true),
            Step::Release,
            "its status has no id that could go"
        );
        assert_eq!(usual(going(retain(given()))), Step::Release);
        let of_nobody = with(going(given()), |c| {
            c["spec"]["volumeSnapshotRef"]["uid"] = Value::Null;
        });
        assert_eq!(usual(of_nobody), Step::Release);
    }

    #[test]
    fn what_is_to_be_retained_is_only_let_go() {
        assert_eq!(own(retain(going(ready(content())))), Step::Release);
        assert_eq!(own(retain(going(created(content())))), Step::Release);
    }

    #[test]
    fn a_content_that_was_deleted_by_hand_stays_while_its_snapshot_is_there() {
        let by_hand = |content: Value| {
            with(content, |c| {
                c["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            })
        };
        assert_eq!(own(by_hand(ready(content()))), Step::Nothing);
        assert_eq!(own(by_hand(content())), Step::Create { again: false });
        // One that cannot be held any more: what is made now would be nobody's in a moment.
        let let_go = with(by_hand(content()), |c| {
            c["metadata"]["finalizers"] = json!(["x"]);
        });
        assert_eq!(own(let_go.clone()), Step::Nothing);
        assert_eq!(usual(let_go), Step::Nothing);
        // One that is nobody's yet has no snapshot.
        let of_nobody = with(given(), |c| {
            c["spec"]["volumeSnapshotRef"]["uid"] = Value::Null;
        });
        assert_eq!(usual(by_hand(of_nobody)), Step::Release);
    }

    #[test]
    fn of_another_driver_only_creating_again_tells_what_there_is_to_delete() {
        assert_eq!(
            usual(going(created(content()))),
            Step::Create { again: false }
        );
    }

    #[test]
    fn of_the_own_driver_it_is_deleted_by_name_whatever_became_of_creating_it() {
        let unknown = Step::DeleteUnknown {
            id: id("snapshot-u1"),
        };
        assert_eq!(own(going(created(content()))), unknown);
        // Also after a final answer: it may have been wrong.
        assert_eq!(own(going(content())), unknown);
        assert_eq!(
            decide(going(created(content())), true, false, true),
            Step::Release
        );
        // The driver may be at work still: what it makes now has to be deleted as well.
        assert_eq!(decide(going(created(content())), true, true, true), unknown);
    }
}
