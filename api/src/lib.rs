//! The custom resources of vd-csi, group `vd.csi.io`, version `v1alpha1`, all cluster-scoped.
//!
//! ```text
//! csi-controller ── spec: what should be ──> LocalVolume, LocalSnapshot ──> csi-node of spec.nodeName
//!                <── status: what was done ──                            <──
//! csi-node       ── LocalPool of its node: how full, how healthy, which data has no object
//! ```
//!
//! **Data is authoritative on the node's disk**; an object is intent and report. Losing an object loses no data: data without an
//! object is an *orphan*, reported in its `LocalPool` and never deleted by inference. Only `spec.delete` makes an agent
//! remove data; deleting an object by hand does not.

#![allow(
    unreachable_pub,
    reason = "the derive of validation rules generates private copies of the types"
)]

mod claim;
#[cfg(feature = "watch")]
mod connection;
mod failure;
mod pool;
mod snapshot;
mod volume;
#[cfg(feature = "watch")]
mod watching;

pub use claim::ClaimReference;
#[cfg(feature = "watch")]
pub use connection::client;
pub use failure::Failure;
pub use pool::{
    Features, LocalPool, LocalPoolSpec, LocalPoolStatus, Orphan, Quarantined,
    condition as pool_condition,
};
pub use snapshot::{
    Checksum, Compression, LocalSnapshot, LocalSnapshotSpec, LocalSnapshotStatus, SnapshotState,
};
pub use volume::{
    FsType, LocalVolume, LocalVolumeSpec, LocalVolumeStatus, Provisioning, Source, VolumeMode,
    VolumeState,
};
#[cfg(feature = "watch")]
pub use watching::{begin_anew, is_answer, watching};

/// The API group.
pub const GROUP: &str = "vd.csi.io";
/// The one version so far.
pub const VERSION: &str = "v1alpha1";

/// Set by an agent before it makes anything for an object; while it is there, there may be data.
pub const AGENT_FINALIZER: &str = "vd.csi.io/agent";
/// Set by an agent once the data of an object exists durably; the value is the UUID of the pool that holds it. An object that
/// has it and whose data is not there has lost it: nothing is made in its place.
pub const CREATED_ANNOTATION: &str = "vd.csi.io/created";
/// Set by csi-controller on a volume with a content source when it makes the object, and taken off before `CreateVolume` is answered
/// for the first time. While it is there, nobody can have made a PersistentVolume for it.
pub const UNANSWERED_ANNOTATION: &str = "vd.csi.io/unanswered";
/// Set by an administrator on a `LocalPool`: ids of orphans, separated by spaces, or `*` for all, for which objects are to be made.
pub const ADOPT_ANNOTATION: &str = "vd.csi.io/adopt";
/// The condition of volumes and snapshots that says whether they can be used.
pub const READY_CONDITION: &str = "Ready";

/// Every definition, in the order in which they are installed.
#[must_use]
pub fn definitions()
-> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>
{
    use kube::CustomResourceExt;
    vec![LocalPool::crd(), LocalSnapshot::crd(), LocalVolume::crd()]
}
