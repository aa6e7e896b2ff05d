//! Looking after the data of snapshots whose class asks for a digest: making it soon after the cut, and holding the data
//! against it again and again. One snapshot at a time; of others nothing is read.
//!
//! When a snapshot was found sound is in its record, so neither a restart nor a node that is off at night changes the turns.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pool::record::{SnapshotRecord, Timestamp};
use pool::{Pool, SnapshotId};
use proto::errors::{Failure, Kind};

use super::LocalNode;
use super::integrity::{Mark, Pace};
use crate::failure;

/// How often it is looked for something to do, at least. Nothing is read for that.
const TICK: Duration = Duration::from_secs(5);
/// How long a snapshot that cannot be read is left alone, at most.
const REST: Duration = Duration::from_secs(600);

/// How snapshots are looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrub {
    /// How long after it was found sound a snapshot is read again; `None`: never.
    pub period: Period,
    /// How many bytes are read in a second, at most.
    pub rate: Rate,
}

/// How long after it was found sound a snapshot is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Option<Duration>);

/// Bytes in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u64);

impl FromStr for Period {
    type Err = String;

    /// Reads `never`, or a number with one of the units `s`, `m`, `h` and `d`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self(None));
        }
        let bad = || format!("{text:?} is no period: give 7d, 12h, 30m, 90s or never");
        let (number, unit) = text
            .split_at_checked(text.len().saturating_sub(1))
            .ok_or_else(bad)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(bad()),
        };
        let number: u32 = number.parse().map_err(|_no_number| bad())?;
        if number == 0 {
            return Err(bad());
        }
        Ok(Self(Some(Duration::from_secs(u64::from(number) * seconds))))
    }
}

impl FromStr for Rate {
    type Err = String;

    /// Reads a size: `32MiB`, `1GiB`.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no rate: give a size for each second, like 32MiB");
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
        for (unit, shift) in units {
            if let Some(number) = text.strip_suffix(unit) {
                let number: u32 = number.parse().map_err(|_no_number| bad())?;
                return (number > 0)
                    .then_some(Self(u64::from(number) << shift))
                    .ok_or_else(bad);
            }
        }
        Err(bad())
    }
}

impl fmt::Display for Period {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => out.write_str("never"),
            Some(period) => write!(out, "{}s", period.as_secs()),
        }
    }
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Due {
    id: SnapshotId,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Its data has no digest yet.
    Digest,
    /// Its data was not looked at for a whole period.
    Verify,
}

impl LocalNode {
    /// Looks after the data of snapshots until the future is dropped.
    pub async fn look_after_snapshots(&self, scrub: Scrub) {
        let often =
            |longest: Duration| scrub.period.0.map_or(longest, |period| period.min(longest));
        let mut failed: BTreeMap<SnapshotId, Instant> = BTreeMap::new();
        loop {
            let wanted = self.0.integrity.wanted.notified();
            tokio::pin!(wanted);
            // From here on no new snapshot is missed.
            wanted.as_mut().enable();
            failed.retain(|_, at| at.elapsed() < often(REST));
            let resting = failed.keys().cloned().collect();
            match self.due(scrub.period, resting).await {
                Some(due) => {
                    let looked = self.look_after(&due, scrub.rate).await;
                    self.note(&due, &looked);
                    if looked.is_err() {
                        failed.insert(due.id, Instant::now());
                    }
                }
                None => {
                    // Either way it is looked again.
                    tokio::time::timeout(often(TICK), wanted).await.ok();
                }
            }
        }
    }

    /// What is most urgent. A pool that is not open has nothing: to open it is the business of whoever serves it.
    async fn due(&self, period: Period, resting: Vec<SnapshotId>) -> Option<Due> {
        self.short(move |node| {
            let Some(pool) = node.handle().peek() else {
                return Ok(None);
            };
            let (records, _) = pool.snapshots(None, usize::MAX, |record| {
                record.checksum.is_some()
                    && record.damage.is_none()
                    && !resting.contains(&record.id)
            });
            Ok(next(&records, Timestamp::now(), period))
        })
        .await
        .unwrap_or_default()
    }

    /// Snapshots of this pool that could not be read when it was tried last, and why.
    #[must_use]
    pub fn unreadable_snapshots(&self) -> BTreeMap<SnapshotId, String> {
        let Some(pool) = self.handle().peek() else {
            return BTreeMap::new();
        };
        let (there, _) = pool.snapshots(None, usize::MAX, |_| true);
        let is_there = |id: &SnapshotId| there.binary_search_by(|record| record.id.cmp(id)).is_ok();
        let mut unreadable = self.0.integrity.unreadable();
        unreadable.retain(|id, _| is_there(id));
        unreadable.clone()
    }

    /// Says what came of it, and remembers what cannot be read.
    fn note(&self, due: &Due, looked: &Result<(), Failure>) {
        let mut unreadable = self.0.integrity.unreadable();
        match looked {
            Ok(()) => drop(unreadable.remove(&due.id)),
            Err(error) if is_harmless(error.kind) => {
                tracing::debug!(snapshot = %due.id, what = ?due.what, %error, "not read to its end");
            }
            Err(error) => {
                tracing::error!(snapshot = %due.id, what = ?due.what, %error, "cannot be read; it is tried again");
                unreadable.insert(due.id.clone(), error.message.clone());
            }
        }
    }

