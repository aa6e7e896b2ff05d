//! What the Controller service needs from whatever keeps the volumes.
//!
//! There are two kinds of backend: the pool of this node in the same process, and Kubernetes
//! custom resources that a node agent acts on. The service checks requests and chooses gRPC
//! codes; a backend gets checked values and answers with values or a [`Failure`], never with gRPC
//! types.
//!
//! Every method may be called again with the same arguments at any time, also while the first
//! call still runs: an identical call joins the running work, a different operation on the same
//! object fails with `Kind::Busy`. Dropping a returned future does not stop work that has begun.

use proto::errors::Failure;

use crate::model::{
    AccessMode, Checksum, Claim, Compression, Placement, Provisioning, Snapshot, Source, Volume,
    VolumeHealth, VolumeMode,
};

/// The answer of every backend method.
pub type Result<T> = std::result::Result<T, Failure>;

/// A volume to be made. Everything is decided: a backend does not round or default anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateVolume {
    /// Derived from the name; safe as a file name and as an object name.
    pub id: String,
    /// The caller's name for it, any Unicode, to be kept for people.
    pub name: String,
    /// The size asked for, to be kept.
    pub requested_bytes: u64,
    /// The size of the image to make.
    pub capacity_bytes: u64,
    /// Raw device or file system. With a source the file system comes with the content and is
    /// never made.
    pub mode: VolumeMode,
    /// Sparse or allocated.
    pub provisioning: Provisioning,
    /// The access modes that were asked for, sorted, each once, at least one.
    pub access_modes: Vec<AccessMode>,
    /// Where the content comes from.
    pub source: Option<Source>,
    /// The nodes it may be placed on.
    pub placement: Placement,
    /// The claim it is made for, if the caller says so. It decides nothing about the volume itself.
    pub claim: Option<Claim>,
}

/// A snapshot to be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSnapshot {
    /// Derived from the name; safe as a file name and as an object name.
    pub id: String,
    /// The caller's name for it, any Unicode, to be kept for people.
    pub name: String,
    /// The volume to cut it from.
    pub source_volume_id: String,
    /// The image is to be compressed once it is there.
    pub compression: Option<Compression>,
    /// How its data is to be digested, after the cut.
    pub checksum: Option<Checksum>,
}

/// A volume to be grown to at least a size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpandVolume {
    /// The volume.
    pub id: String,
    /// The size asked for, to be kept if the volume grows; 0 if the caller named only a limit.
    pub requested_bytes: u64,
    /// The size of the image afterwards; a volume that has it already is left as it is.
    pub capacity_bytes: u64,
}

/// What a volume would have to look like, to ask how much of it there is room for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapacityQuery {
    /// Block or file system, if the caller said so.
    pub mode: Option<VolumeMode>,
    /// Sparse or allocated.
    pub provisioning: Provisioning,
    /// Only the room on this node; `None` means the sum of all nodes.
    pub node: Option<String>,
}

/// Room for volumes, in bytes. A node that does not exist has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// What all new volumes together may come to.
    pub available_bytes: u64,
    /// What one new volume may come to.
    pub maximum_bytes: u64,
}

/// A volume, and where it is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeDetail {
    /// The volume.
    pub volume: Volume,
    /// The ids of the nodes on which it is published now.
    pub published_node_ids: Vec<String>,
}

/// Which snapshots to list. A filter that names nothing is an empty list, not a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// Only snapshots of this volume.
    pub source_volume_id: Option<String>,
    /// Only this snapshot.
    pub snapshot_id: Option<String>,
}

/// A part of a list that is in ascending order of ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries after the given id, at most as many as asked for.
    pub items: Vec<T>,
    /// The id to continue after, if there are more entries. It need not exist any more by then.
    pub next: Option<String>,
}

