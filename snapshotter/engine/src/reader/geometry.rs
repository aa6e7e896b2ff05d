//! The numbers that follow from an image's header.

/// The smallest cluster has 2^9 bytes.
pub(crate) const MIN_CLUSTER_BITS: u32 = 9;
/// The largest cluster has 2^21 bytes.
pub(crate) const MAX_CLUSTER_BITS: u32 = 21;

/// What decides the size and the form of every other structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// 2 or 3.
    pub(crate) version: u32,
    /// log2 of the bytes in a cluster: 9 to 21.
    pub(crate) cluster_bits: u32,
    /// log2 of the bits in a reference count: 0 to 6.
    pub(crate) refcount_order: u32,
    /// The size of the file in bytes, as the filesystem has it.
    pub(crate) file_bytes: u64,
}

impl Geometry {
    pub(crate) fn cluster_bytes(self) -> u64 {
        1 << self.cluster_bits
    }

    /// Entries of 8 bytes in an L2 table: one cluster.
    pub(crate) fn entries_per_l2(self) -> u64 {
        self.cluster_bytes() / 8
    }

    /// Bytes of the disk that one L2 table maps.
    pub(crate) fn bytes_per_l2(self) -> u64 {
        self.entries_per_l2() << self.cluster_bits
    }

    /// Reference counts in one refcount block: one cluster.
    pub(crate) fn counts_per_block(self) -> u64 {
        (self.cluster_bytes() * 8) >> self.refcount_order
    }

    /// How many bits of an L2 entry hold the place of compressed data. The rest, up to bit 61, counts its sectors.
    pub(crate) fn compressed_offset_bits(self) -> u32 {
        62 - (self.cluster_bits - 8)
    }
}
