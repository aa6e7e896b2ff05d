//! Which clusters of the disk a snapshot's own L1 and L2 tables say are allocated.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;

use pool::Result;

use crate::digest::read_cluster;
use crate::header::cluster_len;
use crate::layout::{ENTRIES_PER_TABLE, Layout};

/// The allocated clusters of the disk as ascending runs, read table by table.
///
/// Pointers are never followed: a table is read from the place the layout gives it, and an entry that is not 0 counts as
/// allocated whatever it holds. So a damaged image cannot lead the walk astray; that its entries hold the right numbers
/// is for the comparison with freshly built metadata to say. Two clusters are in memory.
#[derive(Debug)]
pub(crate) struct MappedRuns<'a> {
    image: &'a File,
    layout: &'a Layout,
    l1: Vec<u8>,
    l2: Vec<u8>,
    next_table: u64,
    found: VecDeque<Range<u64>>,
}

impl<'a> MappedRuns<'a> {
    pub(crate) fn new(image: &'a File, layout: &'a Layout) -> Self {
        Self {
            image,
            layout,
            l1: vec![0; cluster_len()],
            l2: vec![0; cluster_len()],
            next_table: 0,
            found: VecDeque::new(),
        }
    }

    /// Reads on until there are runs whose end is known, or no more tables.
    fn read_on(&mut self) -> Result<()> {
        while self.found.len() < 2 && self.next_table < self.layout.l2_tables().count {
            let table = self.next_table;
            if table.is_multiple_of(ENTRIES_PER_TABLE) {
                let place = self.layout.l1_table().first + table / ENTRIES_PER_TABLE;
                read_cluster(self.image, self.layout, place, &mut self.l1)?;
            }
            self.next_table += 1;
            if !is_set(&self.l1, table % ENTRIES_PER_TABLE) {
                continue;
            }
            let place = self.layout.l2_tables().first + table;
            read_cluster(self.image, self.layout, place, &mut self.l2)?;
            self.read_table(table * ENTRIES_PER_TABLE);
        }
        Ok(())
    }

    fn read_table(&mut self, first: u64) {
        let end = self.layout.data_clusters().min(first + ENTRIES_PER_TABLE);
        for cluster in first..end {
            if !is_set(&self.l2, cluster - first) {
                continue;
            }
            match self.found.back_mut() {
                Some(run) if run.end == cluster => run.end += 1,
                _ => self.found.push_back(cluster..cluster + 1),
            }
        }
    }
}

impl Iterator for MappedRuns<'_> {
    type Item = Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.read_on() {
            self.next_table = self.layout.l2_tables().count;
            self.found.clear();
            return Some(Err(error));
        }
        self.found.pop_front().map(Ok)
    }
}

/// Whether the 8 byte entry number `index` is not 0.
fn is_set(table: &[u8], index: u64) -> bool {
    let (entries, _) = table.as_chunks::<8>();
    usize::try_from(index)
        .ok()
        .and_then(|at| entries.get(at))
        .is_some_and(|entry| *entry != [0; 8])
}