    async fn look_after(&self, due: &Due, rate: Rate) -> Result<(), Failure> {
        let due = due.clone();
        self.background(move |node| {
            let pool: Arc<Pool> = node.pool()?;
            let pace = Pace::Limited(rate.0);
            match due.what {
                What::Digest => node.digest(&pool, &due.id, pace),
                What::Verify => node.verify(&pool, &due.id, pace, Mark::Set).map(drop),
            }
            .map_err(failure::of)
        })
        .await
    }
}

/// Whether nothing is wrong with what was not read to its end: it was deleted, replaced or stopped meanwhile.
fn is_harmless(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::NotFound | Kind::Conflict | Kind::Uncertain | Kind::Unavailable
    )
}

/// Digests that are wanted come first, the oldest snapshot before others; then what was not looked at for the longest time, if
/// that is a whole period. A moment in the future is that of a clock which was wrong: it counts as long ago.
fn next(records: &[Arc<SnapshotRecord>], now: Timestamp, period: Period) -> Option<Due> {
    let mut wanted: Vec<_> = records
        .iter()
        .filter(|record| digest_of(record).is_none())
        .collect();
    wanted.sort_unstable_by_key(|record| record.created);
    if let Some(first) = wanted.first() {
        return Some(Due {
            id: first.id.clone(),
            what: What::Digest,
        });
    }
    let period = u64::try_from(period.0?.as_nanos()).unwrap_or(u64::MAX);
    let (oldest, at) = records
        .iter()
        .map(|record| (record, seen(record, now)))
        .min_by_key(|(_, at)| *at)?;
    (now.0.saturating_sub(at) >= period).then(|| Due {
        id: oldest.id.clone(),
        what: What::Verify,
    })
}

fn digest_of(record: &SnapshotRecord) -> Option<&String> {
    record.checksum.as_ref()?.digest.as_ref()
}

fn seen(record: &SnapshotRecord, now: Timestamp) -> u64 {
    let checksum = record.checksum.as_ref();
    let verified = checksum.and_then(|checksum| checksum.verified);
    verified.filter(|at| *at <= now).map_or(0, |at| at.0)
}

#[cfg(test)]
mod tests {
    use pool::VolumeId;
    use pool::record::{Checksum, DataChecksum, Packing, VolumeMode};

    use super::*;

    const DAY: u64 = 86_400_000_000_000;
    const WEEK: Period = Period(Some(Duration::from_secs(7 * 86_400)));

    fn record(
        name: &str,
        created: u64,
        digest: bool,
        verified: Option<u64>,
    ) -> Arc<SnapshotRecord> {
        let volume = VolumeId::from_name("source");
        Arc::new(SnapshotRecord {
            id: SnapshotId::from_name(name),
            name: name.to_owned(),
            source_volume: volume.clone(),
            lineage: volume,
            created: Timestamp(created),
            requested_bytes: 0,
            virtual_bytes: 0,
            charge_bytes: 0,
            mode: VolumeMode::Block,
            data_offset: 0,
            metadata_digest: String::new(),
            extents: 0,
            stall_us: 0,
            packing: Packing::None,
            checksum: Some(DataChecksum {
                algorithm: Checksum::Blake3,
                digest: digest.then(String::new),
                verified: verified.map(Timestamp),
            }),
            damage: None,
        })
    }

    fn next_of(records: &[Arc<SnapshotRecord>], period: Period) -> Option<(SnapshotId, What)> {
        next(records, Timestamp(100 * DAY), period).map(|due| (due.id, due.what))
    }

    #[test]
    fn a_digest_that_is_wanted_comes_before_any_scrub_and_the_oldest_first() {
        let records = [
            record("scrubbed long ago", DAY, true, Some(DAY)),
            record("new", 90 * DAY, false, None),
            record("older", 80 * DAY, false, None),
        ];
        let older = SnapshotId::from_name("older");
        assert_eq!(next_of(&records, WEEK), Some((older.clone(), What::Digest)));
        assert_eq!(next_of(&records, Period(None)), Some((older, What::Digest)));
    }

    #[test]
    fn what_was_not_looked_at_for_a_period_is_read_again_the_oldest_first() {
        let records = [
            record("yesterday", DAY, true, Some(99 * DAY)),
            record("ten days", DAY, true, Some(90 * DAY)),
            record("twenty days", DAY, true, Some(80 * DAY)),
        ];
        let twenty = SnapshotId::from_name("twenty days");
        assert_eq!(next_of(&records, WEEK), Some((twenty, What::Verify)));
        assert_eq!(next_of(&records[..1], WEEK), None);
        assert_eq!(next_of(&records, Period(None)), None);
        assert_eq!(next_of(&[], WEEK), None);
    }

    #[test]
    fn a_moment_in_the_future_is_no_reason_to_wait_for_it() {
        let records = [record("future", DAY, true, Some(5000 * DAY))];
        assert!(next_of(&records, WEEK).is_some());
    }

    #[test]
    fn periods_and_rates_are_read() {
        let period = |text: &str| text.parse::<Period>().map(|period| period.0);
        assert_eq!(period("never"), Ok(None));
        assert_eq!(period("2h"), Ok(Some(Duration::from_secs(7200))));
        assert_eq!(period("7d"), Ok(WEEK.0));
        for bad in ["", "7", "d", "0d", "-1d", "1w", "é"] {
            assert!(period(bad).is_err(), "{bad}");
        }
        let rate = |text: &str| text.parse::<Rate>().map(|rate| rate.0);
        assert_eq!(rate("32MiB"), Ok(32 << 20));
        for bad in ["", "32", "0MiB", "MiB", "-1KiB"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
