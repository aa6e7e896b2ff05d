//! Changing what is recorded of a snapshot's data.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::Pool;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::SnapshotId;
use crate::record::{self, Kind, SnapshotRecord};

impl Pool {
    /// Changes the record of a snapshot, durably. `image` is the file that the news were read from: they mean nothing for
    /// another one. `None` where there was no file to read.
    ///
    /// # Errors
    /// `NotFound` when the snapshot was deleted, `Conflict` when its image is another file by now: nothing is changed then.
    /// `Corrupt`, the kernel's: the record is as before. After `Uncertain` the pool is opened again before anything else is
    /// changed.
    pub fn update_snapshot(
        &self,
        id: &SnapshotId,
        image: Option<&File>,
        change: impl FnOnce(&mut SnapshotRecord),
    ) -> Result<SnapshotRecord> {
        self.guard()?;
        let _records = self.lock_snapshot_records();
        let mut record = self.snapshot(id)?;
        if let Some(image) = image {
            self.check_same_image(id, image)?;
        }
        let before = record.clone();
        change(&mut record);
        if record == before {
            return Ok(record);
        }
        let folder = self.layout.snapshots.folder(id.as_str())?;
        let bytes = record::encode_as(Kind::Snapshot, record.version(), &record)?;
        self.replace_record(&folder, id.as_str(), &bytes)?;
        let record_now = Arc::new(record.clone());
        self.state().index.snapshots.insert(id.clone(), record_now);
        Ok(record)
    }

    pub(super) fn lock_snapshot_records(&self) -> MutexGuard<'_, ()> {
        // It guards what is on the disk, which a panic leaves whole.
        self.snapshot_records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn check_same_image(&self, id: &SnapshotId, image: &File) -> Result<()> {
        let key = |file: &File| -> Result<(u64, u64)> {
            let metadata = file.metadata().during("look at a snapshot's image")?;
            Ok((metadata.dev(), metadata.ino()))
        };
        if key(self.open_snapshot(id)?.image())? == key(image)? {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Conflict,
            format!("the image of {id} was replaced meanwhile"),
        ))
    }
}
