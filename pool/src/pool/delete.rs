//! Deleting: one rename into `trash/` decides, the bytes go later.

use uuid::Uuid;

use super::Pool;
use super::object;
use crate::device;
use crate::durable::{self, Folder};
use crate::error::{ErrorKind, Result};
use crate::fault::{Step, reached};
use crate::id::{SnapshotId, VolumeId};

/// Where the steps of a deletion are marked.
struct Steps {
    checked: Step,
    moved: Step,
    parents_synced: Step,
}

impl Pool {
    /// Deletes a volume. One that is not there is deleted already. Its snapshots and clones stay.
    ///
    /// 1. Nothing uses it: no loop device is bound to its image.
    /// 2. Its folder is renamed into `trash/`: the commit point.
    /// 3. `trash/` and `volumes/` are synced. Only now is it answered; the bytes are freed by [`Pool::empty_trash`].
    ///
    /// # Errors
    /// `InUse` while a loop device is bound, `Corrupt` when the record cannot be trusted: what we do not know is kept.
    pub fn delete_volume(&self, id: &VolumeId) -> Result<()> {
        self.guard()?;
        match self.volume(id) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        match self.open_image(id, false) {
            Ok(image) => device::refuse_if_attached(&image, id.as_str())?,
            // The image was removed behind our back; there is nothing left to lose.
            Err(error) if error.kind() == ErrorKind::Corrupt => {}
            Err(error) => return Err(error),
        }
        let steps = Steps {
            checked: Step::DeleteChecked,
            moved: Step::DeleteMoved,
            parents_synced: Step::DeleteParentsSynced,
        };
        self.move_to_trash(&self.layout.volumes, id.as_str(), &steps)?;
        self.state().index.volumes.remove(id);
        Ok(())
    }

    /// Deletes a snapshot, as [`Pool::delete_volume`]. Volumes restored from it stay.
    ///
    /// # Errors
    /// `Corrupt` when the record cannot be trusted.
    pub fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        self.guard()?;
        match self.snapshot(id) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        let steps = Steps {
            checked: Step::DeleteSnapshotChecked,
            moved: Step::DeleteSnapshotMoved,
            parents_synced: Step::DeleteSnapshotParentsSynced,
        };
        // Not while its image and record are replaced: what is deleted is one of the two, whole.
        let _records = self.lock_snapshot_records();
        self.move_to_trash(&self.layout.snapshots, id.as_str(), &steps)?;
        self.state().index.snapshots.remove(id);
        Ok(())
    }

    fn move_to_trash(&self, parent: &Folder, id: &str, steps: &Steps) -> Result<()> {
        object::exists(parent, id, "object")?;
        reached(steps.checked)?;
        durable::rename(
            parent,
            id,
            &self.layout.trash,
            &format!("{id}.{}", Uuid::new_v4()),
        )?;
        let synced = reached(steps.moved)
            .and_then(|()| self.layout.trash.sync())
            .and_then(|()| parent.sync())
            .and_then(|()| reached(steps.parents_synced));
        synced.map_err(|error| {
            self.distrust();
            error.with_kind(ErrorKind::Uncertain)
        })
    }
}
