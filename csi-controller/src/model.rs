//! The words the services and a backend share: modes, sources, placement, volumes, snapshots.
//!
//! Plain values that were checked at the edge. Sizes are bytes. Node names are the values of the
//! driver's topology key (`proto::topology::value`), which is what callers send and receive.

use std::fmt;

/// A file system that a volume can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FsType {
    /// ext4, the default.
    Ext4,
    /// XFS; at least [`crate::size::XFS_MINIMUM_BYTES`].
    Xfs,
}

impl FsType {
    /// The name as Kubernetes and mount(8) spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FsType::Ext4 => "ext4",
            FsType::Xfs => "xfs",
        }
    }
}

/// What a volume is for its pods: a raw device or a mounted file system, never both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VolumeMode {
    /// A raw block device.
    Block,
    /// A file system made by the driver, or brought along by the content source.
    Filesystem(FsType),
}

impl fmt::Display for VolumeMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VolumeMode::Block => f.write_str("block"),
            VolumeMode::Filesystem(fs) => write!(f, "filesystem {}", fs.as_str()),
        }
    }
}

/// How the image of a snapshot is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// zstd.
    Zstd,
}

impl Compression {
    /// The value of the VolumeSnapshotClass parameter `compression`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Compression::Zstd => "zstd",
        }
    }
}

/// Whether the image's space is allocated when it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Provisioning {
    /// Sparse: space is taken as it is written (the default).
    #[default]
    Thin,
    /// Allocated in full at creation.
    Thick,
}

impl Provisioning {
    /// The value of the StorageClass parameter `provisioning`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Provisioning::Thin => "thin",
            Provisioning::Thick => "thick",
        }
    }
}

/// How the data of a snapshot is digested, so that it can be seen later whether it is still the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// BLAKE3.
    Blake3,
}

impl Checksum {
    /// The value of the VolumeSnapshotClass parameter `checksum`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Checksum::Blake3 => "blake3",
        }
    }
}

/// The access modes of a volume that lives on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AccessMode {
    /// Any number of writers on one node, the mode of old callers.
    SingleNodeWriter,
    /// Readers only, on one node.
    SingleNodeReaderOnly,
    /// One writer (ReadWriteOncePod).
    SingleNodeSingleWriter,
    /// Many writers on one node (ReadWriteOnce).
    SingleNodeMultiWriter,
}

impl AccessMode {
    /// The mode as CSI spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            AccessMode::SingleNodeWriter => "SINGLE_NODE_WRITER",
            AccessMode::SingleNodeReaderOnly => "SINGLE_NODE_READER_ONLY",
            AccessMode::SingleNodeSingleWriter => "SINGLE_NODE_SINGLE_WRITER",
            AccessMode::SingleNodeMultiWriter => "SINGLE_NODE_MULTI_WRITER",
        }
    }
}

/// Where the first content of a volume comes from, by id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Restored from this snapshot.
    Snapshot(String),
    /// Cloned from this volume.
    Volume(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Snapshot(id) => write!(f, "snapshot {id}"),
            Source::Volume(id) => write!(f, "volume {id}"),
        }
    }
}

/// The PersistentVolumeClaim that a volume is made for, as external-provisioner names it with `--extra-create-metadata`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The namespace of the claim.
    pub namespace: String,
    /// The name of the claim.
    pub name: String,
}

/// Which nodes an object may be placed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The object must be on one of these; empty means any node.
    pub requisite: Vec<String>,
    /// The caller's order of preference; all of them are in `requisite` unless that is empty.
    pub preferred: Vec<String>,
}

impl Placement {
    /// Whether an object may be placed on this node.
    #[must_use]
    pub fn allows(&self, node: &str) -> bool {
        self.requisite.is_empty() || self.requisite.iter().any(|name| name == node)
    }
}

/// A volume that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The id, as made by [`crate::ids::volume_id`].
    pub id: String,
    /// The size that was asked for when it was made or last expanded.
    pub requested_bytes: u64,
    /// The size of the image, which is what a pod sees.
    pub capacity_bytes: u64,
    /// Raw device or file system.
    pub mode: VolumeMode,
    /// Sparse or allocated.
    pub provisioning: Provisioning,
    /// Where its first content came from.
    pub source: Option<Source>,
    /// The nodes it can be used on: one, for a local volume.
    pub nodes: Vec<String>,
}

/// A snapshot that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The id, as made by [`crate::ids::snapshot_id`].
    pub id: String,
    /// The volume it was cut from, which may be gone.
    pub source_volume_id: String,
    /// The size that was asked for the source: CSI's `size_bytes`, so that a claim's own manifest
    /// can be restored.
    pub requested_bytes: u64,
    /// The virtual size of the image; a restored volume is at least this large.
    pub image_bytes: u64,
    /// The moment of the cut, in nanoseconds since 1970.
    pub created_unix_ns: i64,
    /// Whether it can be restored from: not one that is known to be damaged.
    pub ready_to_use: bool,
    /// What is known to be wrong with it: nothing is ever restored from it then.
    pub damage: Option<String>,
    /// How its image is compressed, or is to be, if that was asked for.
    pub compression: Option<Compression>,
    /// How its data is digested, if that was asked for.
    pub checksum: Option<Checksum>,
    /// What the source was.
    pub mode: VolumeMode,
    /// The nodes it can be restored on.
    pub nodes: Vec<String>,
}

/// What is wrong with a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HealthStatus {
    /// It works, but not as it should.
    Degraded,
    /// It cannot be used now.
    Inaccessible,
    /// Data was lost.
    DataLoss,
}

/// One problem of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthProblem {
    /// How bad it is.
    pub status: HealthStatus,
    /// One CamelCase word for machines; each pair of status and reason at most once per volume.
    pub reason: String,
    /// A sentence for a person that says what to do.
    pub message: String,
}

/// The known problems of one volume; none means healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeHealth {
    /// The volume.
    pub volume_id: String,
    /// Everything that is known to be wrong with it.
    pub problems: Vec<HealthProblem>,
}
