//! Compressing snapshots in the background, one at a time, while nobody else needs the disk or the processors.
//!
//! What is to be compressed is in the records: nothing is remembered over a restart, and what was interrupted begins anew. No claim
//! is held meanwhile: the snapshot can be restored, cloned and deleted as if nothing happened, and the pool itself keeps apart
//! what must not meet when the image is replaced.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pool::fault::{Step, reached};
use pool::record::{Compression, DataChecksum, SnapshotRecord, Timestamp};
use pool::{Context, Error, ErrorKind, OpenSnapshot, PackedContent, Pool, Room, SnapshotId};
use proto::errors::{Failure, Kind};
use snapshot_engine::{Pack, Proof, Watch};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::LocalNode;
use super::progress::Running;
use crate::failure;

/// After a failure a snapshot is left alone for so long, and after each further one twice as long as before.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// But never longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// What the background work knows.
#[derive(Debug, Default)]
pub(super) struct Repacking {
    wake: Notify,
    /// Snapshots that could not be compressed.
    paused: Mutex<HashMap<SnapshotId, Pause>>,
    failures: AtomicU64,
}

/// A snapshot that is to be compressed. Another one may be made under its id.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    id: SnapshotId,
    created: Timestamp,
}

/// A snapshot that is left alone for a while.
#[derive(Clone, Copy, Debug)]
struct Pause {
    created: Timestamp,
    until: Instant,
    /// How often it failed, one time after the other.
    failures: u32,
    /// How many bytes the pool could promise when it failed for want of room: with no more than that it fails again.
    available: Option<u64>,
}

impl LocalNode {
    /// How often the compression of a snapshot failed since the start.
    #[must_use]
    pub fn compression_failures(&self) -> u64 {
        self.0.repacking.failures.load(Ordering::Relaxed)
    }

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
        let next = self.short(|node| Ok(node.next_to_repack())).await;
        let Some(next) = next.unwrap_or_default() else {
            return false;
        };
        let id = &next.id;
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
                self.paused().remove(id);
                self.tell(id);
                self.empty_trash_soon();
            }
            Ok(None) => {
                tracing::debug!(snapshot = %id, "a snapshot is not there any more to be compressed");
                // Forgotten with it; if it is there after all, not the next one again and again.
                self.leave_alone(&next, None);
            }
            Err(error) => self.pause(&next, &error).await,
        }
        true
    }

    /// Blocks: how full the pool is may have to be measured.
    fn next_to_repack(&self) -> Option<Wanted> {
        let pool = self.0.pool.peek()?;
        let wanted: Vec<_> = wanted(&pool).collect();
        let now = Instant::now();
        let mut available = None;
        let mut paused = self.paused();
        paused.retain(|id, pause| {
            let mut same = wanted.iter().filter(|wanted| wanted.id == *id);
            same.any(|wanted| wanted.created == pause.created)
        });
        wanted.into_iter().find(|wanted| {
            let Some(pause) = paused.get_mut(&wanted.id) else {
                return true;
            };
            if pause.until > now {
                return false;
            }
            let Some(then) = pause.available else {
                return true;
            };
            let available = *available.get_or_insert_with(|| room(&pool));
            if available > then {
                return true;
            }
            pause.until = now + FIRST_PAUSE;
            false
        })
    }

    async fn pause(&self, failed: &Wanted, error: &Failure) {
        if !self.may_go_on() {
            return;
        }
        self.0.repacking.failures.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(snapshot = %failed.id, %error, "a snapshot could not be compressed; it stays as it is, and it is tried again");
        let available = match error.kind {
            Kind::NoSpace => self.short(|node| Ok(room(&*node.pool()?))).await.ok(),
            _ => None,
        };
        self.leave_alone(failed, available);
    }

    fn leave_alone(&self, failed: &Wanted, available: Option<u64>) {
        let mut paused = self.paused();
        let failures = paused.get(&failed.id).map_or(0, |pause| pause.failures);
        let pause = Pause {
            created: failed.created,
            until: Instant::now() + pause_after(failures),
            failures: failures.saturating_add(1),
            available,
        };
        paused.insert(failed.id.clone(), pause);
    }

    fn paused(&self) -> MutexGuard<'_, HashMap<SnapshotId, Pause>> {
        self.0
            .repacking
            .paused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a snapshot is left alone that has failed so often before.
fn pause_after(failures: u32) -> Duration {
    let factor = 1u32.checked_shl(failures).unwrap_or(u32::MAX);
    FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
}

/// How many bytes the pool can promise now.
fn room(pool: &Pool) -> u64 {
    pool.usage().map_or(0, |usage| usage.available())
}

