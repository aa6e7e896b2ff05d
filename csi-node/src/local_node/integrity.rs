//! Whether snapshots are still what they were: the first digest of their data, and holding them against it.
//!
//! ```text
//! cut ──> record: checksum wanted ──> digest (background) ──> record: digest ──> verify, again and again
//!                                                                                  │ sound: record says when
//!                                                                                  └ not: record is marked, nothing is restored
//! ```
//! What is found is in the record, so it survives a restart; the image is only ever read. What was read of a snapshot that is
//! deleted meanwhile, or whose image is replaced, means nothing: the reading ends, so that the space is free, and nothing is
//! recorded.
//!
//! Reading has a thread of its own with the lowest priorities, which takes no lock: whoever waits for one that an idle thread has
//! waits for everybody else's disk. Records are read and written by the thread that asked.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pool::fault::{Step, reached};
use pool::record::{Damage, SnapshotRecord, Timestamp};
use pool::{Context, Error, ErrorKind, OpenSnapshot, Pool, SnapshotId};
use proto::errors::Failure;
use snapshot_engine::{Findings, Watch, data_digest, verify_with_data};
use tokio::sync::{Notify, broadcast};

use super::LocalNode;
use super::progress::time_for;
use crate::blocking::Work;
use crate::failure;

/// How many changes may wait for somebody who follows them; who comes too late looks at everything from time to time anyway.
const CHANGES: usize = 256;
/// The longest reason that is recorded, in bytes: a record has to stay small.
const LONGEST_REASON: usize = 1000;
/// The longest sleep of a reader that is ahead of its pace, so that it hears soon that it is not wanted any more.
const NAP: Duration = Duration::from_millis(50);

/// What those who follow snapshots share.
#[derive(Debug)]
pub(super) struct Integrity {
    /// Rung when there is a snapshot whose data has no digest yet.
    pub(super) wanted: Notify,
    /// Snapshots of which something new is recorded, by id.
    changed: broadcast::Sender<String>,
    /// Snapshots that the disk did not give when they were to be read, and what it said: no proof of damage.
    unreadable: Mutex<BTreeMap<SnapshotId, String>>,
}

impl Integrity {
    pub(super) fn unreadable(&self) -> MutexGuard<'_, BTreeMap<SnapshotId, String>> {
        self.unreadable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Integrity {
    fn default() -> Self {
        Self {
            wanted: Notify::new(),
            changed: broadcast::Sender::new(CHANGES),
            unreadable: Mutex::default(),
        }
    }
}

/// What came of holding a snapshot against its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The first things that are wrong; none for a sound snapshot.
    pub problems: Vec<String>,
    /// How many more there are.
    pub more: u64,
    /// The data was compared with a digest.
    pub data_checked: bool,
}

/// How fast data may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// As fast as it goes: somebody waits.
    Fast,
    /// At most so many bytes in a second.
    Limited(u64),
}

impl LocalNode {
    /// Holds a snapshot against its record now, and records what came of it: damage is marked; if there is none, an earlier
    /// mark is taken back, because only a person asks for this.
    ///
    /// # Errors
    /// `NotFound`, also when it is deleted meanwhile; `Corrupt` when its record cannot be trusted; `Io`, `Unavailable`.
    pub async fn verify_snapshot(&self, id: &SnapshotId) -> Result<Verdict, Failure> {
        let id = id.clone();
        self.background(move |node| {
            let pool = node.pool()?;
            let verdict = node
                .verify(&pool, &id, Pace::Fast, Mark::SetOrTakeBack)
                .map_err(failure::of)?;
            Ok(verdict)
        })
        .await
    }

    /// Hears the ids of snapshots of which something new is recorded: a digest, damage, a compressed image.
    #[must_use]
    pub fn snapshot_changes(&self) -> broadcast::Receiver<String> {
        self.0.integrity.changed.subscribe()
    }

