//! `LocalPool`: one node's pool, how full and how healthy it is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{LocalSnapshotSpec, LocalVolumeSpec};

/// The types of a pool's conditions.
pub mod condition {
    /// The pool is open and takes volumes.
    pub const READY: &str = "Ready";
    /// What was promised can be kept whatever guests write: `False` on Btrfs, on a shared filesystem, and with overcommitment.
    pub const CAPACITY_PROMISED: &str = "CapacityPromised";
    /// There is data without an object.
    pub const ORPHANED: &str = "Orphaned";
    /// There are damaged records or images.
    pub const DAMAGED: &str = "Damaged";
}

/// Which pool. There is one per node, and it has the node's name.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "vd.csi.io",
    version = "v1alpha1",
    kind = "LocalPool",
    plural = "localpools",
    shortname = "lpool",
    category = "vd",
    status = "LocalPoolStatus",
    derive = "PartialEq",
    doc = "The pool of one node, as its agent sees it. Made and kept by csi-node.",
    selectable = ".spec.nodeName",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Used", type_ = "string", json_path = ".status.used"),
    printcolumn(name = "Promised", type_ = "string", json_path = ".status.promised"),
    printcolumn(name = "Free", type_ = "string", json_path = ".status.available"),
    printcolumn(name = "Volumes", type_ = "integer", json_path = ".status.volumes"),
    printcolumn(name = "Snapshots", type_ = "integer", json_path = ".status.snapshots"),
    printcolumn(name = "Orphans", type_ = "integer", json_path = ".status.orphanCount"),
    printcolumn(name = "Filesystem", type_ = "string", json_path = ".status.filesystem"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Problem", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = "1"),
    validation = ("self.metadata.name == self.spec.nodeName", "a LocalPool has the name of its node"),
    validation = ("self.spec.nodeName == oldSelf.spec.nodeName", "nodeName never changes")
)]
#[serde(rename_all = "camelCase")]
pub struct LocalPoolSpec {
    /// The Kubernetes node.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
}

/// What the pool's filesystem can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    /// Files can share blocks: snapshots, restores and clones take an instant.
    pub reflink: bool,
    /// Devices use direct I/O.
    pub direct_io: bool,
}

/// Data in the pool without an object: what an object for it would say. Exactly one of `volume` and `snapshot`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Orphan {
    /// The id: the name of an object for it.
    pub id: String,
    /// Since when it has been seen without an object.
    pub since: Time,
    /// The volume, from its record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<LocalVolumeSpec>,
    /// The snapshot, from its record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<LocalSnapshotSpec>,
}

/// A folder that is kept and not used, because its record cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// The path within the pool: `volumes/pvc-...`.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The pool as its agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalPoolStatus {
    /// The UUID in the pool's marker. An agent never initialises a folder for a node whose pool has one already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_uuid: Option<String>,
    /// The value of the driver's topology key on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<String>,
    /// The version of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// The kind of filesystem the pool is on: `xfs`, `btrfs`, `ext4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<String>,
    /// What that filesystem can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Features>,
    /// The filesystem's size, in bytes.
    #[serde(default)]
    pub size_bytes: i64,
    /// What is used of it, in bytes, by whomever.
    #[serde(default)]
    pub used_bytes: i64,
    /// What volumes and snapshots may come to together, in bytes.
    #[serde(default)]
    pub promised_bytes: i64,
    /// What is used by files that are not ours, in bytes.
    #[serde(default)]
    pub foreign_bytes: i64,
    /// What one new volume may come to, in bytes.
    #[serde(default)]
    pub available_bytes: i64,
    /// The size, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// What is used, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<String>,
    /// What is promised, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised: Option<String>,
    /// What is available for new volumes, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<String>,
    /// How many volumes there are.
    #[serde(default)]
    pub volumes: i64,
    /// How many snapshots there are.
    #[serde(default)]
    pub snapshots: i64,
    /// How much data has no object.
    #[serde(default)]
    pub orphan_count: i64,
    /// Data without an object; the first 100 by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<Orphan>,
    /// What is kept and not used; the first 100 by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<Quarantined>,
    /// When the agent last looked. Refreshed at least every five minutes, so that a stale status can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_time: Option<Time>,
    /// `Ready`, `CapacityPromised`, `Orphaned`, `Damaged`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
