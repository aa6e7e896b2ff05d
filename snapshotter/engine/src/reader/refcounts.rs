//! The reference counts that an image keeps of its clusters.

use std::fs::File;

use super::entry::{found_at, refcount_block};
use super::geometry::Geometry;
use super::header::{Header, Table};
use super::pieces::Pieces;
use super::refusal::Failure;
use super::table::for_each_set;

/// Pieces of 4 KiB that are kept. Counts are asked for mostly in the order of the file.
const TABLE_PIECES: usize = 4;
const BLOCK_PIECES: usize = 64;

/// Looks up reference counts. Every pointer is checked before it is followed, each time.
#[derive(Debug)]
pub(crate) struct Refcounts<'f> {
    geometry: Geometry,
    table: Table,
    pointers: Pieces<'f>,
    blocks: Pieces<'f>,
}

impl<'f> Refcounts<'f> {
    pub(crate) fn new(file: &'f File, header: &Header) -> Self {
        Self {
            geometry: header.geometry,
            table: header.refcounts,
            pointers: Pieces::new(file, TABLE_PIECES),
            blocks: Pieces::new(file, BLOCK_PIECES),
        }
    }

    /// The reference count of cluster `cluster` of the file; 0 where there is none for it.
    pub(crate) fn of(&mut self, cluster: u64) -> Result<u64, Failure> {
        let index = cluster / self.geometry.counts_per_block();
        if index >= self.table.entries {
            return Ok(0);
        }
        let place = self.table.offset + index * 8;
        let entry = self.pointers.number(place, 8)?;
        let Some(block) = refcount_block(entry, self.geometry).map_err(found_at(place))? else {
            return Ok(0);
        };
        let bit = (cluster % self.geometry.counts_per_block()) << self.geometry.refcount_order;
        let width = 1u64 << self.geometry.refcount_order;
        if width >= 8 {
            let bytes = usize::try_from(width / 8).unwrap_or(1);
            return Ok(self.blocks.number(block + bit / 8, bytes)?);
        }
        // Bit 0 of a byte is the first count's.
        let byte = self.blocks.number(block + bit / 8, 1)?;
        Ok((byte >> (bit % 8)) & ((1 << width) - 1))
    }
}

/// How many clusters have a count that is not zero. For a refcount table that was checked.
pub(crate) fn clusters_counted(file: &File, header: &Header) -> Result<u64, Failure> {
    let geometry = header.geometry;
    let mut counted = 0;
    for_each_set(file, header.refcounts, &mut |index, entry| {
        let place = header.refcounts.offset + index * 8;
        if let Some(offset) = refcount_block(entry, geometry).map_err(found_at(place))? {
            let block = Table {
                offset,
                entries: geometry.entries_per_l2(),
            };
            for_each_set(file, block, &mut |_index, word| {
                counted += counts_set(word, geometry.refcount_order);
                Ok(())
            })?;
        }
        Ok(())
    })?;
    Ok(counted)
}

/// How many of the counts in 8 bytes of a refcount block are not zero.
fn counts_set(word: u64, order: u32) -> u64 {
    let width = 1u32 << order;
    let mask = u64::MAX >> (u64::BITS - width);
    let fields = (0..u64::BITS).step_by(1 << order);
    fields.map(|at| u64::from((word >> at) & mask != 0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_every_width_are_told_from_zero() {
        assert_eq!(counts_set(0x8000_0000_0000_0001, 0), 2);
        assert_eq!(counts_set(0xc000_0000_0000_0003, 1), 2);
        assert_eq!(counts_set(0xf000_0000_0000_0011, 2), 3);
        assert_eq!(counts_set(0x0100_0000_0000_0001, 3), 2);
        assert_eq!(counts_set(0x0001_0000_0100_0001, 4), 3);
        assert_eq!(counts_set(0x0001_0000_0100_0001, 5), 2);
        assert_eq!(counts_set(0x0001_0000_0100_0001, 6), 1);
        assert_eq!(counts_set(u64::MAX, 0), 64);
        assert_eq!(counts_set(0, 4), 0);
    }
}
