//! How much the images of a pool hold, shared blocks counted once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;

use crate::durable::{self, Folder};
use crate::error::Result;
use crate::index::Index;
use crate::layout::{DISK_IMAGE, Layout, SNAPSHOT_IMAGE};
use crate::record::{self, Kind, SnapshotRecord, VolumeRecord};
use crate::sys;

/// Above this many extents a lineage is not added up exactly: 16 MiB of memory at most.
const MAX_EXTENTS: usize = 1 << 20;

/// The images in `trash/`: those that somebody still reads, and those that nobody has come to free yet.
#[derive(Debug, Default)]
pub(crate) struct Deleted(Vec<DeletedImage>);

#[derive(Debug)]
struct DeletedImage {
    /// Its folder in `trash/`.
    folder: String,
    name: &'static str,
    allocated: u64,
}

/// What lies in `trash/`. To be looked at after the index: what is deleted in between is then seen twice, and never not at all.
///
/// # Errors
/// When the folder cannot be listed.
pub(crate) fn deleted(layout: &Layout) -> Result<Deleted> {
    let mut found = Vec::new();
    for folder in layout.trash.names()? {
        for name in [DISK_IMAGE, SNAPSHOT_IMAGE] {
            let allocated = allocated_at(&layout.trash, &folder, name);
            if allocated > 0 {
                let folder = folder.clone();
                found.push(DeletedImage {
                    folder,
                    name,
                    allocated,
                });
            }
        }
    }
    Ok(Deleted(found))
}

impl Deleted {
    /// What they can come to hold alone, in bytes, once whoever shares blocks with them has rewritten his.
    pub(crate) fn allocated(&self) -> u64 {
        self.0.iter().map(|image| image.allocated).sum()
    }
}

impl DeletedImage {
    /// The lineage that its record names; without one it shares its blocks with nobody, as far as we know.
    fn lineage(&self, layout: &Layout) -> Option<String> {
        let record = durable::read_record(&layout.trash.folder(&self.folder).ok()?).ok()?;
        let lineage = if self.name == DISK_IMAGE {
            record::decode::<VolumeRecord>(Kind::Volume, &record)
                .ok()?
                .lineage
        } else {
            record::decode::<SnapshotRecord>(Kind::Snapshot, &record)
                .ok()?
                .lineage
        };
        Some(lineage.to_string())
    }
}

/// A lower bound of what all images hold together, in bytes, by one look at each inode.
///
/// Images of one lineage can share all their blocks, so only the largest of them counts.
pub(crate) fn quick(layout: &Layout, index: &Index, deleted: &Deleted) -> u64 {
    lineages(layout, index, deleted)
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
pub(crate) fn exact(layout: &Layout, index: &Index, deleted: &Deleted) -> u64 {
    lineages(layout, index, deleted)
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
    Deleted(&'index DeletedImage),
}

impl Member<'_> {
    fn folder_of(self, layout: &Layout) -> Result<(Folder, &'static str)> {
        match self {
            Self::Volume(name) => Ok((layout.volumes.folder(name)?, DISK_IMAGE)),
            Self::Snapshot(name) => Ok((layout.snapshots.folder(name)?, SNAPSHOT_IMAGE)),
            Self::Deleted(image) => Ok((layout.trash.folder(&image.folder)?, image.name)),
        }
    }

    /// What the image has allocated; 0 where it cannot be looked at, which keeps the sum a lower bound.
    fn allocated(self, layout: &Layout) -> u64 {
        match self {
            Self::Volume(name) => allocated_at(&layout.volumes, name, DISK_IMAGE),
            Self::Snapshot(name) => allocated_at(&layout.snapshots, name, SNAPSHOT_IMAGE),
            Self::Deleted(image) => allocated_at(&layout.trash, &image.folder, image.name),
        }
    }
}

fn allocated_at(parent: &Folder, folder: &str, image: &str) -> u64 {
    match parent.stat(&format!("{folder}/{image}")) {
        Ok(Some(stat)) => u64::try_from(stat.st_blocks).unwrap_or(0) * 512,
        Ok(None) | Err(_) => 0,
    }
}

fn lineages<'index>(
    layout: &Layout,
    index: &'index Index,
    deleted: &'index Deleted,
) -> HashMap<Cow<'index, str>, Vec<Member<'index>>> {
    let mut lineages: HashMap<Cow<'_, str>, Vec<Member<'_>>> = HashMap::new();
    let mut add = |lineage, member| lineages.entry(lineage).or_default().push(member);
    for volume in index.volumes.values() {
        let member = Member::Volume(volume.id.as_str());
        add(volume.lineage.as_str().into(), member);
    }
    for snapshot in index.snapshots.values() {
        let member = Member::Snapshot(snapshot.id.as_str());
        add(snapshot.lineage.as_str().into(), member);
    }
    for image in &deleted.0 {
        if let Some(lineage) = image.lineage(layout) {
            add(lineage.into(), Member::Deleted(image));
        }
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
