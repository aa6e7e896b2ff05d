//! Kinds of other projects, as far as they are read here.

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// CDI's profile of a StorageClass.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize)]
#[kube(
    group = "cdi.kubevirt.io",
    version = "v1beta1",
    kind = "StorageProfile",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StorageProfileSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) claim_property_sets: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) clone_strategy: Option<Value>,
}

/// What CDI is to clone into a claim.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize)]
#[kube(
    group = "cdi.kubevirt.io",
    version = "v1beta1",
    kind = "VolumeCloneSource",
    namespaced,
    schema = "disabled"
)]
pub(crate) struct VolumeCloneSourceSpec {
    pub(crate) source: CloneSource,
}

/// A claim or a snapshot in the namespace of its VolumeCloneSource.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CloneSource {
    pub(crate) kind: String,
    pub(crate) name: String,
}

/// A snapshot of a claim.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize)]
#[kube(
    group = "snapshot.storage.k8s.io",
    version = "v1",
    kind = "VolumeSnapshot",
    namespaced,
    schema = "disabled",
    status = "VolumeSnapshotStatus"
)]
pub(crate) struct VolumeSnapshotSpec {}

/// What a snapshot is bound to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VolumeSnapshotStatus {
    #[serde(default)]
    pub(crate) bound_volume_snapshot_content_name: Option<String>,
}

/// The snapshot itself, as the driver knows it.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize)]
#[kube(
    group = "snapshot.storage.k8s.io",
    version = "v1",
    kind = "VolumeSnapshotContent",
    schema = "disabled",
    status = "VolumeSnapshotContentStatus"
)]
pub(crate) struct VolumeSnapshotContentSpec {
    #[serde(default)]
    pub(crate) driver: String,
    #[serde(default)]
    pub(crate) source: ContentSource,
}

/// Where a snapshot comes from: a handle if somebody made it ahead.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContentSource {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) snapshot_handle: Option<String>,
}

/// What the driver has answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VolumeSnapshotContentStatus {
    #[serde(default)]
    pub(crate) snapshot_handle: Option<String>,
}

impl VolumeSnapshotContent {
    /// The driver's id of the snapshot, if the driver is this one.
    pub(crate) fn handle(&self, driver: &str) -> Option<&str> {
        if self.spec.driver != driver {
            return None;
        }
        let made = self.status.as_ref();
        made.and_then(|status| status.snapshot_handle.as_deref())
            .or(self.spec.source.snapshot_handle.as_deref())
    }
}
