//! Keeping snapshots. What is in an image is the snapshot engine's business; that it is there, whole, is ours.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::Pool;
use super::admission::Want;
use super::object::{Draft, Published};
use crate::durable;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::fault::{Step, reached};
use crate::id::{SnapshotId, VolumeId};
use crate::layout::SNAPSHOT_IMAGE;
use crate::measure;
use crate::record::{
    self, Checksum, Compression, DataChecksum, Kind, Packing, SnapshotRecord, Timestamp,
    VolumeMode, VolumeRecord,
};
use crate::size::MIB;

/// The qcow2 tables of a fully used disk take 1/4096 of its size (8 + 2 bytes for each 64 KiB), and a little more.
const TABLE_SHARE: u64 = 4096;

/// A snapshot to be made.
#[derive(Clone, Debug)]
pub struct NewSnapshot {
    /// Its id, made from the name.
    pub id: SnapshotId,
    /// The orchestrator's name for it.
    pub name: String,
    /// The source's record.
    pub source: VolumeRecord,
    /// The image will share the source's blocks. A copy takes new ones at once.
    pub shares_blocks: bool,
    /// The image is to be compressed in the background, once the snapshot is there.
    pub compression: Option<Compression>,
    /// How its data is to be digested, after it was cut.
    pub checksum: Option<Checksum>,
}

/// What the snapshot engine made of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotContent {
    /// The instant of the cut.
    pub created: Timestamp,
    /// The disk's size, in bytes.
    pub virtual_bytes: u64,
    /// What the image has allocated, in bytes.
    pub charge_bytes: u64,
    /// Where the disk's bytes lie in the image.
    pub data_offset: u64,
    /// BLAKE3 of the tables.
    pub metadata_digest: String,
    /// Runs of data.
    pub extents: u64,
    /// How long writers were held back, in microseconds.
    pub stall_us: u64,
}

/// Holds what the disk has of an image against what was written to it.
pub type Comparison = Box<dyn FnOnce(&File) -> Result<()>>;

/// A snapshot to be made of a disk from elsewhere.
#[derive(Clone, Debug)]
pub struct ImportedSnapshot {
    /// Its id, made from the name.
    pub id: SnapshotId,
    /// The administrator's name for it.
    pub name: String,
    /// The size of the disk as it came, in bytes.
    pub requested_bytes: u64,
    /// How pods are to see a volume restored from it.
    pub mode: VolumeMode,
    /// How much data it has at most, in bytes.
    pub data_bytes: u64,
    /// The image is to be compressed in the background, once a server serves the pool.
    pub compression: Option<Compression>,
    /// How its data is to be digested, then too.
    pub checksum: Option<Checksum>,
}

/// What a record says that is known before there is an image.
struct Origin {
    id: SnapshotId,
    name: String,
    source_volume: VolumeId,
    lineage: VolumeId,
    requested_bytes: u64,
    mode: VolumeMode,
    compression: Option<Compression>,
    checksum: Option<Checksum>,
}

impl Pool {
    /// Makes a snapshot. `cut` fills the new, empty image and says what it is, and how to hold what the disk has of it against that;
    /// that the image is durable is seen to here.
    ///
    /// 1. The room is reserved.
    /// 2. A folder and an empty image (0400) are made in `tmp/`.
    /// 3. `cut`: freeze, one clone of the whole live image, thaw, tables (its own steps).
    /// 4. The record is written. The image is synced, then the record and the folder; meanwhile the image's tables are read back.
    /// 5. They are compared.
    /// 6. The folder is renamed into `snapshots/`: the commit point.
    /// 7. `snapshots/` and `tmp/` are synced. Only now is it answered.
    ///
    /// If we stop after 1 to 5, recovery removes the folder in `tmp/`; after 6, the snapshot is there whole or not at
    /// all; after 7 it is there.
    ///
    /// # Errors
    /// `Conflict` when it exists, `NoSpace`, what `cut` answers. Nothing is left behind, but after `Uncertain`.
    pub fn create_snapshot(
        &self,
        new: NewSnapshot,
        cut: impl FnOnce(&File) -> Result<(SnapshotContent, Comparison)>,
    ) -> Result<SnapshotRecord> {
        self.guard()?;
        let made = self.expected(&new).and_then(|expected| {
            let origin = Origin {
                id: new.id,
                name: new.name,
                source_volume: new.source.id,
                lineage: new.source.lineage,
                requested_bytes: new.source.requested_bytes,
                mode: new.source.mode,
                compression: new.compression,
                checksum: new.checksum,
            };
            self.make_snapshot(origin, expected, cut)
        });
        made.map_err(|error| self.name_what_ran_out(error))
    }

