//! `LocalVolume`: one volume on one node.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ClaimReference, Failure};

/// Whether pods see a volume as a device or as a mounted filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumeMode {
    /// A raw block device.
    Block,
    /// A mounted filesystem.
    Filesystem,
}

/// The filesystem of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FsType {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
}

/// Whether an image's space is allocated ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provisioning {
    /// Space is taken as it is written.
    #[default]
    Thin,
    /// All space is allocated at creation.
    Thick,
}

/// Where the first content of a volume comes from: exactly one of the two, on the same node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.snapshot) != has(self.volume)", "a source is either a snapshot or a volume"))]
pub struct Source {
    /// The name of a LocalSnapshot to restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub snapshot: Option<String>,
    /// The name of a LocalVolume to clone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub volume: Option<String>,
}

/// What a volume should be. Only the sizes (never below what the volume has), `claim` and `delete` may change.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "vd.csi.io",
    version = "v1alpha1",
    kind = "LocalVolume",
    plural = "localvolumes",
    shortname = "lvol",
    category = "vd",
    status = "LocalVolumeStatus",
    derive = "PartialEq",
    doc = "One volume: a raw image file in the pool of one node. Made by csi-controller, served by csi-node.",
    selectable = ".spec.nodeName",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Capacity", type_ = "string", json_path = ".status.capacity"),
    printcolumn(name = "Used", type_ = "string", json_path = ".status.used"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.volumeMode"),
    printcolumn(name = "Published", type_ = "boolean", json_path = ".status.published"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.claim.namespace"),
    printcolumn(name = "Claim", type_ = "string", json_path = ".spec.claim.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Problem", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = "1"),
    validation = ("self.spec.nodeName == oldSelf.spec.nodeName && self.spec.name == oldSelf.spec.name", "nodeName and name never change: data does not move by itself"),
    validation = ("self.spec.volumeMode == oldSelf.spec.volumeMode && self.spec.provisioning == oldSelf.spec.provisioning && self.spec.accessModes == oldSelf.spec.accessModes", "volumeMode, provisioning and accessModes never change"),
    validation = ("has(self.spec.fsType) == has(oldSelf.spec.fsType) && (!has(self.spec.fsType) || self.spec.fsType == oldSelf.spec.fsType)", "fsType never changes"),
    validation = ("has(self.spec.source) == has(oldSelf.spec.source) && (!has(self.spec.source) || self.spec.source == oldSelf.spec.source)", "the source never changes"),
    validation = ("self.spec.sizeBytes >= oldSelf.spec.sizeBytes || (has(self.status) && has(self.status.sizeBytes) && self.spec.sizeBytes >= self.status.sizeBytes)", "a volume never shrinks"),
    validation = ("self.spec.sizeBytes % 1048576 == 0", "sizeBytes is a multiple of 1 MiB (1048576)"),
    validation = ("has(self.spec.fsType) == (self.spec.volumeMode == 'Filesystem')", "fsType goes with volumeMode Filesystem, and only with it")
)]
#[serde(rename_all = "camelCase")]
pub struct LocalVolumeSpec {
    /// The Kubernetes node whose pool holds the volume.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
    /// The name the orchestrator gave it, for people. The object's own name is the volume id.
    #[schemars(length(min = 1, max = 512))]
    pub name: String,
    /// The size that was asked for, in bytes.
    #[schemars(range(min = 0))]
    pub requested_bytes: i64,
    /// The size of the image, in bytes: the requested size rounded up to 1 MiB.
    #[schemars(range(min = 1_048_576))]
    pub size_bytes: i64,
    /// Device or filesystem.
    pub volume_mode: VolumeMode,
    /// The filesystem, with `volumeMode: Filesystem`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs_type: Option<FsType>,
    /// Sparse or allocated ahead.
    #[serde(default)]
    pub provisioning: Provisioning,
    /// The access modes that were asked for, by their CSI names.
    #[serde(default)]
    #[schemars(length(max = 8), inner(length(max = 64)))]
    pub access_modes: Vec<String>,
    /// Where the first content comes from; an empty volume without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The claim it is bound to, as far as csi-controller knows: at first the one it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimReference>,
    /// The data is to be removed. Only csi-controller sets it, when the volume's deletion was asked for through CSI.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delete: bool,
}

/// Where a volume is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumeState {
    /// Nothing was made yet.
    #[default]
    Pending,
    /// It exists and can be used.
    Ready,
    /// It exists and cannot be used as it is: its record or image is damaged, or it is not the volume that `spec` describes.
    /// Everything is kept; the condition says what to do.
    Failed,
    /// It existed, and its data is not in the pool of this node. Nothing is made in its place.
    DataMissing,
    /// Its data is being removed.
    Deleting,
    /// Its data was removed; the object can go.
    Deleted,
}

/// What the node did and found, from the record on its disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalVolumeStatus {
    /// Where the volume is in its life.
    #[serde(default)]
    pub state: VolumeState,
    /// The `metadata.generation` that this status is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// The UUID of the pool that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_uuid: Option<String>,
    /// The size of the image, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// The size that was asked for when it was made or last expanded, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_bytes: Option<i64>,
    /// What the record says: device or filesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_mode: Option<VolumeMode>,
    /// What the record says: which filesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs_type: Option<FsType>,
    /// What the record says: sparse or allocated ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioning: Option<Provisioning>,
    /// What the record says: where the content came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The size, for people: `10Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<String>,
    /// The space its image takes on the disk, for people: `3.2Gi`. Refreshed now and then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<String>,
    /// Whether the record says that it was ever staged, so that there may be something in it.
    #[serde(default)]
    pub ever_staged: bool,
    /// Whether it is published to a pod now.
    #[serde(default)]
    pub published: bool,
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
