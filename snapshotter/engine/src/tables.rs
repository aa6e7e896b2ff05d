//! Builds the metadata of a snapshot, table by table.
//!
//! One pass over the allocated clusters in disk order makes every table, each handed out once as soon as nothing can
//! change it any more. What has to wait for the end is small: the L1 table, the refcount table and those refcount blocks
//! that count the metadata itself. Together with the two tables being filled that is less than half a MiB for a disk of
//! 50 GiB and less than 3 MiB for the largest.

use std::ops::Range;

use pool::{Error, ErrorKind, Result};

use crate::digest::is_zero;
use crate::header::{cluster_len, header_cluster};
use crate::layout::{Area, CLUSTER_BYTES, COUNTS_PER_BLOCK, ENTRIES_PER_TABLE, Layout};

/// Bit 63 of an L1 or L2 entry: the refcount of what it points to is exactly 1.
pub(crate) const COPIED: u64 = 1 << 63;

/// Where finished clusters go: the number of the cluster in the file, and its bytes.
pub(crate) type Sink<'a> = dyn FnMut(u64, &[u8]) -> Result<()> + 'a;

/// The L1 entry of L2 table number `table`, when that is in use.
pub(crate) fn l1_entry(layout: &Layout, table: u64) -> u64 {
    ((layout.l2_tables().first + table) * CLUSTER_BYTES) | COPIED
}

/// The L2 entry of data cluster number `cluster`, when that is allocated.
pub(crate) fn l2_entry(layout: &Layout, cluster: u64) -> u64 {
    ((layout.metadata_clusters() + cluster) * CLUSTER_BYTES) | COPIED
}

/// Builds the metadata of a disk whose allocated clusters are `runs`: ascending, not overlapping, not empty. `sink` gets
/// every cluster of the metadata area that is not all zero exactly once, the header last, in no other order.
///
/// # Errors
/// Those of `runs` and `sink`; `Internal` for runs that do not ascend or leave the disk.
pub(crate) fn build(
    layout: &Layout,
    runs: impl Iterator<Item = Result<Range<u64>>>,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let mut builder = Builder::new(layout, sink);
    let mut free_from = 0;
    for run in runs {
        let run = run?;
        if run.start < free_from || run.is_empty() || run.end > layout.data_clusters() {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("clusters {run:?} of a snapshot do not ascend or leave the disk"),
            ));
        }
        free_from = run.end;
        builder.map(run.clone())?;
        let first = layout.metadata_clusters();
        builder.count_data(first + run.start..first + run.end)?;
    }
    builder.finish()
}

struct Builder<'a, 's> {
    layout: &'a Layout,
    sink: &'a mut Sink<'s>,
    l1: Vec<u8>,
    refcount_table: Vec<u8>,
    /// The refcount blocks that count metadata clusters. They change until the end.
    front: Vec<Vec<u8>>,
    /// The L2 table and the refcount block being filled, by their number.
    l2: Table,
    block: Table,
}

/// A table being filled; `number` is `None` while nothing is in it.
struct Table {
    number: Option<u64>,
    bytes: Vec<u8>,
}

impl Table {
    fn new() -> Self {
        Self {
            number: None,
            bytes: vec![0; cluster_len()],
        }
    }
}

impl<'a, 's> Builder<'a, 's> {
    fn new(layout: &'a Layout, sink: &'a mut Sink<'s>) -> Self {
        let front = layout.metadata_clusters().div_ceil(COUNTS_PER_BLOCK);
        Self {
            layout,
            sink,
            l1: zeroes(layout.l1_table()),
            refcount_table: zeroes(layout.refcount_table()),
            front: (0..front).map(|_| vec![0; cluster_len()]).collect(),
            l2: Table::new(),
            block: Table::new(),
        }
    }

    /// Enters data clusters into their L2 tables.
    fn map(&mut self, run: Range<u64>) -> Result<()> {
        for cluster in run {
            let table = cluster / ENTRIES_PER_TABLE;
            if self.l2.number != Some(table) {
                self.finish_l2()?;
                self.l2.number = Some(table);
            }
            let entry = l2_entry(self.layout, cluster);
            set_entry(&mut self.l2.bytes, cluster % ENTRIES_PER_TABLE, entry);
        }
        Ok(())
    }

    fn finish_l2(&mut self) -> Result<()> {
        if let Some(table) = self.l2.number.take() {
            let place = self.layout.l2_tables().first + table;
            (self.sink)(place, &self.l2.bytes)?;
            self.l2.bytes.fill(0);
            set_entry(&mut self.l1, table, l1_entry(self.layout, table));
            self.count_metadata(place);
        }
        Ok(())
    }

