//! What is recorded of a snapshot.

use serde::{Deserialize, Serialize};

use super::{Timestamp, VolumeMode};
use crate::id::{SnapshotId, VolumeId};

/// The record of a snapshot. It never changes once the snapshot exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRecord {
    /// The snapshot's id, equal to its folder's name.
    pub id: SnapshotId,
    /// The name the orchestrator chose.
    pub name: String,
    /// The volume it was cut from, which may be gone.
    pub source_volume: VolumeId,
    /// The lineage of the source: see [`super::VolumeRecord::lineage`].
    pub lineage: VolumeId,
    /// The instant of the cut.
    pub created: Timestamp,
    /// The size asked for the source, in bytes: what CSI calls `size_bytes`.
    pub requested_bytes: u64,
    /// The size of the source's image when it was cut, in bytes: the virtual size in the qcow2 header.
    pub virtual_bytes: u64,
    /// What the snapshot can come to hold alone, in bytes: allocated data and metadata.
    pub charge_bytes: u64,
    /// How pods saw the source.
    pub mode: VolumeMode,
    /// Where in the image file the disk's bytes lie in one piece, in bytes (identity layout).
    pub data_offset: u64,
    /// BLAKE3 of the qcow2 metadata (header, L1, L2, refcounts), 64 hex digits.
    pub metadata_digest: String,
    /// Runs of data found when it was cut; restore and deletion cost about 25 us for each on XFS.
    pub extents: u64,
    /// How long writers of the source were held back, in microseconds.
    pub stall_us: u64,
}
