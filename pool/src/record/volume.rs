//! What is recorded of a volume.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use super::Timestamp;
use crate::id::{SnapshotId, VolumeId};

/// The record of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRecord {
    /// The volume's id, equal to its folder's name.
    pub id: VolumeId,
    /// The name the orchestrator chose.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// Counts the changes of this record.
    pub generation: u64,
    /// The size asked for, in bytes. A restore may be asked with the same figure.
    pub requested_bytes: u64,
    /// The size of the image in bytes, a multiple of 1 MiB.
    pub size_bytes: u64,
    /// The size the image is being grown to; recovery rolls forward to it.
    pub growing_to_bytes: Option<u64>,
    /// Whether all blocks are allocated ahead.
    pub provisioning: Provisioning,
    /// How pods see it.
    pub mode: VolumeMode,
    /// The access modes it was created for, by their CSI names, sorted.
    pub access_modes: Vec<String>,
    /// Where its first content came from.
    pub source: Option<Source>,
    /// The volume this one's content descends from; itself for a fresh volume. Objects of one lineage can share blocks.
    pub lineage: VolumeId,
    /// It was staged at least once, so a guest may have written to it.
    pub staged: bool,
}

/// Whether all blocks of an image are allocated ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provisioning {
    /// Sparse: blocks are allocated when they are written.
    Thin,
    /// `fallocate`d.
    Thick,
}

/// How pods see a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeMode {
    /// A raw block device.
    Block,
    /// A mounted filesystem.
    Filesystem(Format),
}

/// The filesystem in a volume. It is known from here and never from the bytes of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Format {
    /// Which filesystem.
    pub fs: FsType,
    /// Whether it is there yet.
    pub state: FormatState,
}

/// The filesystems a volume can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FsType {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
}

/// Whether a volume's filesystem was made.
///
/// `Unformatted -> Formatting -> Formatted`, each durable before the next act: mkfs runs only in `Formatting`, the first
/// mount only in `Formatted`. A crash in `Formatting` starts mkfs again, which loses nothing: it was never mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FormatState {
    /// All zeroes.
    Unformatted,
    /// mkfs may have started.
    Formatting,
    /// mkfs finished.
    Formatted,
    /// The content came from a snapshot or another volume that had some. It mounts or fails; it is never formatted.
    Inherited,
}

/// Where a volume's first content came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A restored snapshot.
    Snapshot(SnapshotId),
    /// A cloned volume.
    Volume(VolumeId),
}

impl VolumeRecord {
    /// The size the volume is charged with, in bytes: what it is or will be.
    #[must_use]
    pub fn charge_bytes(&self) -> u64 {
        self.size_bytes.max(self.growing_to_bytes.unwrap_or(0))
    }
}

impl VolumeMode {
    /// The filesystem, for a volume that has one.
    #[must_use]
    pub fn fs_type(self) -> Option<FsType> {
        match self {
            Self::Block => None,
            Self::Filesystem(format) => Some(format.fs),
        }
    }
}

impl FsType {
    /// The name that mount, mkfs and CSI use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

impl Display for FsType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl Display for Provisioning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Thin => "thin",
            Self::Thick => "thick",
        })
    }
}
