//! What to do about a content, beside what its snapshot needs.

use crate::names::{BEING_DELETED, CONTENT_FINALIZER};
use crate::objects::{Meta, VolumeSnapshot, VolumeSnapshotContent};

/// One thing to do about a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is not to be lost any more.
    Protect,
    /// Its snapshot is being deleted.
    Mark,
    /// Its source makes no sense.
    Refuse,
}

/// What to do, given the snapshot of the name that the content names.
pub(super) fn plan(
    driver: &str,
    content: &VolumeSnapshotContent,
    snapshot: Option<&VolumeSnapshot>,
) -> Option<Step> {
    if content.spec.driver != driver || content.is_of_a_group() {
        return None;
    }
    let source = &content.spec.source;
    if source.volume_handle.is_some() == source.snapshot_handle.is_some() {
        return Some(Step::Refuse);
    }
    if content.ref_uid().is_empty() {
        // Nobody's yet.
        return None;
    }
    if !content.is_going() && !content.has_finalizer(CONTENT_FINALIZER) {
        return Some(Step::Protect);
    }
    // A content whose snapshot is not there is left alone: somebody may have copied it from another cluster, and the driver's
    // snapshot is still that one's.
    let snapshot = snapshot.filter(|snapshot| content.belongs_to(snapshot))?;
    let going = snapshot.waits_for_deletion() && content.annotation(BEING_DELETED).is_none();
    going.then_some(Step::Mark)
}
