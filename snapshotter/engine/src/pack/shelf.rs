//! Where packed clusters go, and the tables that say so.
//!
//! Clusters come in the order of the disk. A plain one takes the next free cluster of the file. A stream goes right behind the
//! stream before it, where it fits; what does not fit begins in that cluster and ends in the next one if that is free, and else
//! begins in a free one. So no cluster of the disk takes more than one new cluster of the file, and the file never becomes
//! larger than with plain clusters alone. All of this is what `qemu-img convert -c` does too, but for the order.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use blake3::{Hash, Hasher};
use pool::{Context, Result};

use super::pieces::{Piece, Place};
use crate::compact::{Compact, area_len};
use crate::header::{Places, cluster_len, header_of};
use crate::layout::{CLUSTER_BYTES, COUNTS_PER_BLOCK, ENTRIES_PER_TABLE};
use crate::reader::Extent;
use crate::tables::{COPIED, set_entry};

/// Bit 62 of an L2 entry: what it points to is compressed.
const COMPRESSED: u64 = 1 << 62;
/// Where in the entry of a compressed cluster the number of its further sectors stands, for clusters of 64 KiB.
const SECTORS_AT: u32 = 54;
const SECTOR: u64 = 512;

/// What takes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A cluster as it is.
    Plain,
    /// A stream of so many bytes, fewer than a cluster has.
    Stream(u64),
}

impl Item {
    /// How the tables tell of it when it is at byte `place` of the file: of streams they know the sectors.
    pub(crate) fn at(self, place: u64) -> Place {
        match self {
            Self::Plain => Place::Plain(place),
            Self::Stream(bytes) => Place::Stream(Extent {
                offset: place,
                end: (place + bytes).next_multiple_of(SECTOR),
            }),
        }
    }
}

/// The digest of what is where, in the order of the disk: for who reads the tables again.
#[derive(Debug, Default)]
pub(crate) struct PlacesSum(Hasher);

impl PlacesSum {
    pub(crate) fn add(&mut self, piece: &Piece) {
        let range = piece.place.range();
        for number in [piece.cluster, range.start, range.end] {
            self.0.update(&number.to_le_bytes());
        }
    }

    pub(crate) fn finish(&self) -> Hash {
        self.0.finalize()
    }
}

/// See the module. Memory: the L1 table, the refcount table, one L2 table, and a few refcount blocks.
#[derive(Debug)]
pub(crate) struct Shelf<'f> {
    target: &'f File,
    compact: Compact,
    zstd: bool,
    /// The first cluster of the file that nothing is in.
    free: u64,
    /// Where the next stream may begin; a cluster's beginning where none may.
    open: u64,
    l1: Vec<u8>,
    /// The L2 table being filled, and its number on the disk.
    l2: Vec<u8>,
    table: Option<u64>,
    tables_done: u64,
    refcount_table: Vec<u8>,
    /// Refcount blocks that may still change.
    counts: BTreeMap<u64, Vec<u8>>,
}

impl<'f> Shelf<'f> {
    pub(crate) fn new(target: &'f File, compact: Compact, zstd: bool) -> Self {
        Self {
            target,
            compact,
            zstd,
            free: compact.data.first,
            open: 0,
            l1: vec![0; area_len(compact.l1_table)],
            l2: vec![0; cluster_len()],
            table: None,
            tables_done: 0,
            refcount_table: vec![0; area_len(compact.refcount_table)],
            counts: BTreeMap::new(),
        }
    }