    /// Sets the refcounts of data clusters, given by their numbers in the file.
    fn count_data(&mut self, run: Range<u64>) -> Result<()> {
        let mut next = run.start;
        while next < run.end {
            let block = next / COUNTS_PER_BLOCK;
            let first = block * COUNTS_PER_BLOCK;
            let end = run.end.min(first + COUNTS_PER_BLOCK);
            let counts = next - first..end - first;
            next = end;
            let place = usize::try_from(block).ok();
            if let Some(front) = place.and_then(|block| self.front.get_mut(block)) {
                set_counts(front, counts);
                continue;
            }
            if self.block.number != Some(block) {
                self.finish_block()?;
                self.block.number = Some(block);
            }
            set_counts(&mut self.block.bytes, counts);
        }
        Ok(())
    }

    fn finish_block(&mut self) -> Result<()> {
        if let Some(block) = self.block.number.take() {
            let place = self.layout.refcount_blocks().first + block;
            (self.sink)(place, &self.block.bytes)?;
            self.block.bytes.fill(0);
            self.use_block(block);
        }
        Ok(())
    }

    fn use_block(&mut self, block: u64) {
        let place = self.layout.refcount_blocks().first + block;
        set_entry(&mut self.refcount_table, block, place * CLUSTER_BYTES);
        self.count_metadata(place);
    }

    /// Sets the refcount of a cluster that a front block counts.
    fn count_metadata(&mut self, cluster: u64) {
        let block = usize::try_from(cluster / COUNTS_PER_BLOCK).ok();
        if let Some(bytes) = block.and_then(|block| self.front.get_mut(block)) {
            let index = cluster % COUNTS_PER_BLOCK;
            set_counts(bytes, index..index + 1);
        }
    }

    fn finish(mut self) -> Result<()> {
        self.finish_l2()?;
        self.finish_block()?;
        let (l1, table) = (self.layout.l1_table(), self.layout.refcount_table());
        for cluster in (0..table.end()).chain(l1.first..l1.end()) {
            self.count_metadata(cluster);
        }
        // The front blocks are the first few, so block 0 counts them all; it is in use anyway, for the header.
        for block in 0..self.front.len() {
            if !is_zero(&self.front[block]) {
                self.use_block(block as u64);
            }
        }
        let blocks = self.layout.refcount_blocks().first;
        emit(self.sink, blocks, &self.front.concat())?;
        emit(self.sink, l1.first, &self.l1)?;
        emit(self.sink, table.first, &self.refcount_table)?;
        emit(self.sink, 0, &header_cluster(self.layout))
    }
}

fn zeroes(area: Area) -> Vec<u8> {
    // The tables of the largest disk take less than 3 MiB.
    vec![0; usize::try_from(area.count * CLUSTER_BYTES).unwrap_or(0)]
}

/// Hands out those of some neighbouring clusters that are not zero.
fn emit(sink: &mut Sink<'_>, first: u64, bytes: &[u8]) -> Result<()> {
    for (cluster, bytes) in (first..).zip(bytes.chunks_exact(cluster_len())) {
        if !is_zero(bytes) {
            sink(cluster, bytes)?;
        }
    }
    Ok(())
}

/// Sets the 8 byte entry number `index`.
pub(crate) fn set_entry(table: &mut [u8], index: u64, entry: u64) {
    let (entries, _) = table.as_chunks_mut::<8>();
    if let Some(slot) = usize::try_from(index)
        .ok()
        .and_then(|at| entries.get_mut(at))
    {
        *slot = entry.to_be_bytes();
    }
}

