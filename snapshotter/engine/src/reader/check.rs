//! The check of a whole image: every table is walked, and every cluster of the file may be used for one thing only.

use std::fs::File;

use pool::{Context, Error, ErrorKind};

use super::compressed;
use super::entry::{Mapping, found_at, l1, l2, refcount_block};
use super::header::{Header, Table, parse, wanted};
use super::image::{Facts, Image};
use super::pieces::fill;
use super::refcounts::{Refcounts, clusters_counted};
use super::refusal::{Failure, Reason, Refusal};
use super::table::for_each_set;
use super::used::Used;

/// The fields of the header up to the cluster size.
const START: usize = 24;

/// Checks `file`, an image that anybody may have made, and gives it back as something that can be read. Nothing is
/// written, and no other file is opened.
///
/// What is checked, in this order, is described in `docs/images.md`. The first thing that is not on the accept-list ends
/// the check. Memory is at most 2 MiB, a cluster, one bit for each cluster that the image's own reference counts cover,
/// and 8 bytes for each compressed cluster; time follows what the file really holds. What the header claims decides about
/// neither.
///
/// # Errors
/// [`Failure::Refused`] with the reason and the place; [`Failure::Unreadable`] when the file cannot be read or changes
/// meanwhile.
pub fn check(file: &File) -> Result<Image<'_>, Failure> {
    let before = Stamp::of(file)?;
    let header = read_header(file, before.bytes)?;
    let facts = walk(file, &header).map_err(|failure| match failure {
        Failure::Refused(refusal) => Failure::Refused(Refusal {
            virtual_bytes: Some(header.virtual_bytes),
            ..refusal
        }),
        unreadable @ Failure::Unreadable(_) => unreadable,
    });
    // A file that changes is no image that somebody made so: what was found in it says nothing.
    if Stamp::of(file)? != before {
        return Err(Failure::Unreadable(Error::new(
            ErrorKind::Io,
            "the image changed while it was read: try again when nobody writes to it",
        )));
    }
    Ok(Image::new(file, header, facts?))
}

/// What changes with a file.
#[derive(PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: (i64, i64),
    inode: (u64, u64),
}

impl Stamp {
    fn of(file: &File) -> Result<Self, Failure> {
        use std::os::unix::fs::MetadataExt;
        let metadata = file.metadata().during("look at the image")?;
        if !metadata.is_file() {
            let text = "this is no regular file";
            return Err(Refusal::new(Reason::NotARegularFile, text).into());
        }
        Ok(Self {
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            inode: (metadata.dev(), metadata.ino()),
        })
    }
}

fn read_header(file: &File, file_bytes: u64) -> Result<Header, Failure> {
    let mut start = [0; START];
    fill(file, 0, &mut start)?;
    let length = wanted(&start).min(file_bytes);
    let mut cluster = vec![0; usize::try_from(length).unwrap_or(START)];
    fill(file, 0, &mut cluster)?;
    Ok(parse(&cluster, file_bytes)?)
}

fn walk(file: &File, header: &Header) -> Result<Facts, Failure> {
    let mut walk = Walk {
        file,
        header,
        refcounts: Refcounts::new(file, header),
        used: Used::default(),
        found: Found::default(),
    };
    walk.claim_header()?;
    walk.claim_refcount_blocks()?;
    walk.walk_l1()?;
    let Walk {
        mut refcounts,
        used,
        found,
        ..
    } = walk;
    let shared = compressed::check(file, header, found.compressed, &used, &mut refcounts)?;
    let counted = clusters_counted(file, header)?;
    Ok(Facts {
        version: header.geometry.version,
        cluster_bytes: header.geometry.cluster_bytes(),
        refcount_bits: 1 << header.geometry.refcount_order,
        compression: header.compression,
        virtual_bytes: header.virtual_bytes,
        file_bytes: header.geometry.file_bytes,
        data_clusters: found.data,
        compressed_clusters: shared.streams,
        reserved_clusters: found.reserved,
        leaked_clusters: counted.saturating_sub(used.count() + shared.clusters),
    })
}

struct Walk<'a, 'f> {
    file: &'f File,
    header: &'a Header,
    refcounts: Refcounts<'f>,
    used: Used,
    found: Found,
}

/// What the L2 tables map.
#[derive(Default)]
struct Found {
    data: u64,
    reserved: u64,
    /// As [`compressed::pack`] has them.
    compressed: Vec<u64>,
}