    /// How large the file is with everything that was placed so far, in bytes.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.free * CLUSTER_BYTES
    }

    /// Finds the place of cluster `cluster` of the disk, and enters it into the tables. Clusters have to ascend.
    ///
    /// # Errors
    /// When a table that is full cannot be written: `NoSpace`, `Io`.
    pub(crate) fn place(&mut self, cluster: u64, item: Item) -> Result<u64> {
        let (place, entry) = match item {
            Item::Plain => {
                let place = self.take_cluster() * CLUSTER_BYTES;
                self.count(place / CLUSTER_BYTES);
                (place, place | COPIED)
            }
            Item::Stream(bytes) => {
                let place = self.take_bytes(bytes);
                let more_sectors = (place + bytes - 1) / SECTOR - place / SECTOR;
                (place, place | COMPRESSED | more_sectors << SECTORS_AT)
            }
        };
        self.enter(cluster, entry)?;
        self.flush_counts()?;
        Ok(place)
    }

    fn take_cluster(&mut self) -> u64 {
        self.free += 1;
        self.free - 1
    }

    fn take_bytes(&mut self, bytes: u64) -> u64 {
        let left = self.open.next_multiple_of(CLUSTER_BYTES) - self.open;
        let continues = self.open.div_ceil(CLUSTER_BYTES) == self.free;
        let place = if bytes <= left {
            self.open
        } else if left > 0 && continues {
            let _next = self.take_cluster();
            self.open
        } else {
            self.take_cluster() * CLUSTER_BYTES
        };
        self.open = place + bytes;
        for cluster in place / CLUSTER_BYTES..=(self.open - 1) / CLUSTER_BYTES {
            self.count(cluster);
        }
        place
    }

    fn count(&mut self, cluster: u64) {
        let block = self.counts.entry(cluster / COUNTS_PER_BLOCK);
        let block = block.or_insert_with(|| vec![0; cluster_len()]);
        let (counts, _) = block.as_chunks_mut::<2>();
        let index = usize::try_from(cluster % COUNTS_PER_BLOCK).unwrap_or(usize::MAX);
        if let Some(count) = counts.get_mut(index) {
            // A stream has at least some ten bytes, so a cluster never holds as many as could not be counted.
            *count = u16::from_be_bytes(*count).saturating_add(1).to_be_bytes();
        }
    }

    fn enter(&mut self, cluster: u64, entry: u64) -> Result<()> {
        let table = cluster / ENTRIES_PER_TABLE;
        if self.table != Some(table) {
            self.finish_table()?;
            self.table = Some(table);
        }
        set_entry(&mut self.l2, cluster % ENTRIES_PER_TABLE, entry);
        Ok(())
    }

    fn finish_table(&mut self) -> Result<()> {
        if let Some(table) = self.table.take() {
            let place = self.compact.l2_tables.first + self.tables_done;
            self.write(place, &self.l2)?;
            self.l2.fill(0);
            set_entry(&mut self.l1, table, (place * CLUSTER_BYTES) | COPIED);
            self.tables_done += 1;
        }
        Ok(())
    }

    /// Writes the refcount blocks that cannot change any more: not those that count metadata, the cluster that streams still go
    /// to, or clusters to come.
    fn flush_counts(&mut self) -> Result<()> {
        let metadata = (self.compact.data.first - 1) / COUNTS_PER_BLOCK;
        let open = self.open / CLUSTER_BYTES / COUNTS_PER_BLOCK;
        let coming = self.free / COUNTS_PER_BLOCK;
        let may_change = |block: u64| block <= metadata || block == open || block >= coming;
        while let Some(block) = self
            .counts
            .keys()
            .copied()
            .find(|block| !may_change(*block))
        {
            self.write_block(block)?;
        }
        Ok(())
    }

    fn write_block(&mut self, block: u64) -> Result<()> {
        if let Some(bytes) = self.counts.remove(&block) {
            let place = self.compact.refcount_blocks.first + block;
            self.write(place, &bytes)?;
            set_entry(&mut self.refcount_table, block, place * CLUSTER_BYTES);
        }
        Ok(())
    }

    /// Writes what is left of the tables, and the header last. Returns the size of the file, in bytes.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.finish_table()?;
        self.write(self.compact.l1_table.first, &self.l1)?;
        self.count_metadata();
        while let Some(block) = self.counts.keys().next().copied() {
            self.write_block(block)?;
        }
        self.write(self.compact.refcount_table.first, &self.refcount_table)?;
        let header = header_of(&Places {
            virtual_bytes: self.compact.virtual_bytes,
            l2_tables: self.compact.l1_entries,
            l1_table: self.compact.l1_table,
            refcount_table: self.compact.refcount_table,
            zstd: self.zstd,
        });
        self.write(0, &header)?;
        // XFS sets room aside behind the end of a file that grows. Only a size that is not larger gives it back, so not the first
        // of the two, where the last stream does not fill its cluster.
        for _grown_then_cut in 0..2 {
            self.target
                .set_len(self.file_bytes())
                .during("size the packed image")?;
        }
        Ok(self.file_bytes())
    }

    fn count_metadata(&mut self) {
        let (table, blocks) = (self.compact.refcount_table, self.compact.refcount_blocks);
        let (l1, l2) = (self.compact.l1_table, self.compact.l2_tables);
        let always = (0..table.end())
            .chain(l1.first..l1.end())
            .chain(l2.first..l2.first + self.tables_done);
        for cluster in always {
            self.count(cluster);
        }
        // Every block up to the last one is in use, also one that counts nothing but tables that were not needed.
        let last = self.free.saturating_sub(1) / COUNTS_PER_BLOCK;
        let metadata = (self.compact.data.first - 1) / COUNTS_PER_BLOCK;
        for block in 0..=metadata {
            let _there = self
                .counts
                .entry(block)
                .or_insert_with(|| vec![0; cluster_len()]);
        }
        for block in 0..=last {
            self.count(blocks.first + block);
        }
    }

    fn write(&self, cluster: u64, bytes: &[u8]) -> Result<()> {
        self.target
            .write_all_at(bytes, cluster * CLUSTER_BYTES)
            .during("write the tables of the packed image")
    }
}
