//! Why an image is refused.

use std::fmt::{self, Display};

/// Why an image is refused, as a name that programs can rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not a regular file: a folder, a link, a device, a pipe, a socket.
    NotARegularFile,
    /// No qcow2 file: the first bytes are others.
    NotQcow2,
    /// A version of qcow2 other than 2 and 3.
    Version,
    /// A cluster size that is not a power of two from 512 bytes to 2 MiB.
    ClusterSize,
    /// No disk, a disk that does not end with a sector, or one that is larger than any of ours.
    VirtualSize,
    /// A header that contradicts itself.
    Header,
    /// A header extension that does not fit into the header cluster.
    Extension,
    /// It names a backing file.
    BackingFile,
    /// Its data is in another file.
    DataFile,
    /// It is encrypted.
    Encryption,
    /// It holds internal snapshots.
    InternalSnapshots,
    /// It holds dirty bitmaps.
    Bitmaps,
    /// It uses extended L2 entries (subclusters).
    ExtendedL2,
    /// It was not closed by its last writer.
    Dirty,
    /// Its last user marked it as corrupt.
    Corrupt,
    /// It uses an incompatible feature that has no meaning to us.
    UnknownFeature,
    /// Its compression is neither zlib nor zstd, or it says two things about it.
    CompressionType,
    /// A table has no place, an impossible size, or does not reach as far as it has to.
    Table,
    /// Something lies, in whole or in part, outside of the file.
    OutsideFile,
    /// Something does not begin where a cluster begins.
    Misaligned,
    /// A reserved bit is set.
    ReservedBits,
    /// Two things lie in the same place.
    Overlap,
    /// The reference count of a cluster is not the number of its references, or the flag that says so is wrong.
    Refcount,
    /// Something is mapped behind the end of the disk.
    BeyondDisk,
    /// Compressed data that does not decode to exactly one cluster.
    CompressedData,
    /// It would expand beyond measure.
    CompressionBomb,
}

impl Reason {
    /// The name: lower case with dashes. Never changed once released.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotARegularFile => "not-a-regular-file",
            Self::NotQcow2 => "not-qcow2",
            Self::Version => "version",
            Self::ClusterSize => "cluster-size",
            Self::VirtualSize => "virtual-size",
            Self::Header => "header",
            Self::Extension => "extension",
            Self::BackingFile => "backing-file",
            Self::DataFile => "data-file",
            Self::Encryption => "encryption",
            Self::InternalSnapshots => "internal-snapshots",
            Self::Bitmaps => "bitmaps",
            Self::ExtendedL2 => "extended-l2",
            Self::Dirty => "dirty",
            Self::Corrupt => "corrupt",
            Self::UnknownFeature => "unknown-feature",
            Self::CompressionType => "compression-type",
            Self::Table => "table",
            Self::OutsideFile => "outside-file",
            Self::Misaligned => "misaligned",
            Self::ReservedBits => "reserved-bits",
            Self::Overlap => "overlap",
            Self::Refcount => "refcount",
            Self::BeyondDisk => "beyond-disk",
            Self::CompressedData => "compressed-data",
            Self::CompressionBomb => "compression-bomb",
        }
    }
}

impl Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// An image is refused: why, and where that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// What is wrong and, where there is something, what to do, for a person.
    pub text: String,
    /// Where in the file it was found, in bytes.
    pub offset: Option<u64>,
    /// The size of the disk in bytes, where the header could be trusted that far.
    pub virtual_bytes: Option<u64>,
}

impl Refusal {
    /// Without a place.
    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self {
            reason,
            text: text.into(),
            offset: None,
            virtual_bytes: None,
        }
    }

    /// Found at byte `offset` of the file.
    pub(crate) fn at(reason: Reason, offset: u64, text: impl Into<String>) -> Self {
        Self {
            offset: Some(offset),
            ..Self::new(reason, text)
        }
    }
}

impl Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            Some(offset) => write!(out, "byte {offset}: {} ({})", self.text, self.reason),
            None => write!(out, "{} ({})", self.text, self.reason),
        }
    }
}

/// Why a check ended without an image to read.
#[derive(Debug)]
pub enum Failure {
    /// The image is refused. Asking again gives the same answer.
    Refused(Refusal),
    /// The file could not be read, or changed while it was read: nothing is known of the image.
    Unreadable(pool::Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<pool::Error> for Failure {
    fn from(error: pool::Error) -> Self {
        Self::Unreadable(error)
    }
}

impl Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => Display::fmt(refusal, out),
            Self::Unreadable(error) => Display::fmt(error, out),
        }
    }
}

impl std::error::Error for Failure {}
