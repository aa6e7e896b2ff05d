//! The qcow2 header of a snapshot: wholly decided by the layout.

use crate::layout::{CLUSTER_BYTES, Layout};

const MAGIC: [u8; 4] = *b"QFI\xfb";
const VERSION: u32 = 3;
const CLUSTER_BITS: u32 = CLUSTER_BYTES.trailing_zeros();
/// log2 of the bits in one refcount: 16 bits.
const REFCOUNT_ORDER: u32 = 4;
/// The fields of version 3 and nothing behind them, so that the oldest reader of version 3 takes it.
const HEADER_LENGTH: u32 = 104;

/// The header cluster.
pub(crate) fn header_cluster(layout: &Layout) -> Vec<u8> {
    let place = |cluster: u64| (cluster * CLUSTER_BYTES).to_be_bytes();
    // Both counts are far below 2^32 for the largest disk: 131072 and 5.
    let count = |clusters: u64| u32::try_from(clusters).unwrap_or(u32::MAX).to_be_bytes();
    let none = [0u8; 8];
    let fields: [&[u8]; 18] = [
        &MAGIC,
        &VERSION.to_be_bytes(),
        &none,      // offset of the backing file's name
        &none[4..], // its length
        &CLUSTER_BITS.to_be_bytes(),
        &layout.virtual_bytes().to_be_bytes(),
        &none[4..], // no encryption
        &count(layout.l2_tables().count),
        &place(layout.l1_table().first),
        &place(layout.refcount_table().first),
        &count(layout.refcount_table().count),
        &none[4..], // no internal snapshots
        &none,      // their offset
        &none,      // incompatible features
        &none,      // compatible features
        &none,      // autoclear features
        &REFCOUNT_ORDER.to_be_bytes(),
        &HEADER_LENGTH.to_be_bytes(),
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
