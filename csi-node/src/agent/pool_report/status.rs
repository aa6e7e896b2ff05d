//! The status of a LocalPool, from what was seen. Pure.

use api::{Features, LocalPoolStatus, Orphan, Quarantined, pool_condition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use pool::Filesystem;

use super::look::{Look, Open};
use crate::agent::condition;
use crate::agent::objects::signed;
use crate::agent::quantity::human;

/// Lists are cut here; the counts beside them are not.
const LONGEST: usize = 100;
/// A status that says the same is written again after this many seconds, so that a dead agent can be told.
const REFRESH: i64 = 240;
/// Who has not reported for this many seconds does not report any more.
const STALE: i64 = 360;

/// What was found.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) node: &'a str,
    pub(super) look: &'a Look,
    pub(super) orphans: &'a [Orphan],
    /// All objects of the node are known, so that the orphans are.
    pub(super) orphans_known: bool,
    pub(super) now: &'a Time,
}

/// The status after `before`.
pub(super) fn status(before: &LocalPoolStatus, found: &Found<'_>) -> LocalPoolStatus {
    let mut status = before.clone();
    status.topology = Some(proto::topology::value(found.node));
    status.agent_version = Some(env!("CARGO_PKG_VERSION").to_owned());
    status.observed_time = Some(found.now.clone());
    let mut conditions = Vec::new();
    match found.look {
        Look::Open(open) => {
            fill(&mut status, open);
            conditions.push(said(
                pool_condition::READY,
                true,
                "Open",
                String::new(),
                found.now,
            ));
            conditions.push(promise(open, found.now));
            conditions.push(damage(open, found.now));
        }
        Look::Away { reason, message } => {
            // Nothing can be made here; the rest is what was known last.
            status.available_bytes = 0;
            status.available = Some(human(0));
            conditions.push(said(
                pool_condition::READY,
                false,
                reason,
                message.clone(),
                found.now,
            ));
            let others = before.conditions.iter();
            conditions.extend(
                others
                    .filter(|old| {
                        old.type_ != pool_condition::READY && old.type_ != pool_condition::ORPHANED
                    })
                    .cloned(),
            );
        }
    }
    if found.orphans_known && matches!(found.look, Look::Open(_)) {
        status.orphan_count = count(found.orphans.len());
        status.orphans = found.orphans.iter().take(LONGEST).cloned().collect();
    }
    conditions.push(orphaned(status.orphan_count, found.now));
    status.conditions = conditions
        .into_iter()
        .map(|one| condition::after(&before.conditions, one))
        .collect();
    status
}

fn fill(status: &mut LocalPoolStatus, open: &Open) {
    let figures = &open.usage.figures;
    let promised = figures
        .volume_sizes
        .saturating_add(figures.snapshot_charges);
    let available = open.usage.available();
    // Never replaced: which pool is the right one is decided by this field.
    status.pool_uuid.get_or_insert_with(|| open.uuid.clone());
    status.filesystem = Some(name(open.filesystem).to_owned());
    status.features = Some(Features {
        reflink: open.reflink,
        direct_io: open.direct_io,
    });
    status.size_bytes = signed(figures.size);
    status.used_bytes = signed(figures.used);
    status.promised_bytes = signed(promised);
    status.foreign_bytes = signed(figures.foreign());
    status.available_bytes = signed(available);
    status.size = Some(human(figures.size));
    status.used = Some(human(figures.used));
    status.promised = Some(human(promised));
    status.available = Some(human(available));
    status.volumes = count(open.volumes.len());
    status.snapshots = count(open.snapshots.len());
    status.quarantined = open
        .damaged
        .iter()
        .take(LONGEST)
        .map(|(path, reason)| Quarantined {
            path: path.clone(),
            reason: reason.clone(),
        })
        .collect();
}

