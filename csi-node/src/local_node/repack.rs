//! Compressing snapshots in the background, one at a time, while nobody else needs the disk or the processors.
//!
//! What is to be compressed is in the records: nothing is remembered over a restart, and what was interrupted begins anew. No claim
//! is held meanwhile: the snapshot can be restored, cloned and deleted as if nothing happened, and the pool itself keeps apart
//! what must not meet when the image is replaced.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pool::fault::{Step, reached};
use pool::record::{Compression, SnapshotRecord};
use pool::{Context, ErrorKind, PackedContent, Pool, Room, SnapshotId};
use proto::errors::Failure;
use snapshot_engine::{Pack, Watch};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::LocalNode;
use super::progress::Running;
use crate::failure;

/// After a failure a snapshot is left alone for so long: room has to come from somewhere first.
const PAUSE: Duration = Duration::from_secs(60);

/// What the background work knows.
#[derive(Debug, Default)]
pub(super) struct Repacking {
    wake: Notify,
    /// Until when snapshots are left alone that could not be compressed.
    paused: Mutex<HashMap<SnapshotId, Instant>>,
}

impl LocalNode {
    /// Lets the background work look for something to do.
    pub(super) fn repack_soon(&self) {
        self.0.repacking.wake.notify_one();
    }

    /// Compresses what is to be compressed until the future is dropped.
    pub(super) async fn keep_packed(&self, interval: Duration) {
        loop {
            while self.may_go_on() && self.repack_one().await {}
            let woken = self.0.repacking.wake.notified();
            if tokio::time::timeout(interval, woken).await.is_err() {
                tracing::trace!("looking for snapshots to compress");
            }
        }
    }

    /// Compresses one snapshot. Whether there was one.
    async fn repack_one(&self) -> bool {
        let Some(id) = self.next_to_repack() else {
            return false;
        };
        let worked_on = id.clone();
        let repacked = self
            .background(move |node| {
                let copying = node.0.copying.begin(worked_on.as_str());
                let running = node.watch(&copying);
                repack(&*node.pool()?, &worked_on, &running).map_err(failure::of)
            })
            .await;
        match repacked {
            Ok(Some(record)) => {
                tracing::info!(snapshot = %id, bytes = record.charge_bytes, "compressed a snapshot");
                self.tell(&id);
                self.empty_trash_soon();
            }
            Ok(None) => {
                tracing::debug!(snapshot = %id, "a snapshot is not there any more to be compressed");
            }
            Err(error) => self.pause(&id, &error),
        }
        true
    }

    fn next_to_repack(&self) -> Option<SnapshotId> {
        let pool = self.0.pool.peek()?;
        let now = Instant::now();
        let mut paused = self.paused();
        paused.retain(|_, until| *until > now);
        wanted(&pool).find(|id| !paused.contains_key(id))
    }

    fn pause(&self, id: &SnapshotId, error: &Failure) {
        if self.may_go_on() {
            tracing::warn!(snapshot = %id, %error, "a snapshot could not be compressed; it stays as it is, and it is tried again");
        }
        self.paused().insert(id.clone(), Instant::now() + PAUSE);
    }

    fn paused(&self) -> std::sync::MutexGuard<'_, HashMap<SnapshotId, Instant>> {
        self.0
            .repacking
            .paused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The snapshots that are to be compressed now.
///
/// One whose data is to be digested waits until that is done, so that what comes out can be held against what was cut; one that
/// is damaged stays as it is.
fn wanted(pool: &Pool) -> impl Iterator<Item = SnapshotId> + use<> {
    let (records, _) = pool.snapshots(None, usize::MAX, |record| {
        let digest_is_missing = record
            .checksum
            .as_ref()
            .is_some_and(|checksum| checksum.digest.is_none());
        record.packing.is_wanted() && record.damage.is_none() && !digest_is_missing
    });
    records.into_iter().map(|record| record.id.clone())
}

/// `None` when the snapshot was deleted, or was done by somebody else.
fn repack(
    pool: &Pool,
    id: &SnapshotId,
    running: &Running<'_>,
) -> pool::Result<Option<SnapshotRecord>> {
    let gone = |kind| matches!(kind, ErrorKind::NotFound | ErrorKind::Conflict);
    let started = match pool.snapshot(id) {
        Err(error) if gone(error.kind()) => return Ok(None),
        started => started?,
    };
    // Not only one of this id: it can be deleted and made anew meanwhile.
    let still_there = || pool.snapshots(None, 1, |record| *record == started).0.len() == 1;
    let watch = Watch {
        deadline: None,
        // A pool that is opened again waits for those who still have it open.
        keep_going: &|| running.may_go_on() && pool.guard().is_ok() && still_there(),
        progress: &|done, total| running.at(done, total),
    };
    let replaced = pool.repack_snapshot(id, |record, image, target, room| {
        write(record, image, target, &watch, room)
    });
    match replaced {
        Ok(record) => Ok(Some(record)),
        Err(error) if gone(error.kind()) || !still_there() => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(
    record: &SnapshotRecord,
    image: &File,
    target: &File,
    watch: &Watch<'_>,
    room: &Room<'_>,
) -> pool::Result<PackedContent> {
    let how = Pack {
        compression: Some(Compression::Zstd),
        watch,
        room: &|bytes| {
            room.reserve(bytes)?;
            reached(Step::RepackStarted)
        },
        idle: true,
    };
    let packed = snapshot_engine::pack(image, record, target, &how)?;
    reached(Step::RepackImageWritten)?;
    target.sync_all().during("sync the compressed image")?;
    reached(Step::RepackImageSynced)?;
    packed.verify(target)?;
    reached(Step::RepackVerified)?;
    Ok(PackedContent {
        charge_bytes: packed.charge_bytes(target)?,
        data_offset: packed.data_offset,
        packed: packed.packed(),
        metadata_digest: packed.metadata_digest,
    })
}
