//! Where everything lies in a snapshot file: the identity layout, format version 1.
//!
//! # The file
//!
//! A snapshot image is a qcow2 version 3 file with 64 KiB clusters and 16-bit reference counts: no backing file, no
//! external data file, no encryption, no internal snapshots, no compression, no feature bits. Every number in it is
//! big-endian. The virtual size V is a multiple of 64 KiB from 64 KiB to 64 TiB, and V alone decides where things lie.
//! The file is exactly M + V bytes long; `C` below is 65536.
//!
//! | Place (clusters, in this order) | What | How many clusters |
//! |---|---|---|
//! | 0 | header: 104 bytes of version 3 fields, then the 8 zero bytes that end the header extensions | 1 |
//! | then | refcount table, 8 bytes for each refcount block | `ceil(blocks / 8192)` |
//! | then | refcount blocks, 2 bytes for each cluster of the file | `blocks` = the least number that covers the file |
//! | then | L1 table, 8 bytes for each L2 table | `ceil(tables / 8192)` |
//! | then | L2 tables, 8 bytes for each data cluster | `tables` = `ceil(V / C / 8192)` |
//! | M / C .. | the disk: byte `d` of the disk is byte `M + d` of the file | `V / C` |
//!
//! M (`data_offset` in the record) is the sum of everything before the disk. There is room for a fully allocated disk,
//! so the place of a table never depends on what is allocated: M is 320 KiB up to 512 MiB, about 8 MiB for 50 GiB and
//! 160 MiB for 1 TiB, nearly all of it holes when the disk is sparse.
//!
//! # What is in use
//!
//! Data cluster `i` is allocated when any of its bytes was data, and not a hole, in the image file at the cut. Then its L2
//! entry is `M + i * C` with bit 63 (COPIED) set and its refcount is 1. Otherwise both are 0, and its bytes in the file
//! are a hole.
//! An L2 table is in use when one of its entries is not 0; its L1 entry is then its own place with bit 63 set, its
//! refcount 1. A refcount block is in use when one of its counts is not 0; its entry in the refcount table is then its
//! own place, its refcount 1. Tables and blocks not in use are zero, their entries and refcounts too. The clusters of
//! the header, the refcount table and the L1 table are always in use. So **the metadata is a function of V and the set
//! of allocated clusters**, which is what `verify` checks it against.
//!
//! # The metadata digest
//!
//! The record holds `metadata_digest`, 64 lower-case hex digits: the BLAKE3 hash of, for every 64 KiB cluster of the
//! first M bytes that is not all zero, in file order, the cluster's number as 8 bytes little-endian followed by the 32
//! byte BLAKE3 hash of its 65536 bytes. Whether zero bytes are stored or are holes makes no difference, so the digest
//! survives any faithful copy of the file. It covers every byte of the metadata, in use or not, and no byte of the disk.

use pool::{Error, ErrorKind, Result};

/// The size of a cluster in bytes.
pub const CLUSTER_BYTES: u64 = 64 * 1024;
/// The smallest virtual size in bytes: one cluster.
pub const MIN_VIRTUAL_BYTES: u64 = CLUSTER_BYTES;
/// The largest virtual size in bytes, 64 TiB. The whole file stays below 2^47 bytes, so no sum or product of places in
/// it can overflow.
pub const MAX_VIRTUAL_BYTES: u64 = 64 << 40;

/// Entries of 8 bytes in one cluster: of an L1 table, an L2 table or the refcount table.
pub(crate) const ENTRIES_PER_TABLE: u64 = CLUSTER_BYTES / 8;
/// Counts of 2 bytes in one refcount block.
pub(crate) const COUNTS_PER_BLOCK: u64 = CLUSTER_BYTES / 2;

/// Where everything lies in the snapshot file of a disk of one size. The module documentation above is the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    virtual_bytes: u64,
    refcount_table: Area,
    refcount_blocks: Area,
    l1_table: Area,
    l2_tables: Area,
}

/// A run of clusters of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    /// The first cluster.
    pub(crate) first: u64,
    /// How many there are.
    pub(crate) count: u64,
}

