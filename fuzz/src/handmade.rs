//! Images put together byte by byte: those that no tool would make.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};

/// An image in memory whose file may be much larger than what is in it.
#[derive(Debug)]
pub struct Handmade {
    file: File,
    cluster_bits: u32,
    /// The first cluster that nothing lies in yet.
    free: u64,
    refcount_table: u64,
}

/// The flag of entries whose target has one reference.
pub const COPIED: u64 = 1 << 63;
/// The flag of compressed clusters.
pub const COMPRESSED: u64 = 1 << 62;
/// A count of 16 bits.
const COUNT_BYTES: u64 = 2;

impl Handmade {
    /// An image of version 3 with a disk of `virtual_bytes`, counts of 16 bits, a refcount table of one cluster and an L1
    /// table of `l1_entries`. All that is there is counted.
    #[must_use]
    pub fn new(cluster_bits: u32, virtual_bytes: u64, l1_entries: u32) -> (Self, u64) {
        let file = memfd_create("handmade", MFdFlags::MFD_CLOEXEC).expect("a file in memory");
        let cluster = 1u64 << cluster_bits;
        let mut made = Self {
            file: File::from(file),
            cluster_bits,
            free: 2,
            refcount_table: cluster,
        };
        made.count(0, 1);
        made.count(1, 1);
        let l1 = made.place((u64::from(l1_entries) * 8).div_ceil(cluster));
        let header = [
            &b"QFI\xfb\0\0\0\x03"[..],
            &[0; 12],
            &cluster_bits.to_be_bytes(),
            &virtual_bytes.to_be_bytes(),
            &[0; 4],
            &l1_entries.to_be_bytes(),
            &l1.to_be_bytes(),
            &cluster.to_be_bytes(),
            &1u32.to_be_bytes(),
            &[0; 36],
            &4u32.to_be_bytes(),
            &104u32.to_be_bytes(),
        ];
        made.write(0, &header.concat());
        (made, l1)
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes bytes.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        self.file
            .write_all_at(bytes, offset)
            .expect("write an image");
    }

    /// Writes entries one behind the other.
    pub fn entries(&self, offset: u64, entries: impl IntoIterator<Item = u64>) {
        let bytes: Vec<u8> = entries.into_iter().flat_map(u64::to_be_bytes).collect();
        self.write(offset, &bytes);
    }

    /// Takes `clusters` new ones, counted once each, and returns where they begin. They are holes.
    pub fn place(&mut self, clusters: u64) -> u64 {
        let first = self.free;
        self.free += clusters;
        for cluster in first..self.free {
            self.count(cluster, 1);
        }
        let end = self.free << self.cluster_bits;
        if self.file.metadata().expect("look at an image").len() < end {
            self.file.set_len(end).expect("size an image");
        }
        first << self.cluster_bits
    }

    /// Sets the reference count of a cluster, in a refcount block that is made if there is none.
    pub fn count(&mut self, cluster: u64, count: u16) {
        let per_block = (1u64 << self.cluster_bits) / COUNT_BYTES;
        let entry = self.refcount_table + cluster / per_block * 8;
        let mut bytes = [0; 8];
        let _read = self.file.read_at(&mut bytes, entry).expect("read an image");
        let mut block = u64::from_be_bytes(bytes);
        if block == 0 {
            block = self.free << self.cluster_bits;
            self.free += 1;
            self.entries(entry, [block]);
            self.file
                .set_len(self.free << self.cluster_bits)
                .expect("size an image");
            self.count(block >> self.cluster_bits, 1);
        }
        let place = block + cluster % per_block * COUNT_BYTES;
        self.write(place, &count.to_be_bytes());
    }
}
