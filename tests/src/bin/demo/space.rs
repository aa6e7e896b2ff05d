//! How much space a file takes, and how much of that it shares with others.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::command;

/// The unit in which filefrag is asked to count.
const UNIT_BYTES: u64 = 4096;

/// Bytes allocated for `file`, shared ones included: what `du` says.
pub(crate) fn allocated(file: &Path) -> Result<u64> {
    Ok(std::fs::metadata(file)?.blocks() * 512)
}

/// Bytes of `file` that no other file shares: what it costs.
pub(crate) async fn alone(file: &Path) -> Result<u64> {
    let unit = format!("-b{UNIT_BYTES}");
    let arguments = [
        "-v".as_ref(),
        "-s".as_ref(),
        unit.as_ref(),
        file.as_os_str(),
    ];
    let told = command::run("filefrag", &arguments).await?;
    unshared_units(&told)
        .map(|units| units * UNIT_BYTES)
        .context("filefrag's table is not as known")
}

/// Sums up the lines `ext: logical: physical: length: expected: flags` without the flag `shared`.
fn unshared_units(table: &str) -> Option<u64> {
    let mut units = 0;
    let extents = table
        .lines()
        .filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit()));
    for line in extents {
        let columns: Vec<&str> = line.split(':').map(str::trim).collect();
        let length: u64 = columns.get(3)?.parse().ok()?;
        if !columns.last()?.split(',').any(|flag| flag == "shared") {
            units += length;
        }
    }
    Some(units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_extents_that_are_not_shared_count() {
        let table = "Filesystem type is: 58465342\n\
            File size of x is 1048576 (256 blocks of 4096 bytes)\n \
            ext:     logical_offset:        physical_offset: length:   expected: flags:\n   \
            0:        0..      15:         24..        39:     16:\n   \
            1:       16..     215:        100..       299:    200:         40: shared\n   \
            2:      216..     255:        400..       439:     40:        300: last,eof\n\
            x: 3 extents found\n";
        assert_eq!(unshared_units(table), Some(56));
    }
}