impl Walk<'_, '_> {
    /// The header and the two tables that it names.
    fn claim_header(&mut self) -> Result<(), Failure> {
        self.claim(0, "the header", 0)?;
        self.claim_table(self.header.refcounts, "the refcount table", 48)?;
        self.claim_table(self.header.l1, "the L1 table", 40)
    }

    fn claim_table(&mut self, table: Table, what: &str, named_at: u64) -> Result<(), Failure> {
        let bits = self.header.geometry.cluster_bits;
        let end = table.offset + table.bytes();
        for cluster in table.offset >> bits..end.div_ceil(1 << bits) {
            self.claim(cluster, what, named_at)?;
        }
        Ok(())
    }

    fn claim_refcount_blocks(&mut self) -> Result<(), Failure> {
        let (geometry, table) = (self.header.geometry, self.header.refcounts);
        for_each_set(self.file, table, &mut |index, entry| {
            let place = table.offset + index * 8;
            match refcount_block(entry, geometry).map_err(found_at(place))? {
                Some(block) => {
                    self.claim(block >> geometry.cluster_bits, "a refcount block", place)
                }
                None => Ok(()),
            }
        })
    }

    fn walk_l1(&mut self) -> Result<(), Failure> {
        let (geometry, table) = (self.header.geometry, self.header.l1);
        for_each_set(self.file, table, &mut |index, entry| {
            let place = table.offset + index * 8;
            let Some(offset) = l1(entry, geometry).map_err(found_at(place))? else {
                return Ok(());
            };
            self.claim(offset >> geometry.cluster_bits, "an L2 table", place)?;
            let l2 = Table {
                offset,
                entries: geometry.entries_per_l2(),
            };
            self.walk_l2(index * geometry.entries_per_l2(), l2)
        })
    }

    /// Walks an L2 table, whose first entry is that of cluster `first` of the disk.
    fn walk_l2(&mut self, first: u64, table: Table) -> Result<(), Failure> {
        let geometry = self.header.geometry;
        let end = self.header.virtual_bytes.div_ceil(geometry.cluster_bytes());
        for_each_set(self.file, table, &mut |index, entry| {
            let place = table.offset + index * 8;
            let mapping = l2(entry, geometry).map_err(found_at(place))?;
            // Zeroes that take no room are what is left of the state of a VM when its internal snapshot was deleted.
            if first + index >= end && mapping != (Mapping::Zero { reserved: None }) {
                let text = format!(
                    "cluster {} is mapped, and the disk ends before it",
                    first + index
                );
                return Err(Refusal::at(Reason::BeyondDisk, place, text).into());
            }
            match mapping {
                Mapping::Zero { reserved: None } => Ok(()),
                Mapping::Zero {
                    reserved: Some(offset),
                } => {
                    self.found.reserved += 1;
                    self.claim(
                        offset >> geometry.cluster_bits,
                        "a cluster kept for zeroes",
                        place,
                    )
                }
                Mapping::Data { offset } => {
                    self.found.data += 1;
                    self.claim(
                        offset >> geometry.cluster_bits,
                        "a cluster of the disk",
                        place,
                    )
                }
                Mapping::Compressed(extent) => {
                    self.found
                        .compressed
                        .push(compressed::pack(extent, geometry));
                    Ok(())
                }
            }
        })
    }

    /// Takes a cluster of the file for one thing, which nothing else may use, and which the image has to count once.
    /// `place` is where the reference stands.
    fn claim(&mut self, cluster: u64, what: &str, place: u64) -> Result<(), Failure> {
        let offset = cluster << self.header.geometry.cluster_bits;
        let count = self.refcounts.of(cluster)?;
        // Before the cluster is remembered: what the image does not count costs us no memory.
        if count == 0 {
            let text =
                format!("{what} at byte {offset} has the reference count 0, as if it were free");
            return Err(Refusal::at(Reason::Refcount, place, text).into());
        }
        if !self.used.insert(cluster) {
            let text = format!("{what} at byte {offset} lies where something else lies too");
            return Err(Refusal::at(Reason::Overlap, place, text).into());
        }
        if count != 1 {
            let text = format!(
                "{what} at byte {offset} has one reference and the reference count {count}: repair it with `qemu-img \
                 check -r all`"
            );
            return Err(Refusal::at(Reason::Refcount, place, text).into());
        }
        Ok(())
    }
}