/// Keeps volumes and snapshots.
///
/// Every id that a backend is handed has a form that [`crate::ids`] makes: any other string names
/// nothing, and the service answers that itself.
#[tonic::async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Whether volumes can be served now.
    ///
    /// # Errors
    /// `Unavailable`, `Precondition` or `Busy` mean "not ready, and this is why"; other kinds mean
    /// that it will not become ready by itself.
    async fn probe(&self) -> Result<()>;

    /// Makes a volume, or finds the one that has this id already.
    ///
    /// The volume that is returned exists durably. One that existed before is returned as it is,
    /// also when it differs from what was asked: the service compares it and answers
    /// ALREADY_EXISTS (a backend may also fail with `Conflict` itself).
    ///
    /// # Errors
    /// `NotFound` if the source does not exist; `NoSpace` if no allowed node has room, after
    /// everything begun was undone; `Busy` while something else happens to this id.
    async fn create_volume(&self, request: CreateVolume) -> Result<Volume>;

    /// Deletes a volume. Snapshots and clones of it live on. Nothing to delete is a success.
    ///
    /// # Errors
    /// `InUse` while it is published; `Busy` while it is copied from.
    async fn delete_volume(&self, id: &str) -> Result<()>;

    /// One volume, and where it is in use.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` if its record is damaged.
    async fn get_volume(&self, id: &str) -> Result<VolumeDetail>;

    /// Volumes in order of their ids, those after `after`, at most `max` (at least 1).
    ///
    /// A list made directly after a create or a delete shows its effect.
    ///
    /// # Errors
    /// Those of reading the pool.
    async fn list_volumes(&self, after: Option<&str>, max: usize) -> Result<Page<Volume>>;

    /// The room for new volumes.
    ///
    /// # Errors
    /// Those of reading the pool.
    async fn capacity(&self, query: CapacityQuery) -> Result<Capacity>;

    /// Grows a volume's image, in use or not, and its device if it is attached; never shrinks.
    /// The file system is grown later, by the node. Returns the volume as it is afterwards.
    ///
    /// # Errors
    /// `NotFound`; `NoSpace`, with nothing changed; `Busy` while something else happens to it.
    async fn expand_volume(&self, request: ExpandVolume) -> Result<Volume>;

    /// Cuts a snapshot, or finds the one that has this id already.
    ///
    /// Returns only after the cut was made: callers thaw their guest on success. One that existed
    /// before is returned as it is, also when it is of another volume: the service compares it.
    ///
    /// # Errors
    /// `NotFound` if the source does not exist; `Precondition` if a consistent cut is not
    /// possible now; `NoSpace` after everything begun was undone; `Busy` while something else
    /// happens to this id.
    async fn create_snapshot(&self, request: CreateSnapshot) -> Result<Snapshot>;

    /// Deletes a snapshot. Volumes made from it live on. Nothing to delete is a success.
    ///
    /// # Errors
    /// `Busy` while it is restored from.
    async fn delete_snapshot(&self, id: &str) -> Result<()>;

    /// One snapshot.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` if its record is damaged.
    async fn get_snapshot(&self, id: &str) -> Result<Snapshot>;

    /// Snapshots that match, in order of their ids, those after `after`, at most `max`
    /// (at least 1).
    ///
    /// # Errors
    /// Those of reading the pool.
    async fn list_snapshots(
        &self,
        filter: &SnapshotFilter,
        after: Option<&str>,
        max: usize,
    ) -> Result<Page<Snapshot>>;

    /// The known problems of one volume, also of one that is damaged.
    ///
    /// # Errors
    /// `NotFound`.
    async fn volume_health(&self, id: &str) -> Result<VolumeHealth>;

    /// The volumes that have problems, in order of their ids, those after `after`, at most `max`
    /// (at least 1).
    ///
    /// # Errors
    /// Those of reading the pool.
    async fn list_volume_health(
        &self,
        after: Option<&str>,
        max: usize,
    ) -> Result<Page<VolumeHealth>>;
}
