//! Where the parts of an image are, so that they can be changed.

use std::fs::File;
use std::os::unix::fs::FileExt;

const OFFSET: u64 = ((1 << 56) - 1) & !511;
const COMPRESSED: u64 = 1 << 62;
/// So many L2 tables are looked at: a broken image has thousands, in places where nothing is.
const MOST_TABLES: usize = 16;

/// The fields of the header: where, and how many bytes.
pub const FIELDS: [(u64, usize); 19] = [
    (0, 4),   // magic
    (4, 4),   // version
    (8, 8),   // offset of the backing file's name
    (16, 4),  // its length
    (20, 4),  // cluster bits
    (24, 8),  // size
    (32, 4),  // encryption
    (36, 4),  // L1 entries
    (40, 8),  // L1 offset
    (48, 8),  // refcount table offset
    (56, 4),  // refcount table clusters
    (60, 4),  // snapshots
    (64, 8),  // their offset
    (72, 8),  // incompatible features
    (80, 8),  // compatible features
    (88, 8),  // autoclear features
    (96, 4),  // refcount order
    (100, 4), // header length
    (104, 8), // compression type and padding
];

/// An image taken apart. All places are bytes in the file.
#[derive(Clone, Debug, Default)]
pub struct Anatomy {
    /// The size of the file.
    pub file_bytes: u64,
    /// The size of a cluster.
    pub cluster_bytes: u64,
    /// Where header extensions begin.
    pub extensions: u64,
    /// Places of L1 entries.
    pub l1: Vec<u64>,
    /// Places of L2 entries that are not zero.
    pub l2: Vec<u64>,
    /// Places of some L2 entries that are zero.
    pub l2_empty: Vec<u64>,
    /// Places of entries of the refcount table that are not zero.
    pub refcount_table: Vec<u64>,
    /// Where refcount blocks begin.
    pub refcount_blocks: Vec<u64>,
    /// Where clusters with data begin.
    pub data: Vec<u64>,
    /// Where compressed data begins.
    pub compressed: Vec<u64>,
}

impl Anatomy {
    /// Takes an image apart. Of one that is not good it finds what it can.
    #[must_use]
    pub fn of(file: &File) -> Self {
        let number = |offset: u64, width: usize| {
            let mut bytes = [0; 8];
            // What cannot be read, in an image that is broken already, is zero.
            let _read = file.read_at(&mut bytes[8 - width..], offset).unwrap_or(0);
            u64::from_be_bytes(bytes)
        };
        let cluster_bits = number(20, 4).clamp(9, 21);
        let cluster = 1u64 << cluster_bits;
        let version = number(4, 4);
        let mut found = Self {
            file_bytes: file.metadata().expect("look at a seed").len(),
            cluster_bytes: cluster,
            extensions: if version < 3 { 72 } else { number(100, 4) },
            ..Self::default()
        };
        let entries = usize::try_from(number(36, 4).min(4096)).unwrap_or(0);
        let mut tables = 0;
        for (place, entry) in table(file, number(40, 8), entries) {
            found.l1.push(place);
            if entry & OFFSET != 0 && tables < MOST_TABLES {
                found.take_l2(file, entry & OFFSET, cluster_bits);
                tables += 1;
            }
        }
        for (place, block) in table(file, number(48, 8), found.entries()) {
            if block != 0 {
                found.refcount_table.push(place);
                found.refcount_blocks.push(block);
            }
        }
        found
    }

    /// Entries of 8 bytes in a cluster.
    fn entries(&self) -> usize {
        usize::try_from(self.cluster_bytes / 8).unwrap_or(0)
    }

    fn take_l2(&mut self, file: &File, offset: u64, cluster_bits: u64) {
        for (place, entry) in table(file, offset, self.entries()) {
            if entry == 0 {
                if self.l2_empty.len() < 64 {
                    self.l2_empty.push(place);
                }
                continue;
            }
            self.l2.push(place);
            if entry & COMPRESSED != 0 {
                self.compressed
                    .push(entry & ((1 << (70 - cluster_bits)) - 1));
            } else if entry & OFFSET != 0 {
                self.data.push(entry & OFFSET);
            }
        }
    }
}

/// The entries of a table, each with its place.
fn table(file: &File, offset: u64, entries: usize) -> Vec<(u64, u64)> {
    let mut bytes = vec![0; entries * 8];
    let _read = file.read_at(&mut bytes, offset).unwrap_or(0);
    let (entries, _) = bytes.as_chunks::<8>();
    (0..)
        .zip(entries)
        .map(|(index, entry)| (offset.wrapping_add(index * 8), u64::from_be_bytes(*entry)))
        .collect()
}
