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
use crate::held::OpenSnapshot;
use crate::id::SnapshotId;
use crate::index::read_snapshot;
use crate::layout::SNAPSHOT_IMAGE;
use crate::record::{self, Kind, Packed, Packing, SnapshotRecord};
use crate::size::MIB;

/// So much more is reserved than was asked for: what was asked for before and is still being written, 1 MiB by each of 16 workers.
const IN_FLIGHT_BYTES: u64 = 16 * MIB;
/// And so much before anything is asked for: there is no use in beginning without it.
const AT_FIRST_BYTES: u64 = MIB;

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
/// will be written next has to be kept free. It is asked for in large steps, by a thread that yields to nobody: to find it can take
/// a look at every image, and everybody else who needs room waits meanwhile.
#[derive(Debug)]
pub struct Room<'pool>(Mutex<Reservation<'pool>>);

impl<'pool> Room<'pool> {
    fn new(pool: &'pool Pool) -> Result<Self> {
        let reservation = pool.reserve(wanted(AT_FIRST_BYTES))?;
        Ok(Self(Mutex::new(reservation)))
    }

    /// To be called before the image grows from `now` bytes to `then`. What was asked for before and lies behind `now` is
    /// asked for again by that.
    ///
    /// # Errors
    /// `NoSpace`; what was granted before is then still kept free.
    pub fn reserve(&self, now: u64, then: u64) -> Result<()> {
        let mut reservation = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reservation.change_to(wanted(then.saturating_sub(now)))
    }
}

fn wanted(bytes: u64) -> Want {
    let bytes = bytes + IN_FLIGHT_BYTES;
    Want {
        volume_sizes: 0,
        snapshot_charges: bytes,
        pending: bytes,
    }
}

impl Pool {
    /// Replaces the image of a snapshot whose record wants it. `pack` writes the new image, which is empty, makes it durable,
    /// verifies it and says what it is; it asks for [`Room`] before the image grows.
    ///
    /// 1. The first room is reserved.
    /// 2. A folder and an empty image (0400) are made in `tmp/`.
    /// 3. `pack`: the image is written, synced and verified (its own steps).
    /// 4. The new record is written and synced, and so is the folder: what was found out of the snapshot meanwhile is in it.
    /// 5. The folder in `tmp/` and the one in `snapshots/` change places: the commit point, for image and record together.
    /// 6. `snapshots/` and `tmp/` are synced.
    /// 7. The old folder is renamed from `tmp/` into `trash/`.
    ///
    /// The snapshot can be used all the time. If we stop after 1 to 4, recovery removes the new folder in `tmp/`; after 5 the
    /// snapshot has its old image and record or its new ones, and recovery removes the others; after 6 it has the new ones.
    ///
    /// # Errors
    /// `NotFound` when it was deleted, `Conflict` when it is another one meanwhile, is damaged, or does not want to be packed,
    /// `NoSpace`, what `pack` answers. The snapshot is then as it was, but after `Uncertain`.
    pub fn repack_snapshot(
        &self,
        id: &SnapshotId,
        pack: impl FnOnce(&OpenSnapshot, &File, &Room<'_>) -> Result<PackedContent>,
    ) -> Result<SnapshotRecord> {
        self.guard()?;
        self.repack(id, pack)
            .map_err(|error| self.name_what_ran_out(error))
    }

    fn repack(
        &self,
        id: &SnapshotId,
        pack: impl FnOnce(&OpenSnapshot, &File, &Room<'_>) -> Result<PackedContent>,
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
        let content = pack(&old, &image, &room)?;
        let record = self.exchange(&mut draft, &old.record, content)?;
        drop(room);
        Ok(record)
    }

    /// Steps 4 to 7.
    fn exchange(
        &self,
        draft: &mut Draft<'_>,
        old: &SnapshotRecord,
        content: PackedContent,
    ) -> Result<SnapshotRecord> {
        let id = &old.id;
        let (new, charged) = {
            // Who deletes the snapshot, makes another one of this name afterwards, or records something of it, is either before
            // us or behind.
            let _alone = self.lock_snapshot_records();
            let now = read_snapshot(&self.layout, id.as_str())?;
            if !is_same(&now, old) || now.damage.is_some() {
                return Err(changed(id));
            }
            let new = SnapshotRecord {
                charge_bytes: content.charge_bytes,
                data_offset: content.data_offset,
                metadata_digest: content.metadata_digest,
                packing: Packing::Done(content.packed),
                ..now
            };
            let bytes = record::encode_as(Kind::Snapshot, new.version(), &new)?;
            durable::write_record(&draft.folder, &bytes)?;
            reached(Step::RepackRecordWritten)?;
            draft.exchange(&self.layout.snapshots, id.as_str())?;
            // The old image is charged until it is in the trash, where it counts by itself.
            let charged = self.enter(Want {
                snapshot_charges: old.charge_bytes,
                ..Want::default()
            });
            self.state()
                .index
                .snapshots
                .insert(id.clone(), Arc::new(new.clone()));
            (new, charged)
        };
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
            std::mem::forget(charged);
        }
        Ok(new)
    }
}

/// Whether a record is still that of the same image: what was found out of it may have changed.
fn is_same(now: &SnapshotRecord, old: &SnapshotRecord) -> bool {
    let image = |record: &SnapshotRecord| SnapshotRecord {
        checksum: None,
        damage: None,
        ..record.clone()
    };
    image(now) == image(old)
}

fn changed(id: &SnapshotId) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("the snapshot {id} changed meanwhile; nothing was replaced"),
    )
}