/// Sets the 2 byte counts of these numbers to 1.
pub(crate) fn set_counts(block: &mut [u8], indices: Range<u64>) {
    let (counts, _) = block.as_chunks_mut::<2>();
    let place = |index| usize::try_from(index).unwrap_or(usize::MAX);
    if let Some(slots) = counts.get_mut(place(indices.start)..place(indices.end)) {
        slots.fill(1u16.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    type Clusters = BTreeMap<u64, Vec<u8>>;

    fn built(layout: &Layout, runs: &[(u64, u64)]) -> Result<Clusters> {
        let mut clusters = Clusters::new();
        let runs = runs.iter().map(|(start, end)| Ok(*start..*end));
        build(layout, runs, &mut |cluster, bytes| {
            let twice = clusters.insert(cluster, bytes.to_vec());
            assert!(twice.is_none(), "cluster {cluster} handed out twice");
            Ok(())
        })?;
        Ok(clusters)
    }

    /// A big-endian number in the file; what was not written is zero.
    fn number(clusters: &Clusters, position: u64, bytes: usize) -> u64 {
        let at = usize::try_from(position % CLUSTER_BYTES).unwrap();
        clusters
            .get(&(position / CLUSTER_BYTES))
            .map_or(0, |cluster| {
                cluster[at..at + bytes]
                    .iter()
                    .fold(0, |number, byte| number << 8 | u64::from(*byte))
            })
    }

    /// Reads the file as any qcow2 reader would, from its header on. Returns where each data cluster is, and all
    /// clusters of the file that something points to; none may be pointed to twice.
    fn read_as_qcow2(clusters: &Clusters) -> (BTreeMap<u64, u64>, BTreeSet<u64>) {
        let mut used = BTreeSet::from([0]);
        let mut refer = |offset: u64, count: u64| {
            assert!(offset.is_multiple_of(CLUSTER_BYTES));
            for cluster in offset / CLUSTER_BYTES..offset / CLUSTER_BYTES + count {
                assert!(used.insert(cluster), "cluster {cluster} used twice");
            }
        };
        let (l1_size, l1) = (number(clusters, 36, 4), number(clusters, 40, 8));
        let (table, table_clusters) = (number(clusters, 48, 8), number(clusters, 56, 4));
        refer(l1, (l1_size * 8).div_ceil(CLUSTER_BYTES));
        refer(table, table_clusters);
        for block in 0..table_clusters * ENTRIES_PER_TABLE {
            match number(clusters, table + block * 8, 8) {
                0 => {}
                offset => refer(offset, 1),
            }
        }
        let mut data = BTreeMap::new();
        for index in 0..l1_size {
            let l2 = number(clusters, l1 + index * 8, 8);
            if l2 == 0 {
                continue;
            }
            assert_ne!(l2 & COPIED, 0);
            refer(l2 & !COPIED, 1);
            for entry in 0..ENTRIES_PER_TABLE {
                let offset = number(clusters, (l2 & !COPIED) + entry * 8, 8);
                if offset != 0 {
                    assert_ne!(offset & COPIED, 0);
                    refer(offset & !COPIED, 1);
                    data.insert(index * ENTRIES_PER_TABLE + entry, offset & !COPIED);
                }
            }
        }
        (data, used)
    }

    fn refcount(clusters: &Clusters, cluster: u64) -> u64 {
        let table = number(clusters, 48, 8);
        match number(clusters, table + cluster / COUNTS_PER_BLOCK * 8, 8) {
            0 => 0,
            block => number(clusters, block + cluster % COUNTS_PER_BLOCK * 2, 2),
        }
    }

    fn assert_standard(size: u64, runs: &[(u64, u64)]) {
        let layout = Layout::for_virtual_size(size).unwrap();
        let clusters = built(&layout, runs).unwrap();
        let (data, used) = read_as_qcow2(&clusters);
        let expected: BTreeMap<u64, u64> = runs
            .iter()
            .flat_map(|run| run.0..run.1)
            .map(|cluster| (cluster, layout.data_offset() + cluster * CLUSTER_BYTES))
            .collect();
        assert_eq!(data, expected);
        for cluster in 0..layout.file_bytes() / CLUSTER_BYTES {
            let expected = u64::from(used.contains(&cluster));
            assert_eq!(refcount(&clusters, cluster), expected, "cluster {cluster}");
        }
        for (cluster, bytes) in &clusters {
            assert!(used.contains(cluster), "cluster {cluster} is not used");
            assert!(bytes.iter().any(|byte| *byte != 0), "cluster {cluster}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_set_of_clusters_becomes_a_standard_qcow2(
            size in 1..70_000u64,
            cuts in proptest::collection::btree_set(0..70_000u64, 0..30),
        ) {
            let cuts: Vec<u64> = cuts.into_iter().filter(|cut| *cut <= size).collect();
            let runs: Vec<_> = cuts.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            assert_standard(size * CLUSTER_BYTES, &runs);
        }
    }

    #[test]
    fn full_disks_at_the_edges_of_tables_become_standard_qcow2() {
        for size in [1, 8191, 8192, 8193, 32_762, 32_763, 32_768, 65_536] {
            assert_standard(size * CLUSTER_BYTES, &[(0, size)]);
            assert_standard(size * CLUSTER_BYTES, &[(size - 1, size)]);
            assert_standard(size * CLUSTER_BYTES, &[]);
        }
    }

    #[test]
    fn metadata_that_fills_several_refcount_blocks_counts_itself() {
        // 40 TiB: the metadata alone is more clusters than three refcount blocks count.
        let layout = Layout::for_virtual_size(40 << 40).unwrap();
        let last = layout.data_clusters() - 1;
        let clusters = built(&layout, &[(0, 2), (last, last + 1)]).unwrap();
        let (data, used) = read_as_qcow2(&clusters);
        assert_eq!(data.into_keys().collect::<Vec<_>>(), [0, 1, last]);
        for cluster in (0..layout.metadata_clusters() + 9).chain(used.iter().copied()) {
            let expected = u64::from(used.contains(&cluster));
            assert_eq!(refcount(&clusters, cluster), expected, "cluster {cluster}");
        }
    }

    #[test]
    fn runs_that_do_not_ascend_or_leave_the_disk_are_refused() {
        let layout = Layout::for_virtual_size(10 * CLUSTER_BYTES).unwrap();
        let cases: [&[(u64, u64)]; 4] =
            [&[(9, 11)], &[(3, 5), (4, 6)], &[(5, 6), (0, 1)], &[(2, 2)]];
        for runs in cases {
            assert_eq!(
                built(&layout, runs).unwrap_err().kind(),
                ErrorKind::Internal
            );
        }
    }
}