/// The snapshots that are to be compressed now.
///
/// One whose data is to be digested waits until that is done, so that what comes out can be held against what was cut; one that
/// is damaged stays as it is.
fn wanted(pool: &Pool) -> impl Iterator<Item = Wanted> + use<> {
    let (records, _) = pool.snapshots(None, usize::MAX, |record| {
        let digest_is_missing = record
            .checksum
            .as_ref()
            .is_some_and(|checksum| checksum.digest.is_none());
        record.packing.is_wanted() && record.damage.is_none() && !digest_is_missing
    });
    records.into_iter().map(|record| Wanted {
        id: record.id.clone(),
        created: record.created,
    })
}

/// `None` when the snapshot was deleted, is damaged, or was done by somebody else.
fn repack(
    pool: &Pool,
    id: &SnapshotId,
    running: &Running<'_>,
) -> pool::Result<Option<SnapshotRecord>> {
    let mut is_there = true;
    let replaced = pool.repack_snapshot(id, |old, target, room| {
        let watch = Watch {
            deadline: None,
            // A snapshot that is deleted is not freed while it is read.
            keep_going: &|| running.may_go_on() && pool.is_current(old),
            progress: &|done, total| running.at(done, total),
        };
        let written = write(old, target, &watch, room);
        is_there = pool.is_current(old);
        written
    });
    match replaced {
        Ok(record) => Ok(Some(record)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => Ok(None),
        Err(_) if !is_there && pool.guard().is_ok() => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(
    old: &OpenSnapshot,
    target: &File,
    watch: &Watch<'_>,
    room: &Room<'_>,
) -> pool::Result<PackedContent> {
    let record = &old.record;
    let how = Pack {
        compression: Some(Compression::Zstd),
        watch,
        room: &|now, then| {
            room.reserve(now, then)?;
            reached(Step::RepackStarted)
        },
        idle: true,
        proof: proof(record.checksum.as_ref()),
        digest: known_digest(record).is_some(),
    };
    let packed = snapshot_engine::pack(old.image(), record, target, &how)?;
    reached(Step::RepackImageWritten)?;
    refuse_changed(record, packed.data_digest.as_ref())?;
    target.sync_all().during("sync the compressed image")?;
    reached(Step::RepackImageSynced)?;
    let silent = Watch {
        progress: &|_done, _total| {},
        ..*watch
    };
    let how = Pack {
        watch: &silent,
        ..how
    };
    packed.verify(target, record.virtual_bytes, &how)?;
    reached(Step::RepackVerified)?;
    Ok(PackedContent {
        charge_bytes: packed.charge_bytes(target)?,
        data_offset: packed.data_offset,
        packed: packed.packed(),
        metadata_digest: packed.metadata_digest,
    })
}

/// Whoever wants no digest wants no I/O that is not needed: what a sync answers for is on the disk.
fn proof(checksum: Option<&DataChecksum>) -> Proof {
    match checksum {
        Some(_) => Proof::ReadBack,
        None => Proof::Decoded,
    }
}

fn known_digest(record: &SnapshotRecord) -> Option<&String> {
    let checksum = record.checksum.as_ref();
    checksum.and_then(|checksum| checksum.digest.as_ref())
}

/// What is not what was cut is left to the scrub, which marks it: a compressed image of it would be of the wrong disk for good.
fn refuse_changed(record: &SnapshotRecord, found: Option<&String>) -> pool::Result<()> {
    let known = known_digest(record);
    if known.is_none() || known == found {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        format!(
            "the data of {} has changed since it was digested; see `vdctl snapshot verify {}`",
            record.id, record.id
        ),
    ))
}

#[cfg(test)]
mod tests {
    use pool::record::Checksum;

    use super::*;

    #[test]
    fn data_is_read_back_where_its_class_wants_a_checksum_and_decoded_everywhere() {
        let checksum = DataChecksum {
            algorithm: Checksum::Blake3,
            digest: Some(String::new()),
            verified: None,
        };
        assert_eq!(proof(Some(&checksum)), Proof::ReadBack);
        assert_eq!(proof(None), Proof::Decoded);
    }

    #[test]
    fn pauses_double_up_to_six_hours() {
        let minutes = |failures| pause_after(failures).as_secs() / 60;
        assert_eq!([0, 1, 2, 8].map(minutes), [1, 2, 4, 256]);
        for many in [9, 31, 32, 1000, u32::MAX] {
            assert_eq!(pause_after(many), LONGEST_PAUSE);
        }
    }
}
