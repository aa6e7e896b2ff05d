//! Walking a table from its first to its last entry.

use std::fs::File;
use std::ops::Range;

use super::header::Table;
use super::pieces::fill;
use super::refusal::Failure;
use crate::data_map::DataRuns;

/// As much of a table as is in memory.
const CHUNK: usize = 16 * 1024;
/// In a table of at most this many bytes holes are not looked for: reading is as fast as asking.
const SMALL: u64 = 4096;

/// What is done with the entries of a table: hears the number of an entry, and the entry.
pub(crate) type Visit<'v> = dyn FnMut(u64, u64) -> Result<(), Failure> + 'v;

/// Visits all entries that are not zero, in order. Holes are not read: a table that takes no space takes no time.
pub(crate) fn for_each_set(
    file: &File,
    table: Table,
    visit: &mut Visit<'_>,
) -> Result<(), Failure> {
    if table.bytes() <= SMALL {
        return visit_range(file, table, 0..table.bytes(), visit);
    }
    for run in DataRuns::new(file, table.offset, table.bytes()) {
        let run = run?;
        let whole = run.start / 8 * 8..run.end.next_multiple_of(8).min(table.bytes());
        visit_range(file, table, whole, visit)?;
    }
    Ok(())
}

fn visit_range(
    file: &File,
    table: Table,
    range: Range<u64>,
    visit: &mut Visit<'_>,
) -> Result<(), Failure> {
    let mut chunk = [0; CHUNK];
    let mut start = range.start;
    while start < range.end {
        let length = (range.end - start).min(CHUNK as u64);
        let bytes = &mut chunk[..usize::try_from(length).unwrap_or(CHUNK)];
        fill(file, table.offset + start, bytes)?;
        let (entries, _) = bytes.as_chunks::<8>();
        for (index, entry) in (start / 8..).zip(entries) {
            match u64::from_be_bytes(*entry) {
                0 => {}
                entry => visit(index, entry)?,
            }
        }
        start += length;
    }
    Ok(())
}