impl Area {
    pub(crate) fn end(self) -> u64 {
        self.first + self.count
    }

    pub(crate) fn after(previous: Self, count: u64) -> Self {
        Self {
            first: previous.end(),
            count,
        }
    }
}

impl Layout {
    /// The layout for a disk of `virtual_bytes` bytes.
    ///
    /// # Errors
    /// `OutOfRange` below [`MIN_VIRTUAL_BYTES`] and above [`MAX_VIRTUAL_BYTES`]; `InvalidInput` for a size that is not a
    /// multiple of [`CLUSTER_BYTES`].
    pub fn for_virtual_size(virtual_bytes: u64) -> Result<Self> {
        if !(MIN_VIRTUAL_BYTES..=MAX_VIRTUAL_BYTES).contains(&virtual_bytes) {
            return Err(Error::new(
                ErrorKind::OutOfRange,
                format!(
                    "a snapshot of {virtual_bytes} bytes cannot be made: a disk has {MIN_VIRTUAL_BYTES} to \
                     {MAX_VIRTUAL_BYTES} bytes"
                ),
            ));
        }
        if !virtual_bytes.is_multiple_of(CLUSTER_BYTES) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "a snapshot of {virtual_bytes} bytes cannot be made: the size of a disk is a multiple of \
                     {CLUSTER_BYTES} bytes"
                ),
            ));
        }
        let data = virtual_bytes / CLUSTER_BYTES;
        let l2 = data.div_ceil(ENTRIES_PER_TABLE);
        let l1 = l2.div_ceil(ENTRIES_PER_TABLE);
        let (table, blocks) = refcount_clusters(1 + l1 + l2 + data);
        let header = Area { first: 0, count: 1 };
        let refcount_table = Area::after(header, table);
        let refcount_blocks = Area::after(refcount_table, blocks);
        let l1_table = Area::after(refcount_blocks, l1);
        Ok(Self {
            virtual_bytes,
            refcount_table,
            refcount_blocks,
            l1_table,
            l2_tables: Area::after(l1_table, l2),
        })
    }

    /// The size of the disk in bytes (V).
    #[must_use]
    pub fn virtual_bytes(&self) -> u64 {
        self.virtual_bytes
    }

    /// Where the disk's first byte lies in the file (M): the size of the metadata area in bytes.
    #[must_use]
    pub fn data_offset(&self) -> u64 {
        self.metadata_clusters() * CLUSTER_BYTES
    }

    /// The size of the whole file in bytes (M + V), holes included.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.data_offset() + self.virtual_bytes
    }

    pub(crate) fn metadata_clusters(&self) -> u64 {
        self.l2_tables.end()
    }

    pub(crate) fn data_clusters(&self) -> u64 {
        self.virtual_bytes / CLUSTER_BYTES
    }

    pub(crate) fn refcount_table(&self) -> Area {
        self.refcount_table
    }

    pub(crate) fn refcount_blocks(&self) -> Area {
        self.refcount_blocks
    }

    pub(crate) fn l1_table(&self) -> Area {
        self.l1_table
    }

    pub(crate) fn l2_tables(&self) -> Area {
        self.l2_tables
    }

    /// What lies in cluster `cluster` of the file, for a message to a person.
    pub(crate) fn describe(&self, cluster: u64) -> &'static str {
        let areas = [
            (self.l2_tables, "an L2 table"),
            (self.l1_table, "the L1 table"),
            (self.refcount_blocks, "a refcount block"),
            (self.refcount_table, "the refcount table"),
        ];
        if cluster >= self.metadata_clusters() {
            return "the disk";
        }
        areas
            .iter()
            .find(|(area, _)| cluster >= area.first)
            .map_or("the header", |(_, name)| name)
    }
}

