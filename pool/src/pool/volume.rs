//! Making volumes and changing their records.

use std::fs::File;
use std::sync::Arc;

use nix::fcntl::{FallocateFlags, fallocate};

use super::admission::Want;
use super::object::{Draft, Published, check_image_size};
use super::{Filesystem, Pool};
use crate::durable;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::fault::{Step, reached};
use crate::id::VolumeId;
use crate::layout::DISK_IMAGE;
use crate::record::{self, Kind, Provisioning, Source, Timestamp, VolumeMode, VolumeRecord};
use crate::size;
use crate::sys;

/// XFS copies this much when a shared block is first written. Its default of 128 KiB doubles the space that random
/// writes take after a snapshot (measured); one block costs nothing in extents or time.
const COW_EXTENT_BYTES: u32 = 4096;

/// A volume to be made.
#[derive(Clone, Debug)]
pub struct NewVolume {
    /// Its id, made from the name.
    pub id: VolumeId,
    /// The orchestrator's name for it.
    pub name: String,
    /// The size asked for, in bytes.
    pub requested_bytes: u64,
    /// The size of the image, in bytes, a multiple of 1 MiB.
    pub size_bytes: u64,
    /// Whether blocks are allocated ahead.
    pub provisioning: Provisioning,
    /// How pods will see it.
    pub mode: VolumeMode,
    /// Access modes by their CSI names.
    pub access_modes: Vec<String>,
    /// Where its content comes from.
    pub source: Option<Source>,
    /// What its content descends from; `None` for a fresh volume.
    pub lineage: Option<VolumeId>,
}

impl Pool {
    /// Makes a volume. `fill` writes the content into the new image, which is empty and has no length yet.
    ///
    /// 1. The room is reserved.
    /// 2. A folder is made in `tmp/`.
    /// 3. The image is made: filled, grown to its size, allocated if thick.
    /// 4. The image is synced.
    /// 5. The record is written and synced, and so is the folder.
    /// 6. The folder is renamed into `volumes/`: the commit point.
    /// 7. `volumes/` and `tmp/` are synced. Only now is it answered.
    ///
    /// If we stop after 1 to 5, recovery removes the folder in `tmp/`; after 6, the volume is there whole or not at
    /// all; after 7 it is there.
    ///
    /// # Errors
    /// `Conflict` when the volume exists, `NoSpace`, `Unavailable`, what `fill` answers. Nothing is left behind, but
    /// after `Uncertain` (a sync failed) it is known only when the pool was opened again.
    pub fn create_volume(
        &self,
        new: NewVolume,
        fill: impl FnOnce(&File) -> Result<()>,
    ) -> Result<VolumeRecord> {
        self.guard()?;
        self.make_volume(new, fill)
            .map_err(|error| self.name_what_ran_out(error))
    }

    fn make_volume(
        &self,
        new: NewVolume,
        fill: impl FnOnce(&File) -> Result<()>,
    ) -> Result<VolumeRecord> {
        size::check_image_bytes(new.size_bytes)?;
        if self.layout.volumes.stat(new.id.as_str())?.is_some() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("{} exists already", new.id),
            ));
        }
        let reservation = self.reserve(Want {
            volume_sizes: new.size_bytes,
            ..Want::default()
        })?;
        reached(Step::CreateReserved)?;
        let mut draft = Draft::new(self, new.id.as_str(), DISK_IMAGE)?;
        reached(Step::CreateFolderMade)?;
        self.make_image(&draft, &new, fill)?;
        let record = record_of(new);
        durable::write_record(&draft.folder, &record::encode(Kind::Volume, &record)?)?;
        reached(Step::CreateRecordWritten)?;
        let steps = Published {
            renamed: Step::CreatePublished,
            synced: Step::CreateParentsSynced,
        };
        draft.publish(&self.layout.volumes, record.id.as_str(), steps)?;
        self.state()
            .index
            .volumes
            .insert(record.id.clone(), Arc::new(record.clone()));
        drop(reservation);
        Ok(record)
    }

    fn make_image(
        &self,
        draft: &Draft<'_>,
        new: &NewVolume,
        fill: impl FnOnce(&File) -> Result<()>,
    ) -> Result<()> {
        let image = draft.make_image()?;
        if self.filesystem()? == Filesystem::Xfs {
            sys::set_cow_extent_size(&image, COW_EXTENT_BYTES)
                .during("set the copy-on-write unit of an image")?;
        }
        fill(&image)?;
        resize(&image, new.size_bytes, new.provisioning)?;
        reached(Step::CreateImageMade)?;
        image.sync_all().during("make an image durable")?;
        reached(Step::CreateImageSynced)
    }

    /// Changes the record of a volume, durably.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, the kernel's: the record is as before. After `Uncertain` the pool is opened again before anything
    /// else is changed.
    pub fn update_volume(
        &self,
        id: &VolumeId,
        change: impl FnOnce(&mut VolumeRecord),
    ) -> Result<VolumeRecord> {
        self.guard()?;
        let mut record = self.volume(id)?;
        let before = record.clone();
        change(&mut record);
        if record == before {
            return Ok(record);
        }
        record.generation += 1;
        let folder = self.layout.volumes.folder(id.as_str())?;
        let bytes = record::encode(Kind::Volume, &record)?;
        self.replace_record(&folder, id.as_str(), &bytes)?;
        self.state()
            .index
            .volumes
            .insert(id.clone(), Arc::new(record.clone()));
        Ok(record)
    }

    /// The image of a volume that is to be used, checked against its record.
    ///
    /// # Errors
    /// `Corrupt` when it is missing or has another size than the record says.
    pub fn checked_image(&self, record: &VolumeRecord, write: bool) -> Result<File> {
        let image = self.open_image(&record.id, write)?;
        check_image_size(&image, record)?;
        Ok(image)
    }
}

/// Gives an image its size. New space reads as zero: it is a hole or an unwritten extent, never a recycled block.
pub(super) fn resize(image: &File, bytes: u64, provisioning: Provisioning) -> Result<()> {
    image.set_len(bytes).during("give an image its size")?;
    match provisioning {
        Provisioning::Thin => Ok(()),
        Provisioning::Thick => {
            let length = i64::try_from(bytes).unwrap_or(i64::MAX);
            fallocate(image, FallocateFlags::empty(), 0, length)
                .during("allocate the blocks of a thick volume")
        }
    }
}

fn record_of(new: NewVolume) -> VolumeRecord {
    let mut access_modes = new.access_modes;
    access_modes.sort_unstable();
    access_modes.dedup();
    VolumeRecord {
        lineage: new.lineage.unwrap_or_else(|| new.id.clone()),
        id: new.id,
        name: new.name,
        created: Timestamp::now(),
        generation: 1,
        requested_bytes: new.requested_bytes,
        size_bytes: new.size_bytes,
        growing_to_bytes: None,
        provisioning: new.provisioning,
        mode: new.mode,
        access_modes,
        source: new.source,
        staged: false,
    }
}
