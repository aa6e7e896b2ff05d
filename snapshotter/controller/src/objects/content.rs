//! VolumeSnapshotContent: the driver's snapshot as Kubernetes knows it.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::ClusterResourceScope;
use serde::{Deserialize, Serialize};

use super::{Meta, StatusError, VolumeSnapshot, lenient};
use crate::names::{BEING_CREATED, CONTENT_FINALIZER, GROUP_HANDLE};

/// A content.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct VolumeSnapshotContent {
    /// Its name, finalizers and annotations.
    pub metadata: ObjectMeta,
    /// What it is.
    #[serde(default, deserialize_with = "lenient")]
    pub spec: VolumeSnapshotContentSpec,
    /// What the driver has said.
    #[serde(default, deserialize_with = "lenient")]
    pub status: Option<VolumeSnapshotContentStatus>,
}

resource!(
    VolumeSnapshotContent,
    ClusterResourceScope,
    "volumesnapshotcontents"
);

/// What it is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSnapshotContentSpec {
    /// The snapshot it belongs to. Without uid: the first of that name may have it.
    #[serde(default, deserialize_with = "lenient")]
    pub volume_snapshot_ref: ObjectReference,
    /// What becomes of the driver's snapshot when the user's is deleted.
    #[serde(default, deserialize_with = "lenient")]
    pub deletion_policy: DeletionPolicy,
    /// The CSI driver.
    #[serde(default, deserialize_with = "lenient")]
    pub driver: String,
    /// Its class, for parameters and secrets.
    #[serde(default, deserialize_with = "lenient")]
    pub volume_snapshot_class_name: Option<String>,
    /// Of what.
    #[serde(default, deserialize_with = "lenient")]
    pub source: ContentSource,
    /// The mode of the volume it is of: a claim of another mode is refused.
    #[serde(default, deserialize_with = "lenient")]
    pub source_volume_mode: Option<String>,
}

/// What becomes of the driver's snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeletionPolicy {
    /// It is deleted too.
    Delete,
    /// It is kept. Also what anything unknown is taken for: it loses nothing.
    #[default]
    #[serde(other)]
    Retain,
}

/// Exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContentSource {
    /// The driver's id of a volume, of which a snapshot is to be made.
    #[serde(default, deserialize_with = "lenient")]
    pub volume_handle: Option<String>,
    /// The driver's id of a snapshot that somebody else has made.
    #[serde(default, deserialize_with = "lenient")]
    pub snapshot_handle: Option<String>,
}

/// What the driver has said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSnapshotContentStatus {
    /// Its id.
    #[serde(default, deserialize_with = "lenient")]
    pub snapshot_handle: Option<String>,
    /// The point in time, in nanoseconds since 1970.
    #[serde(default, deserialize_with = "lenient")]
    pub creation_time: Option<i64>,
    /// How large a claim made from it has to be at least, in bytes.
    #[serde(default, deserialize_with = "lenient")]
    pub restore_size: Option<i64>,
    /// Whether a volume can be made from it.
    #[serde(default, deserialize_with = "lenient")]
    pub ready_to_use: Option<bool>,
    /// What went wrong last.
    #[serde(default, deserialize_with = "lenient")]
    pub error: Option<StatusError>,
    /// The group it was made in.
    #[serde(default, deserialize_with = "lenient")]
    pub volume_group_snapshot_handle: Option<String>,
}

impl VolumeSnapshotContent {
    /// The uid of its snapshot; empty: it has none yet.
    #[must_use]
    pub fn ref_uid(&self) -> &str {
        let uid = self.spec.volume_snapshot_ref.uid.as_deref();
        uid.unwrap_or_default()
    }

    /// Whether it names a snapshot of this name and namespace.
    #[must_use]
    pub fn names(&self, snapshot: &VolumeSnapshot) -> bool {
        let reference = &self.spec.volume_snapshot_ref;
        reference.name.as_deref().unwrap_or_default() == Meta::name(snapshot)
            && reference.namespace.as_deref().unwrap_or_default() == Meta::namespace(snapshot)
    }

    /// Whether it belongs to exactly this snapshot.
    #[must_use]
    pub fn belongs_to(&self, snapshot: &VolumeSnapshot) -> bool {
        self.names(snapshot) && self.ref_uid() == Meta::uid(snapshot)
    }

    /// Whether the driver has it ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let status = self.status.as_ref();
        status.is_some_and(|status| status.ready_to_use == Some(true))
    }

    /// The driver's id in its status.
    #[must_use]
    pub fn handle(&self) -> Option<&str> {
        self.status.as_ref()?.snapshot_handle.as_deref()
    }

    /// Its finalizers with ours, if that is to be added.
    #[must_use]
    pub fn protection(&self) -> Option<Vec<String>> {
        let due = !self.is_going() && !self.has_finalizer(CONTENT_FINALIZER);
        due.then(|| {
            let mut finalizers = self.finalizers_now().to_vec();
            finalizers.push(CONTENT_FINALIZER.to_owned());
            finalizers
        })
    }

    /// Whether CreateSnapshot was called and its end is not known.
    #[must_use]
    pub fn is_being_created(&self) -> bool {
        self.annotation(BEING_CREATED).is_some()
    }

    /// Whether it is part of a group of snapshots, which others look after.
    #[must_use]
    pub fn is_of_a_group(&self) -> bool {
        let status = self.status.as_ref();
        self.annotation(GROUP_HANDLE).is_some()
            || status.is_some_and(|status| status.volume_group_snapshot_handle.is_some())
    }
}
