//! `LocalSnapshot`: one snapshot on one node.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Failure, FsType, VolumeMode};

/// What a snapshot should be. Only `delete` may change.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "vd.csi.io",
    version = "v1alpha1",
    kind = "LocalSnapshot",
    plural = "localsnapshots",
    shortname = "lsnap",
    category = "vd",
    status = "LocalSnapshotStatus",
    derive = "PartialEq",
    doc = "One snapshot: a standalone qcow2 file in the pool of one node. Made by csi-controller, served by csi-node.",
    selectable = ".spec.nodeName",
    selectable = ".spec.sourceVolume",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.sourceVolume"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Cut", type_ = "date", json_path = ".status.creationTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Problem", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = "1"),
    validation = ("self.spec.nodeName == oldSelf.spec.nodeName && self.spec.name == oldSelf.spec.name && self.spec.sourceVolume == oldSelf.spec.sourceVolume && has(self.spec.compression) == has(oldSelf.spec.compression) && (!has(self.spec.compression) || self.spec.compression == oldSelf.spec.compression)", "a snapshot's node, name, source and compression never change"),
    validation = ("has(self.spec.checksum) == has(oldSelf.spec.checksum) && (!has(self.spec.checksum) || self.spec.checksum == oldSelf.spec.checksum)", "how a snapshot's data is digested never changes")
)]
#[serde(rename_all = "camelCase")]
pub struct LocalSnapshotSpec {
    /// The Kubernetes node whose pool holds the source and the snapshot.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
    /// The name the orchestrator gave it, for people. The object's own name is the snapshot id.
    #[schemars(length(min = 1, max = 512))]
    pub name: String,
    /// The name of the LocalVolume it is cut from, which may be gone later.
    #[schemars(length(min = 1, max = 128))]
    pub source_volume: String,
    /// The image is to be compressed once the snapshot is there; none: it stays as it was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// How its data is to be digested, in the background after the cut. Without it nothing of the data is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
    /// The data is to be removed. Only csi-controller sets it, when the snapshot's deletion was asked for through CSI.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delete: bool,
}

/// How an image is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// zstd.
    Zstd,
}

/// How the data of a snapshot is digested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// BLAKE3.
    Blake3,
}

/// Where a snapshot is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SnapshotState {
    /// It was not cut yet.
    #[default]
    Pending,
    /// It was cut and can be restored from.
    Ready,
    /// It exists and cannot be used as it is. Everything is kept; the condition says what to do.
    Failed,
    /// It existed, and its data is not in the pool of this node.
    DataMissing,
    /// Its data is being removed.
    Deleting,
    /// Its data was removed; the object can go.
    Deleted,
}

/// What the node did and found, from the record on its disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalSnapshotStatus {
    /// Where the snapshot is in its life.
    #[serde(default)]
    pub state: SnapshotState,
    /// The `metadata.generation` that this status is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// The UUID of the pool that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_uuid: Option<String>,
    /// Whether it can be restored from.
    #[serde(default)]
    pub ready_to_use: bool,
    /// The moment of the cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<Time>,
    /// The same moment, in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_unix_ns: Option<i64>,
    /// The source's requested size, in bytes: what a claim that restores it has to ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_bytes: Option<i64>,
    /// The virtual size of the image, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_bytes: Option<i64>,
    /// What the pool has set aside for it, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge_bytes: Option<i64>,
    /// The virtual size, for people: `10Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// What its source was: device or filesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_mode: Option<VolumeMode>,
    /// What its source was: which filesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs_type: Option<FsType>,
    /// The digest of its data, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_digest: Option<String>,
    /// When its data was last found to be what the digest says, about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_time: Option<Time>,
    /// How far a long copy is, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<i32>,
    /// Why what `spec` asks for failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