/// Why a volume can run out of the space that it was given, as a reason and a message; nothing when none can.
pub(super) fn unpromised(open: &Open) -> Option<(&'static str, &'static str)> {
    if open.usage.policy.overcommit > 1.0 {
        Some((
            "Overcommitted",
            "more is promised than there is (--overcommit above 1.0): a guest can meet a full disk",
        ))
    } else if open.filesystem == Filesystem::Btrfs {
        Some((
            "Btrfs",
            "on Btrfs, extents that are used in part stay whole: capacity is limited, and no promise. Use XFS for one",
        ))
    } else if open.filesystem == Filesystem::Other {
        Some((
            "UnknownFilesystem",
            "the pool is on a filesystem whose space cannot be foretold. Use XFS or ext4",
        ))
    } else if open.alone {
        None
    } else {
        Some((
            "SharedFilesystem",
            "the pool's folder is not a filesystem of its own: what others write there takes space that was promised. Mount a disk at the folder",
        ))
    }
}

fn promise(open: &Open, now: &Time) -> Condition {
    let unpromised = unpromised(open);
    let (reason, message) = unpromised.unwrap_or(("Promised", ""));
    said(
        pool_condition::CAPACITY_PROMISED,
        unpromised.is_none(),
        reason,
        message.to_owned(),
        now,
    )
}

fn damage(open: &Open, now: &Time) -> Condition {
    match open.damaged.as_slice() {
        [] => said(
            pool_condition::DAMAGED,
            false,
            "NothingDamaged",
            String::new(),
            now,
        ),
        [(path, reason), more @ ..] => {
            let others = match more.len() {
                0 => String::new(),
                number => format!(", and {number} more"),
            };
            said(
                pool_condition::DAMAGED,
                true,
                "DamagedData",
                format!("{path}: {reason}{others}. Everything is kept; see `vdctl pool check`"),
                now,
            )
        }
    }
}

fn orphaned(number: i64, now: &Time) -> Condition {
    if number == 0 {
        return said(
            pool_condition::ORPHANED,
            false,
            "NoOrphans",
            String::new(),
            now,
        );
    }
    said(
        pool_condition::ORPHANED,
        true,
        "DataWithoutObject",
        format!(
            "{number} volumes or snapshots have no object. They are kept. To make them usable again: kubectl annotate localpool NODE {}='*'",
            api::ADOPT_ANNOTATION
        ),
        now,
    )
}

fn said(type_: &str, holds: bool, reason: &str, message: String, now: &Time) -> Condition {
    let status = if holds { "True" } else { "False" };
    condition::new(type_, status, reason, message, now)
}

fn name(filesystem: Filesystem) -> &'static str {
    match filesystem {
        Filesystem::Xfs => "xfs",
        Filesystem::Btrfs => "btrfs",
        Filesystem::Ext4 => "ext4",
        Filesystem::Other => "other",
    }
}

/// Whether `after` says something that `before` does not, or it is time to say it again. What guests write changes all the
/// time; less than a hundredth of the disk is not worth a write to the API server.
pub(super) fn worth_writing(before: &LocalPoolStatus, after: &LocalPoolStatus, now: &Time) -> bool {
    let age = |status: &LocalPoolStatus| {
        let seen = status.observed_time.as_ref();
        seen.map(|time| now.0.as_second() - time.0.as_second())
    };
    if age(before).is_none_or(|age| !(0..REFRESH).contains(&age)) {
        return true;
    }
    let step = (after.size_bytes / 100).max(1);
    let near = |one: i64, other: i64| (one - other).abs() < step;
    let mut same = before.clone();
    same.observed_time = after.observed_time.clone();
    if near(before.used_bytes, after.used_bytes)
        && near(before.foreign_bytes, after.foreign_bytes)
        && near(before.available_bytes, after.available_bytes)
        && (before.volumes, before.snapshots, before.promised_bytes)
            == (after.volumes, after.snapshots, after.promised_bytes)
    {
        same.used_bytes = after.used_bytes;
        same.used.clone_from(&after.used);
        same.foreign_bytes = after.foreign_bytes;
        same.available_bytes = after.available_bytes;
        same.available.clone_from(&after.available);
    }
    same != *after
}

/// Nobody has reported for so long that nobody does.
pub(super) fn is_stale(status: &LocalPoolStatus, now: &Time) -> bool {
    let seen = status.observed_time.as_ref();
    seen.is_none_or(|time| now.0.as_second() - time.0.as_second() > STALE)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