    /// Runs `work` where no other work waits for it.
    pub(super) async fn background<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let node = self.clone();
        let work = move || work(&node);
        self.0.blocking.run(Work::Background, work).await
    }

    /// Makes the first digest of a snapshot's data.
    pub(super) fn digest(&self, pool: &Pool, id: &SnapshotId, pace: Pace) -> pool::Result<()> {
        let opened = pool.open_snapshot(id)?;
        let digest = self.read(pool, &opened, pace, data_digest)?;
        reached(Step::DigestComputed)?;
        pool.update_snapshot(id, Some(opened.image()), |record| {
            if let Some(checksum) = &mut record.checksum {
                checksum.verified = Some(Timestamp::now());
                checksum.digest = Some(digest);
            }
        })?;
        reached(Step::DigestRecorded)?;
        tracing::info!(snapshot = %id, "the data of the snapshot has a digest");
        self.tell(id);
        if opened.record.packing.is_wanted() {
            // It waited for this.
            self.repack_soon();
        }
        Ok(())
    }

    /// Holds a snapshot against its record, and records what came of it.
    pub(super) fn verify(
        &self,
        pool: &Pool,
        id: &SnapshotId,
        pace: Pace,
        mark: Mark,
    ) -> pool::Result<Verdict> {
        let opened = match pool.open_snapshot(id) {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                // It may have gone with its whole folder.
                pool.snapshot(id)?;
                let verdict = Verdict::of_missing(&error);
                self.mark(pool, id, None, &verdict)?;
                return Ok(verdict);
            }
            Err(error) => return Err(error),
        };
        let findings = self.read(pool, &opened, pace, verify_with_data)?;
        let (image, seen) = (opened.image(), &opened.record.damage);
        let verdict = Verdict::new(&findings, &opened.record);
        if verdict.problems.is_empty() {
            reached(Step::ScrubVerified)?;
            let mut healed = false;
            pool.update_snapshot(id, Some(image), |record| {
                if let Some(checksum) = &mut record.checksum
                    && verdict.data_checked
                {
                    checksum.verified = Some(Timestamp::now());
                }
                // Not a mark that somebody has set since: what he read may be what we read before.
                healed = mark == Mark::SetOrTakeBack && seen.is_some() && record.damage == *seen;
                if healed {
                    record.damage = None;
                }
            })?;
            reached(Step::ScrubRecorded)?;
            if healed {
                tracing::info!(snapshot = %id, "the snapshot is sound again; its mark was taken back");
                self.tell(id);
            }
        } else {
            self.mark(pool, id, Some(image), &verdict)?;
        }
        Ok(verdict)
    }

    fn mark(
        &self,
        pool: &Pool,
        id: &SnapshotId,
        image: Option<&File>,
        verdict: &Verdict,
    ) -> pool::Result<()> {
        let reason = verdict.reason();
        reached(Step::MarkFound)?;
        pool.update_snapshot(id, image, |record| {
            let damage = Damage {
                found: Timestamp::now(),
                reason: reason.clone(),
            };
            record.damage.get_or_insert(damage);
        })?;
        reached(Step::MarkRecorded)?;
        tracing::error!(snapshot = %id, reason, "the snapshot is damaged; it is kept, and nothing is restored from it");
        self.tell(id);
        Ok(())
    }

    /// Tells those who follow snapshots that something new is recorded of this one.
    pub(super) fn tell(&self, id: &SnapshotId) {
        // Nobody has to listen.
        self.0.integrity.changed.send(id.to_string()).ok();
    }

    /// Reads a snapshot at `pace`, where it disturbs nobody, as long as it is there and the pool is.
    fn read<T: Send>(
        &self,
        pool: &Pool,
        opened: &OpenSnapshot,
        pace: Pace,
        read: impl FnOnce(&File, &SnapshotRecord, &Watch<'_>) -> pool::Result<T> + Send,
    ) -> pool::Result<T> {
        let wanted = || self.may_go_on() && pool.guard().is_ok() && pool.is_current(opened);
        let read = || {
            if let Err(error) = pool::sys::yield_to_others() {
                tracing::debug!(%error, "background work runs at the usual priority");
            }
            at_pace(pace, &wanted, |watch| {
                read(opened.image(), &opened.record, watch)
            })
        };
        let done = std::thread::scope(|scope| {
            // A thread of its own: what it gives up of its priorities it does not get back.
            let thread = std::thread::Builder::new().name("integrity".to_owned());
            let thread = thread.spawn_scoped(scope, read).during("start a thread")?;
            thread.join().unwrap_or_else(|_panic| Err(ended()))
        });
        done.map_err(|error| match error.kind() {
            ErrorKind::Uncertain if self.may_go_on() => gone(pool, opened).unwrap_or(error),
            _ => error,
        })
    }
}

