//! The qcow2 header of the files that we write.

use crate::layout::{Area, CLUSTER_BYTES, Layout};

const MAGIC: [u8; 4] = *b"QFI\xfb";
const VERSION: u32 = 3;
const CLUSTER_BITS: u32 = CLUSTER_BYTES.trailing_zeros();
/// log2 of the bits in one refcount: 16 bits.
const REFCOUNT_ORDER: u32 = 4;
/// The fields of version 3 and nothing behind them, so that the oldest reader of version 3 takes it.
const HEADER_LENGTH: u32 = 104;
/// With the compression type and its padding, which images with compressed clusters need.
const LONG_HEADER_LENGTH: u32 = 112;
/// The incompatible feature that says that the compression type counts.
const COMPRESSION_TYPE: u64 = 1 << 3;
const ZSTD: u8 = 1;

/// What a header says of one file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    /// The size of the disk in bytes.
    pub(crate) virtual_bytes: u64,
    /// L2 tables of a disk of that size.
    pub(crate) l2_tables: u64,
    /// Clusters of the file.
    pub(crate) l1_table: Area,
    pub(crate) refcount_table: Area,
    /// Clusters may be compressed with zstd.
    pub(crate) zstd: bool,
}

/// The header cluster of the identity layout.
pub(crate) fn header_cluster(layout: &Layout) -> Vec<u8> {
    header_of(&Places {
        virtual_bytes: layout.virtual_bytes(),
        l2_tables: layout.l2_tables().count,
        l1_table: layout.l1_table(),
        refcount_table: layout.refcount_table(),
        zstd: false,
    })
}

/// The header cluster of any file of ours.
pub(crate) fn header_of(places: &Places) -> Vec<u8> {
    let place = |cluster: u64| (cluster * CLUSTER_BYTES).to_be_bytes();
    // Both counts are far below 2^32 for the largest disk: 131072 and 5.
    let count = |clusters: u64| u32::try_from(clusters).unwrap_or(u32::MAX).to_be_bytes();
    let none = [0u8; 8];
    let (length, features, compression) = match places.zstd {
        false => (HEADER_LENGTH, 0, 0),
        true => (LONG_HEADER_LENGTH, COMPRESSION_TYPE, ZSTD),
    };
    let fields: [&[u8]; 19] = [
        &MAGIC,
        &VERSION.to_be_bytes(),
        &none,      // offset of the backing file's name
        &none[4..], // its length
        &CLUSTER_BITS.to_be_bytes(),
        &places.virtual_bytes.to_be_bytes(),
        &none[4..], // no encryption
        &count(places.l2_tables),
        &place(places.l1_table.first),
        &place(places.refcount_table.first),
        &count(places.refcount_table.count),
        &none[4..],              // no internal snapshots
        &none,                   // their offset
        &features.to_be_bytes(), // incompatible features
        &none,                   // compatible features
        &none,                   // autoclear features
        &REFCOUNT_ORDER.to_be_bytes(),
        &length.to_be_bytes(),
        &[compression],
    ];
    let mut cluster = fields.concat();
    // The zero bytes behind the fields are at the same time the end of the (empty) list of header extensions.
    cluster.resize(cluster_len(), 0);
    cluster
}

/// The size of a cluster as a length in memory.
pub(crate) const fn cluster_len() -> usize {
    1 << CLUSTER_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields_lie_where_qcow2_wants_them() {
        let layout = Layout::for_virtual_size(3 << 40).unwrap();
        let header = header_cluster(&layout);
        let u32_at = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().unwrap());
        assert_eq!(header.len(), cluster_len());
        assert_eq!(&header[..4], b"QFI\xfb");
        assert_eq!(u32_at(4), 3);
        assert_eq!(u64_at(8), 0, "no backing file");
        assert_eq!(u32_at(20), 16);
        assert_eq!(u64_at(24), 3 << 40);
        assert_eq!(u32_at(32), 0, "no encryption");
        assert_eq!(u32_at(36), 6144);
        assert_eq!(u64_at(40), layout.l1_table().first * CLUSTER_BYTES);
        assert_eq!(u64_at(48), CLUSTER_BYTES);
        assert_eq!(u32_at(56), 1);
        assert_eq!(u32_at(60), 0, "no snapshots");
        assert_eq!(u64_at(72), 0, "no incompatible features");
        assert_eq!(u32_at(96), 4);
        assert_eq!(u32_at(100), 104);
        assert!(header[104..].iter().all(|byte| *byte == 0));
    }
}