    /// Makes a snapshot of a disk that was never a volume here, in the same steps: `fill` is then what `cut` is there.
    ///
    /// # Errors
    /// As [`Pool::create_snapshot`].
    pub fn import_snapshot(
        &self,
        new: ImportedSnapshot,
        fill: impl FnOnce(&File) -> Result<(SnapshotContent, Comparison)>,
    ) -> Result<SnapshotRecord> {
        self.guard()?;
        let whole = new.data_bytes + new.data_bytes / TABLE_SHARE + MIB;
        let expected = Want {
            volume_sizes: 0,
            snapshot_charges: whole,
            pending: whole,
        };
        // It shares its blocks with no volume: a lineage of its own.
        let nobody = VolumeId::from_name(&format!("imported as {}", new.name));
        let origin = Origin {
            id: new.id,
            name: new.name,
            source_volume: nobody.clone(),
            lineage: nobody,
            requested_bytes: new.requested_bytes,
            mode: new.mode,
            compression: new.compression,
            checksum: new.checksum,
        };
        self.make_snapshot(origin, expected, fill)
            .map_err(|error| self.name_what_ran_out(error))
    }

    fn make_snapshot(
        &self,
        origin: Origin,
        expected: Want,
        cut: impl FnOnce(&File) -> Result<(SnapshotContent, Comparison)>,
    ) -> Result<SnapshotRecord> {
        if self.layout.snapshots.stat(origin.id.as_str())?.is_some() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("{} exists already", origin.id),
            ));
        }
        let reservation = self.reserve(expected)?;
        reached(Step::SnapshotReserved)?;
        let mut draft = Draft::new(self, origin.id.as_str(), SNAPSHOT_IMAGE)?;
        let image = draft.make_image()?;
        // Read-only from the start, though we still write through this descriptor: so one sync covers the mode too.
        image
            .set_permissions(Permissions::from_mode(0o400))
            .during("make a snapshot read-only")?;
        reached(Step::SnapshotFolderMade)?;
        let (content, compare) = cut(&image)?;
        // The guest may have written between the reservation and the cut.
        let more = content
            .charge_bytes
            .saturating_sub(expected.snapshot_charges);
        let grown = self.reserve(Want {
            snapshot_charges: more,
            ..Want::default()
        })?;
        let mut record = record_of(origin, content);
        let encode =
            |record: &SnapshotRecord| record::encode_as(Kind::Snapshot, record.version(), record);
        // Both are on their way when the first sync begins, so that the second finds little left to do.
        let begun = durable::begin_record(&draft.folder, &encode(&record)?)?;
        durable::begin_write_out(&image, record.data_offset);
        image.sync_all().during("sync the snapshot image")?;
        reached(Step::SnapshotImageSynced)?;
        durable::read_again(&image, record.data_offset);
        // Writing out may have taken blocks of the filesystem's own to say where the data is.
        let charge = measure::allocated(&image)?;
        if charge != record.charge_bytes {
            record.charge_bytes = charge;
            begun.rewrite(&encode(&record)?)?;
        }
        begun.sync(&draft.folder)?;
        reached(Step::SnapshotRecordWritten)?;
        compare(&image)?;
        reached(Step::SnapshotVerified)?;
        let steps = Published {
            renamed: Step::SnapshotPublished,
            synced: Step::SnapshotParentsSynced,
        };
        draft.publish(&self.layout.snapshots, record.id.as_str(), steps)?;
        self.state()
            .index
            .snapshots
            .insert(record.id.clone(), Arc::new(record.clone()));
        drop((reservation, grown));
        Ok(record)
    }

    fn expected(&self, new: &NewSnapshot) -> Result<Want> {
        let source = self.checked_image(&new.source, false)?;
        let data = measure::allocated(&source)?.min(new.source.size_bytes);
        let tables = data / TABLE_SHARE + MIB;
        Ok(Want {
            volume_sizes: 0,
            snapshot_charges: data + tables,
            pending: if new.shares_blocks {
                tables
            } else {
                data + tables
            },
        })
    }
}

fn record_of(origin: Origin, content: SnapshotContent) -> SnapshotRecord {
    SnapshotRecord {
        id: origin.id,
        name: origin.name,
        source_volume: origin.source_volume,
        lineage: origin.lineage,
        created: content.created,
        requested_bytes: origin.requested_bytes,
        virtual_bytes: content.virtual_bytes,
        charge_bytes: content.charge_bytes,
        mode: origin.mode,
        data_offset: content.data_offset,
        metadata_digest: content.metadata_digest,
        extents: content.extents,
        stall_us: content.stall_us,
        packing: origin.compression.map_or(Packing::None, Packing::Wanted),
        checksum: origin.checksum.map(DataChecksum::wanted),
        damage: None,
    }
}
