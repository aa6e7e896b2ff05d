//! How much the images of a pool hold, shared blocks counted once.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;

use crate::durable::Folder;
use crate::error::Result;
use crate::index::Index;
use crate::layout::{DISK_IMAGE, Layout, SNAPSHOT_IMAGE};
use crate::sys;

/// Above this many extents a lineage is not added up exactly: 16 MiB of memory at most.
const MAX_EXTENTS: usize = 1 << 20;

/// A lower bound of what all images hold together, in bytes, by one look at each inode.
///
/// Images of one lineage can share all their blocks, so only the largest of them counts.
pub(crate) fn quick(layout: &Layout, index: &Index) -> u64 {
    lineages(index)
        .values()
        .map(|members| {
            members
                .iter()
                .map(|member| member.allocated(layout))
                .max()
                .unwrap_or_default()
        })
        .sum()
}

/// As [`quick`], with the extents of images that can share blocks laid over each other. Takes time per extent.
pub(crate) fn exact(layout: &Layout, index: &Index) -> u64 {
    lineages(index)
        .values()
        .map(|members| match members.as_slice() {
            [alone] => alone.allocated(layout),
            several => union(layout, several),
        })
        .sum()
}

/// The bytes that `file` has allocated.
pub(crate) fn allocated(file: &File) -> Result<u64> {
    use crate::error::Context;
    Ok(file.metadata().during("look at an image")?.blocks() * 512)
}

#[derive(Clone, Copy)]
enum Member<'index> {
    Volume(&'index str),
    Snapshot(&'index str),
}

impl Member<'_> {
    fn folder_of(self, layout: &Layout) -> Result<(Folder, &'static str)> {
        match self {
            Self::Volume(name) => Ok((layout.volumes.folder(name)?, DISK_IMAGE)),
            Self::Snapshot(name) => Ok((layout.snapshots.folder(name)?, SNAPSHOT_IMAGE)),
        }
    }

    /// What the image has allocated; 0 where it cannot be looked at, which keeps the sum a lower bound.
    fn allocated(self, layout: &Layout) -> u64 {
        let path = match self {
            Self::Volume(name) => format!("{name}/{DISK_IMAGE}"),
            Self::Snapshot(name) => format!("{name}/{SNAPSHOT_IMAGE}"),
        };
        let parent = match self {
            Self::Volume(_) => &layout.volumes,
            Self::Snapshot(_) => &layout.snapshots,
        };
        match parent.stat(&path) {
            Ok(Some(stat)) => u64::try_from(stat.st_blocks).unwrap_or(0) * 512,
            Ok(None) | Err(_) => 0,
        }
    }
}

fn lineages(index: &Index) -> HashMap<&str, Vec<Member<'_>>> {
    let mut lineages: HashMap<&str, Vec<Member<'_>>> = HashMap::new();
    for volume in index.volumes.values() {
        let members = lineages.entry(volume.lineage.as_str()).or_default();
        members.push(Member::Volume(volume.id.as_str()));
    }
    for snapshot in index.snapshots.values() {
        let members = lineages.entry(snapshot.lineage.as_str()).or_default();
        members.push(Member::Snapshot(snapshot.id.as_str()));
    }
    lineages
}

fn union(layout: &Layout, members: &[Member<'_>]) -> u64 {
    let largest = members
        .iter()
        .map(|member| member.allocated(layout))
        .max()
        .unwrap_or_default();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for member in members {
        let Ok((folder, name)) = member.folder_of(layout) else {
            continue;
        };
        let Ok(image) = folder.file(name, false) else {
            continue;
        };
        let read = sys::extents(&image, |extent| {
            if let Some(start) = extent.physical
                && ranges.len() < MAX_EXTENTS
            {
                ranges.push((start, start + extent.length));
            }
        });
        if read.is_err() || ranges.len() >= MAX_EXTENTS {
            return largest;
        }
    }
    covered(ranges).max(largest)
}

/// The bytes that lie in at least one of the ranges.
fn covered(mut ranges: Vec<(u64, u64)>) -> u64 {
    ranges.sort_unstable();
    let mut total = 0;
    let mut end = 0;
    for (start, stop) in ranges {
        total += stop.saturating_sub(start.max(end));
        end = end.max(stop);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::covered;

    #[test]
    fn shared_ranges_count_once() {
        assert_eq!(
            covered(vec![(0, 10), (5, 15), (5, 8), (20, 30), (15, 20)]),
            30
        );
        assert_eq!(covered(vec![]), 0);
        assert_eq!(covered(vec![(10, 20), (0, 5)]), 15);
    }
}
