//! Where things lie in a file without room for what is not allocated.
//!
//! ```text
//! header | refcount table | refcount blocks | L1 table | L2 tables in use | allocated clusters, in disk order
//! ```

use std::fs::File;

use pool::Result;

use crate::header::cluster_len;
use crate::layout::{Area, CLUSTER_BYTES, ENTRIES_PER_TABLE, Layout, refcount_clusters};
use crate::mapping::MappedRuns;

/// What is allocated in a snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    pub(crate) l2_tables: u64,
    pub(crate) clusters: u64,
}

/// Counts it in its tables.
pub(crate) fn count(image: &File, layout: &Layout) -> Result<Count> {
    let (mut l2_tables, mut clusters, mut next_table) = (0, 0, 0);
    for run in MappedRuns::new(image, layout) {
        let run = run?;
        let first = (run.start / ENTRIES_PER_TABLE).max(next_table);
        next_table = run.end.div_ceil(ENTRIES_PER_TABLE);
        l2_tables += next_table - first;
        clusters += run.end - run.start;
    }
    Ok(Count {
        l2_tables,
        clusters,
    })
}

/// Where everything lies in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compact {
    pub(crate) virtual_bytes: u64,
    /// L1 entries of the disk.
    pub(crate) l1_entries: u64,
    pub(crate) refcount_table: Area,
    pub(crate) refcount_blocks: Area,
    pub(crate) l1_table: Area,
    pub(crate) l2_tables: Area,
    pub(crate) data: Area,
}

impl Compact {
    /// For a disk of `virtual_bytes` bytes of which at most `count` is allocated. Where it comes to less, room stays free.
    pub(crate) fn new(virtual_bytes: u64, count: &Count) -> Self {
        let l1_entries = (virtual_bytes / CLUSTER_BYTES).div_ceil(ENTRIES_PER_TABLE);
        let l1 = l1_entries.div_ceil(ENTRIES_PER_TABLE);
        let (table, blocks) = refcount_clusters(1 + l1 + count.l2_tables + count.clusters);
        let header = Area { first: 0, count: 1 };
        let refcount_table = Area::after(header, table);
        let refcount_blocks = Area::after(refcount_table, blocks);
        let l1_table = Area::after(refcount_blocks, l1);
        let l2_tables = Area::after(l1_table, count.l2_tables);
        Self {
            virtual_bytes,
            l1_entries,
            refcount_table,
            refcount_blocks,
            l1_table,
            l2_tables,
            data: Area::after(l2_tables, count.clusters),
        }
    }
}

/// The length in memory of some clusters.
pub(crate) fn area_len(area: Area) -> usize {
    usize::try_from(area.count).unwrap_or(0) * cluster_len()
}