/// How many clusters the refcount table and the refcount blocks take beside `others` clusters, which they have to count
/// as well as themselves. Grows from one block to the least number that covers everything.
pub(crate) fn refcount_clusters(others: u64) -> (u64, u64) {
    let mut blocks = 1u64;
    loop {
        let table = blocks.div_ceil(ENTRIES_PER_TABLE);
        let needed = (others + table + blocks).div_ceil(COUNTS_PER_BLOCK);
        if needed <= blocks {
            return (table, blocks);
        }
        blocks = needed;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sizes() -> impl Strategy<Value = u64> {
        let clusters = MAX_VIRTUAL_BYTES / CLUSTER_BYTES;
        prop_oneof![1..=clusters, 1..=65536u64, (clusters - 65536)..=clusters]
            .prop_map(|clusters| clusters * CLUSTER_BYTES)
    }

    proptest! {
        #[test]
        fn areas_follow_each_other_without_gap_or_overlap(size in sizes()) {
            let layout = Layout::for_virtual_size(size).unwrap();
            prop_assert_eq!(layout.refcount_table.first, 1);
            prop_assert_eq!(layout.refcount_blocks.first, layout.refcount_table.end());
            prop_assert_eq!(layout.l1_table.first, layout.refcount_blocks.end());
            prop_assert_eq!(layout.l2_tables.first, layout.l1_table.end());
            prop_assert_eq!(layout.data_offset(), layout.l2_tables.end() * CLUSTER_BYTES);
            prop_assert_eq!(layout.file_bytes(), layout.data_offset() + size);
        }

        #[test]
        fn tables_have_room_for_every_cluster_and_none_too_many(size in sizes()) {
            let layout = Layout::for_virtual_size(size).unwrap();
            let all = layout.file_bytes() / CLUSTER_BYTES;
            let (blocks, tables) = (layout.refcount_blocks.count, layout.l2_tables.count);
            prop_assert!(blocks * COUNTS_PER_BLOCK >= all);
            prop_assert!((blocks - 1) * COUNTS_PER_BLOCK < all);
            prop_assert!(layout.refcount_table.count * ENTRIES_PER_TABLE >= blocks);
            prop_assert!((layout.refcount_table.count - 1) * ENTRIES_PER_TABLE < blocks);
            prop_assert!(tables * ENTRIES_PER_TABLE >= layout.data_clusters());
            prop_assert!((tables - 1) * ENTRIES_PER_TABLE < layout.data_clusters());
            prop_assert!(layout.l1_table.count * ENTRIES_PER_TABLE >= tables);
        }

        #[test]
        fn a_larger_disk_never_has_its_data_earlier(a in sizes(), b in sizes()) {
            let small = Layout::for_virtual_size(a.min(b)).unwrap();
            let large = Layout::for_virtual_size(a.max(b)).unwrap();
            prop_assert!(small.data_offset() <= large.data_offset());
        }

        #[test]
        fn sizes_outside_the_limits_are_refused(size in any::<u64>()) {
            let fits = size.is_multiple_of(CLUSTER_BYTES)
                && (MIN_VIRTUAL_BYTES..=MAX_VIRTUAL_BYTES).contains(&size);
            prop_assert_eq!(Layout::for_virtual_size(size).is_ok(), fits);
        }
    }

    #[test]
    fn metadata_area_has_the_sizes_the_format_promises() {
        let offset = |bytes| Layout::for_virtual_size(bytes).unwrap().data_offset();
        assert_eq!(offset(CLUSTER_BYTES), 5 * CLUSTER_BYTES);
        assert_eq!(offset(512 << 20), 5 * CLUSTER_BYTES);
        assert_eq!(offset((512 << 20) + CLUSTER_BYTES), 6 * CLUSTER_BYTES);
        assert_eq!(offset(50 << 30), (1 + 1 + 26 + 1 + 100) * CLUSTER_BYTES);
        assert_eq!(
            offset(MAX_VIRTUAL_BYTES),
            (1 + 5 + 32774 + 16 + 131_072) * CLUSTER_BYTES
        );
    }

    #[test]
    fn refused_sizes_say_why() {
        let kind = |bytes| Layout::for_virtual_size(bytes).unwrap_err().kind();
        assert_eq!(kind(0), ErrorKind::OutOfRange);
        assert_eq!(
            kind(MAX_VIRTUAL_BYTES + CLUSTER_BYTES),
            ErrorKind::OutOfRange
        );
        assert_eq!(kind(CLUSTER_BYTES + 512), ErrorKind::InvalidInput);
    }
}
