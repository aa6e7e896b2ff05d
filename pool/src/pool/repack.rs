//! Replacing a snapshot's image by a smaller one of the same disk, and its record with it.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::Pool;
use super::admission::{Reservation, Want};
use super::object::Draft;
use crate::durable;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::fault::{Step, reached};
use crate::id::SnapshotId;
use crate::index::read_snapshot;
use crate::layout::SNAPSHOT_IMAGE;
use crate::record::{self, Kind, Packed, Packing, SnapshotRecord};
use crate::size::MIB;

/// So much room is reserved ahead of what is written.
const AHEAD_BYTES: u64 = 64 * MIB;
/// And so much more, for what was asked for and is still being written.
const IN_FLIGHT_BYTES: u64 = 16 * MIB;

/// What the snapshot engine made of an image when it packed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedContent {
    /// What the new image has allocated, in bytes.
    pub charge_bytes: u64,
    /// Where the data begins in the new image, in bytes.
    pub data_offset: u64,
    /// BLAKE3 of the new image's tables.
    pub metadata_digest: String,
    /// How it is packed, and its size.
    pub packed: Packed,
}

/// The room for an image whose size nobody knows before it is written. What is written counts as used by itself; only what
/// will be written next has to be kept free.
#[derive(Debug)]
pub struct Room<'pool> {
    pool: &'pool Pool,
    ahead: Mutex<Ahead<'pool>>,
}

#[derive(Debug)]
struct Ahead<'pool> {
    until: u64,
    reservation: Option<Reservation<'pool>>,
}

impl<'pool> Room<'pool> {
    fn new(pool: &'pool Pool) -> Result<Self> {
        let ahead = Mutex::new(Ahead {
            until: 0,
            reservation: None,
        });
        let room = Self { pool, ahead };
        room.reserve(0)?;
        Ok(room)
    }

    /// To be called before the image grows to `bytes`.
    ///
    /// # Errors
    /// `NoSpace`.
    pub fn reserve(&self, bytes: u64) -> Result<()> {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if ahead.reservation.is_some() && bytes <= ahead.until {
            return Ok(());
        }
        let until = bytes + AHEAD_BYTES;
        let more = until - ahead.until + IN_FLIGHT_BYTES;
        let next = self.pool.reserve(Want {
            volume_sizes: 0,
            snapshot_charges: more,
            pending: more,
        })?;
        // Only now is the last one given back: what it was for is written, or is being written.
        *ahead = Ahead {
            until,
            reservation: Some(next),
        };
        Ok(())
    }
}

impl Pool {
    /// Replaces the image of a snapshot whose record wants it. `pack` writes the new image, which is empty, makes it durable,
    /// verifies it and says what it is; it asks for [`Room`] before the image grows.
    ///
    /// 1. The first room is reserved.
    /// 2. A folder and an empty image (0400) are made in `tmp/`.
    /// 3. `pack`: the image is written, synced and verified (its own steps).
    /// 4. The new record is written and synced, and so is the folder.
    /// 5. The folder in `tmp/` and the one in `snapshots/` change places: the commit point, for image and record together.
    /// 6. `snapshots/` and `tmp/` are synced.
    /// 7. The old folder is renamed from `tmp/` into `trash/`.
    ///
    /// The snapshot can be used all the time. If we stop after 1 to 4, recovery removes the new folder in `tmp/`; after 5 the
    /// snapshot has its old image and record or its new ones, and recovery removes the others; after 6 it has the new ones.
    ///
    /// # Errors
    /// `NotFound` when it was deleted, `Conflict` when it changed meanwhile or does not want to be packed, `NoSpace`, what
    /// `pack` answers. The snapshot is then as it was, but after `Uncertain`.
    pub fn repack_snapshot(
        &self,
        id: &SnapshotId,
        pack: impl FnOnce(&SnapshotRecord, &File, &File, &Room<'_>) -> Result<PackedContent>,
    ) -> Result<SnapshotRecord> {
        self.guard()?;
        self.repack(id, pack)
            .map_err(|error| self.name_what_ran_out(error))
    }

    fn repack(
        &self,
        id: &SnapshotId,
        pack: impl FnOnce(&SnapshotRecord, &File, &File, &Room<'_>) -> Result<PackedContent>,
    ) -> Result<SnapshotRecord> {
        let old = self.open_snapshot(id)?;
        if !old.record.packing.is_wanted() {
            return Err(changed(id));
        }
        let room = Room::new(self)?;
        reached(Step::RepackReserved)?;
        let mut draft = Draft::new(self, id.as_str(), SNAPSHOT_IMAGE)?;
        let image = draft.make_image()?;
        image
            .set_permissions(Permissions::from_mode(0o400))
            .during("make a snapshot read-only")?;
        reached(Step::RepackFolderMade)?;
        let content = pack(&old.record, old.image(), &image, &room)?;
        let record = SnapshotRecord {
            charge_bytes: content.charge_bytes,
            data_offset: content.data_offset,
            metadata_digest: content.metadata_digest,
            packing: Packing::Done(content.packed),
            ..old.record.clone()
        };
        let bytes = record::encode_as(Kind::Snapshot, record.version(), &record)?;
        durable::write_record(&draft.folder, &bytes)?;
        reached(Step::RepackRecordWritten)?;
        self.exchange(&mut draft, &old.record, &record)?;
        drop(room);
        Ok(record)
    }

    /// Steps 5 to 7.
    fn exchange(
        &self,
        draft: &mut Draft<'_>,
        old: &SnapshotRecord,
        new: &SnapshotRecord,
    ) -> Result<()> {
        let id = &new.id;
        {
            // Who deletes the snapshot, or makes another one of this name afterwards, is either before us or behind.
            let _alone = self.lock_snapshot_records();
            if read_snapshot(&self.layout, id.as_str())? != *old {
                return Err(changed(id));
            }
            draft.exchange(&self.layout.snapshots, id.as_str())?;
            self.state()
                .index
                .snapshots
                .insert(id.clone(), Arc::new(new.clone()));
        }
        let synced = reached(Step::RepackExchanged)
            .and_then(|()| self.layout.snapshots.sync())
            .and_then(|()| self.layout.tmp.sync())
            .and_then(|()| reached(Step::RepackParentsSynced));
        synced.map_err(|error| {
            self.distrust();
            error.with_kind(ErrorKind::Uncertain)
        })?;
        let name = format!("{id}.{}", Uuid::new_v4());
        let moved = draft
            .move_to(&self.layout.trash, &name)
            .and_then(|()| reached(Step::RepackOldMoved));
        if let Err(error) = moved {
            // Not lost: the next start sweeps tmp/.
            tracing::warn!(snapshot = %id, %error, "the image before it was compressed stays until the next start");
        }
        Ok(())
    }
}

fn changed(id: &SnapshotId) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("the snapshot {id} changed meanwhile; nothing was replaced"),
    )
}