/// Why an opened snapshot is not there any more; nothing, while it is.
fn gone(pool: &Pool, opened: &OpenSnapshot) -> Option<Error> {
    pool.guard().err().or_else(|| {
        let unchanged = |_record: &mut SnapshotRecord| {};
        let looked = pool.update_snapshot(&opened.record.id, Some(opened.image()), unchanged);
        looked.err()
    })
}

/// Lets `read` go on as long as it is `wanted`, and no faster than `pace`.
fn at_pace<T>(pace: Pace, wanted: &dyn Fn() -> bool, read: impl FnOnce(&Watch<'_>) -> T) -> T {
    let began = Instant::now();
    let done = std::cell::Cell::new(0);
    read(&Watch {
        deadline: None,
        keep_going: &|| {
            if let Pace::Limited(bytes_per_second) = pace {
                // Holes take no time to read, so they are not slept for: a MiB is read between two looks.
                done.set(done.get() + READ_AT_ONCE);
                let due = began + time_for(done.get(), bytes_per_second);
                while wanted() && Instant::now() < due {
                    std::thread::sleep(NAP.min(due.saturating_duration_since(Instant::now())));
                }
            }
            wanted()
        },
        progress: &|_done, _total| {},
    })
}

/// What is read between two looks at the clock, at most.
const READ_AT_ONCE: u64 = 1 << 20;

/// What may become of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It is set if something is wrong.
    Set,
    /// It is set, or taken back if nothing is wrong.
    SetOrTakeBack,
}

impl Verdict {
    fn new(findings: &Findings, record: &SnapshotRecord) -> Self {
        let checksum = record.checksum.as_ref();
        Self {
            problems: findings.problems.iter().map(ToString::to_string).collect(),
            more: findings.more,
            data_checked: checksum.is_some_and(|checksum| checksum.digest.is_some()),
        }
    }

    fn of_missing(error: &Error) -> Self {
        Self {
            problems: vec![error.to_string()],
            more: 0,
            data_checked: false,
        }
    }

    /// The first problem, short enough for a record.
    fn reason(&self) -> String {
        let mut reason = self.problems.first().cloned().unwrap_or_default();
        while reason.len() > LONGEST_REASON {
            reason.pop();
        }
        let others = self.more + self.problems.len().saturating_sub(1) as u64;
        if others > 0 {
            reason.push_str(&format!(", and {others} more"));
        }
        reason
    }
}

/// Refuses a snapshot that is known to be damaged.
///
/// # Errors
/// `Corrupt`, with what was found and what to do.
pub(super) fn refuse_damaged(record: &SnapshotRecord) -> pool::Result<()> {
    match &record.damage {
        None => Ok(()),
        Some(damage) => Err(Error::new(ErrorKind::Corrupt, describe(record, damage))),
    }
}

/// What is known to be wrong with a snapshot, and what to do, for people.
#[must_use]
pub fn describe(record: &SnapshotRecord, damage: &Damage) -> String {
    format!(
        "the snapshot {} is damaged: {}. Nothing is restored from it. Use another snapshot; if this one was repaired, `vdctl \
         snapshot verify {}` takes the mark back",
        record.id, damage.reason, record.id
    )
}

fn ended() -> Error {
    Error::new(
        ErrorKind::Internal,
        "the operation ended without an answer; see the log of the driver",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_short_and_says_how_many_more_there_are() {
        let verdict = Verdict {
            problems: vec!["x".repeat(5000), "y".to_owned()],
            more: 3,
            data_checked: false,
        };
        let reason = verdict.reason();
        assert!(reason.len() < LONGEST_REASON + 20);
        assert!(reason.ends_with(", and 4 more"), "{reason}");
    }
}
