//! A snapshot as a compact qcow2 file: the same disk without the room that the identity layout keeps for what is not
//! allocated, so that it can be copied and sent like any other file.
//!
//! How many clusters there are of each kind (`compact`) is known from the snapshot's tables before the first byte is
//! written, so everything is written once, to its last place. Every cluster of the file is in use: all counts are 1.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use pool::record::{Compression, SnapshotRecord};
use pool::{Context, Result};

use crate::compact::{Compact, area_len, count};
use crate::copy::{Part, Watch, copy_data};
use crate::digest::check_size;
use crate::header::{Places, cluster_len, header_of};
use crate::layout::{CLUSTER_BYTES, COUNTS_PER_BLOCK, ENTRIES_PER_TABLE};
use crate::mapping::MappedRuns;
use crate::pack::{Pack, Proof, pack};
use crate::packed::{PackedImage, check_packed_size, packed};
use crate::restore::checked_layout;
use crate::tables::{COPIED, set_counts, set_entry};

/// Writes the disk of a snapshot into `target`, a new empty file, as a compact qcow2 file, and makes the file durable (not
/// its name). Blocks are shared or copied by the kernel where it can; memory stays below 4 MiB. The snapshot's metadata is
/// checked against the record first. The same snapshot gives the same bytes each time.
///
/// # Errors
/// `Corrupt` when the image is not what the record says, or was deleted meanwhile; those of [`Watch`]; `NoSpace`; `Io`.
/// After an error the target is worth nothing.
pub fn export(
    image: &File,
    record: &SnapshotRecord,
    target: &File,
    watch: &Watch<'_>,
) -> Result<()> {
    if packed(record).is_some() {
        let plain = Pack {
            compression: None,
            watch,
            room: &|_now, _then| Ok(()),
            idle: false,
            proof: Proof::None,
            digest: false,
        };
        let _what_nobody_records = pack(image, record, target, &plain)?;
        return target.sync_all().during("sync the exported image");
    }
    let layout = checked_layout(image, record)?;
    let compact = Compact::new(layout.virtual_bytes(), &count(image, &layout)?);
    target
        .set_len(compact.data.end() * CLUSTER_BYTES)
        .during("size the exported image")?;
    let mut writer = Writer {
        target,
        compact: &compact,
        l1: vec![0; area_len(compact.l1_table)],
        l2: vec![0; cluster_len()],
        table: None,
        tables_done: 0,
        clusters_done: 0,
    };
    for run in MappedRuns::new(image, &layout) {
        let run = run?;
        let source = Part {
            file: image,
            offset: layout.data_offset() + run.start * CLUSTER_BYTES,
            length: (run.end - run.start) * CLUSTER_BYTES,
        };
        writer.copy(source, watch)?;
        writer.map(run)?;
    }
    writer.finish()?;
    // A deletion cuts the image from its end before it goes; what was read of it then is nothing.
    check_size(image, &layout)?;
    target.sync_all().during("sync the exported image")
}

/// As [`export`], with the clusters compressed that become smaller by it. A packed snapshot is copied as it is, which gives the
/// same bytes.
///
/// # Errors
/// As [`export`].
pub fn export_compressed(
    image: &File,
    record: &SnapshotRecord,
    target: &File,
    watch: &Watch<'_>,
) -> Result<()> {
    match packed(record) {
        Some(packed) => {
            let _checked = PackedImage::open(image, record, packed)?;
            target
                .set_len(packed.file_bytes)
                .during("size the exported image")?;
            let whole = Part {
                file: image,
                offset: 0,
                length: packed.file_bytes,
            };
            copy_data(whole, target, 0, watch)
                .map_err(|error| error.context("export the snapshot"))?;
            check_packed_size(image, packed)?;
        }
        None => {
            let how = Pack {
                compression: Some(Compression::Zstd),
                watch,
                room: &|_now, _then| Ok(()),
                idle: false,
                proof: Proof::None,
                digest: false,
            };
            let _what_nobody_records = pack(image, record, target, &how)?;
        }
    }
    target.sync_all().during("sync the exported image")
}

struct Writer<'a> {
    target: &'a File,
    compact: &'a Compact,
    l1: Vec<u8>,
    /// The L2 table being filled, and its number on the disk.
    l2: Vec<u8>,
    table: Option<u64>,
    tables_done: u64,
    clusters_done: u64,
}

impl Writer<'_> {
    /// Copies a run of clusters behind those that are there.
    fn copy(&self, source: Part<'_>, watch: &Watch<'_>) -> Result<()> {
        let done = self.clusters_done * CLUSTER_BYTES;
        let all = self.compact.data.count * CLUSTER_BYTES;
        let watch = Watch {
            deadline: watch.deadline,
            keep_going: watch.keep_going,
            progress: &|copied, _of_this_run| (watch.progress)(done + copied, all),
        };
        let place = self.compact.data.first * CLUSTER_BYTES + done;
        copy_data(source, self.target, place, &watch)
            .map_err(|error| error.context("export the snapshot"))
    }

    /// Enters a run of clusters that was copied.
    fn map(&mut self, run: Range<u64>) -> Result<()> {
        for cluster in run {
            let table = cluster / ENTRIES_PER_TABLE;
            if self.table != Some(table) {
                self.finish_table()?;
                self.table = Some(table);
            }
            let place = (self.compact.data.first + self.clusters_done) * CLUSTER_BYTES;
            set_entry(&mut self.l2, cluster % ENTRIES_PER_TABLE, place | COPIED);
            self.clusters_done += 1;
        }
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

    fn finish(mut self) -> Result<()> {
        self.finish_table()?;
        self.write(self.compact.l1_table.first, &self.l1)?;
        self.write_refcounts()?;
        let header = header_of(&Places {
            virtual_bytes: self.compact.virtual_bytes,
            l2_tables: self.compact.l1_entries,
            l1_table: self.compact.l1_table,
            refcount_table: self.compact.refcount_table,
            zstd: false,
        });
        self.write(0, &header)
    }

    fn write_refcounts(&self) -> Result<()> {
        let (blocks, end) = (self.compact.refcount_blocks, self.compact.data.end());
        let mut table = vec![0; area_len(self.compact.refcount_table)];
        for number in 0..blocks.count {
            let place = blocks.first + number;
            set_entry(&mut table, number, place * CLUSTER_BYTES);
            let mut block = vec![0; cluster_len()];
            set_counts(
                &mut block,
                0..COUNTS_PER_BLOCK.min(end - number * COUNTS_PER_BLOCK),
            );
            self.write(place, &block)?;
        }
        self.write(self.compact.refcount_table.first, &table)
    }

    fn write(&self, cluster: u64, bytes: &[u8]) -> Result<()> {
        self.target
            .write_all_at(bytes, cluster * CLUSTER_BYTES)
            .during("write the tables of the exported image")
    }
}
