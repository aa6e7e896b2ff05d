//! What is recorded of a snapshot.

use serde::{Deserialize, Serialize};

use super::{Damage, DataChecksum, Timestamp, VolumeMode};
use crate::id::{SnapshotId, VolumeId};

/// The record of a snapshot. What it says of the cut never changes; how the image is packed, and what is known of the data, does.
///
/// Fields that came with version 2 are left out where they say nothing: a record without them is of version 1.
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
    /// Where in the image file the disk's bytes begin, in bytes: in one piece (identity layout), or packed. Everything
    /// before is metadata.
    pub data_offset: u64,
    /// BLAKE3 of the qcow2 metadata (header, L1, L2, refcounts), 64 hex digits.
    pub metadata_digest: String,
    /// Runs of data found when it was cut; restore and deletion cost about 25 us for each on XFS.
    pub extents: u64,
    /// How long writers of the source were held back, in microseconds.
    pub stall_us: u64,
    /// Whether the image is compressed, or is to be.
    #[serde(default, skip_serializing_if = "Packing::is_none")]
    pub packing: Packing,
    /// The digest of the data, if the class of the snapshot asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<DataChecksum>,
    /// What was found wrong with metadata or data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<Damage>,
}

/// What becomes of an image after the cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Packing {
    /// Nothing: it stays in the identity layout.
    #[default]
    None,
    /// It is in the identity layout, and is to be compressed in the background.
    Wanted(Compression),
    /// It is compressed, in the packed layout.
    Done(Packed),
}

/// How clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// zstd, each cluster by itself.
    Zstd,
}

/// What is known of a packed image. It is compressed with zstd: there is no other way yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packed {
    /// How it is compressed.
    pub compression: Compression,
    /// The size of the file in bytes.
    pub file_bytes: u64,
}

impl Packing {
    /// Whether there is nothing to say of it.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Whether the image is still to be compressed.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        matches!(self, Self::Wanted(_))
    }
}

impl SnapshotRecord {
    /// The format version that this record is of: 2 with fields that version 1 does not have.
    pub(crate) fn version(&self) -> u32 {
        let first = self.packing.is_none() && self.checksum.is_none() && self.damage.is_none();
        if first { 1 } else { 2 }
    }
}
