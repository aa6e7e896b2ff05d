//! LocalPool: how the node's pool is, for schedulers and people; and whether it is the right one.
//!
//! The object remembers the pool's UUID. So a node whose disk was wiped or swapped says so and makes nothing, instead of
//! beginning anew beside data that may come back.

mod health;
mod look;
mod orphans;
mod status;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::{LocalPool, LocalSnapshot, LocalVolume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use pool::SnapshotId;
use proto::errors::{Failure, Kind};
use tokio::time::Instant;

use self::look::Look;
use self::orphans::Orphans;
use super::Agent;
use super::objects::{Managed, Objects};
use super::standing::ForObjects;

/// How often the pool is looked at when nothing happens: the guard only, which costs a `stat`.
const TICK: Duration = Duration::from_secs(5);
/// How often it is measured when nothing happens.
const MEASURE: Duration = Duration::from_secs(60);
/// How long changes are gathered: the scheduler's view is at most this old.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Keeps the LocalPool of this node.
#[derive(Debug)]
pub(crate) struct Reporter {
    agent: Arc<Agent>,
    volumes: Objects<LocalVolume>,
    snapshots: Objects<LocalSnapshot>,
    may_init: bool,
    /// The object as it was last read or written.
    object: Option<LocalPool>,
    /// The UUID that the object had when it was read; `None` while it was never read.
    expected: Option<Option<String>>,
    orphans: Orphans,
    measured: Option<(Instant, Look)>,
    /// Snapshots of which was told that they cannot be read.
    unreadable: BTreeSet<SnapshotId>,
    /// What was said last, so that a change becomes an event and a state does not.
    said: Option<&'static str>,
}

impl Reporter {
    pub(crate) fn new(
        agent: Arc<Agent>,
        volumes: Objects<LocalVolume>,
        snapshots: Objects<LocalSnapshot>,
        may_init: bool,
    ) -> Self {
        Self {
            agent,
            volumes,
            snapshots,
            may_init,
            object: None,
            expected: None,
            orphans: Orphans::default(),
            measured: None,
            unreadable: BTreeSet::new(),
            said: None,
        }
    }

    /// Looks and reports until it is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            self.round().await;
            let told = tokio::time::timeout(TICK, self.agent.changed.notified()).await;
            if told.is_ok() {
                tokio::time::sleep(DEBOUNCE).await;
                self.measured = None;
            }
        }
    }

    /// The pool first: what is mounted must not wait for an API server that does not answer.
    async fn round(&mut self) {
        let mut look = self.look().await;
        self.stand(&look).await;
        if self.read_object().await {
            self.measured = None;
            look = self.look().await;
            self.stand(&look).await;
        }
        self.new_unreadable().await;
        if let Err(error) = self.write(&look).await {
            self.object = None;
            self.agent.pool_gauges.api_reachable.set(0);
            tracing::warn!(%error, "the state of the pool was not reported; it is tried again");
        }
    }

    /// Reads the object when it is not known, or as long as it says that this is the wrong pool: deleting it is how an
    /// administrator accepts another one. Answers whether it says something new of which pool is the right one.
    async fn read_object(&mut self) -> bool {
        let right = matches!(&self.measured, Some((_, Look::Open(_))));
        if self.object.is_some() && right {
            return false;
        }
        match write::get_or_create(&self.agent).await {
            Ok(object) => {
                self.agent.pool_gauges.api_reachable.set(1);
                let status = object.status.as_ref();
                self.orphans
                    .remember(status.map_or(&[], |status| &status.orphans));
                let expected = Some(status.and_then(|status| status.pool_uuid.clone()));
                self.object = Some(object);
                let new = self.expected != expected;
                self.expected = expected;
                new
            }
            Err(error) => {
                self.agent.pool_gauges.api_reachable.set(0);
                tracing::warn!(%error, "the API server does not answer; what is mounted goes on");
                false
            }
        }
    }

    async fn look(&mut self) -> Look {
        let fresh = self
            .measured
            .as_ref()
            .filter(|(at, look)| at.elapsed() < MEASURE && matches!(look, Look::Open(_)));
        if let Some((at, look)) = fresh
            && self.agent.node.probe().await.is_ok()
        {
            let (at, look) = (*at, look.clone());
            self.measured = Some((at, look.clone()));
            return look;
        }
        let look = look::look(&self.agent.node, self.expected.clone(), self.may_init).await;
        self.measured = Some((Instant::now(), look.clone()));
        look
    }

    /// Tells the rest of the agent, and a person when it changed.
    async fn stand(&mut self, look: &Look) {
        let standing = &self.agent.standing;
        let reason = match look {
            Look::Open(open) => {
                standing.set_open(Ok(()));
                let unknown = "the API server did not say yet which pool is the right one";
                standing.set(ForObjects {
                    pool: match &self.expected {
                        Some(_) => Ok(open.uuid.clone()),
                        None => Err(Failure::new(Kind::Unavailable, unknown)),
                    },
                    another_reports: false,
                });
                "Open"
            }
            Look::Away { reason, message } => {
                standing.set_open(Err(message.clone()));
                standing.set(ForObjects {
                    pool: Err(Failure::new(Kind::Unavailable, message.clone())),
                    another_reports: self.another_reports(look, &now()),
                });
                reason
            }
        };
        if self.said == Some(reason) || self.expected.is_none() {
            return;
        }
        self.said = Some(reason);
        if let Look::Away { reason, message } = look {
            tracing::error!(reason, message, "the pool cannot be used");
            self.agent.events.node(reason, message).await;
        }
    }

    async fn write(&mut self, look: &Look) -> Result<(), super::objects::Error> {
        let now = now();
        let synced = self.agent.knows_all_objects();
        let volumes = self.volumes.state();
        let snapshots = self.snapshots.state();
        if let (Look::Open(open), true) = (look, synced) {
            let objects = volumes
                .iter()
                .map(|object| object.name_any())
                .chain(snapshots.iter().map(|object| object.name_any()))
                .collect();
            self.orphans.look(open, &objects, &now);
        }
        let orphans = self.orphans.report(look, self.agent.node.name(), &now);
        self.gauges(look, orphans.len());
        let states = volumes.iter().map(|object| format!("{:?}", object.state()));
        self.agent.pool_gauges.set_volumes(states);
        let Some(object) = &self.object else {
            return Ok(());
        };
        let found = status::Found {
            node: self.agent.node.name(),
            look,
            orphans: &orphans,
            orphans_known: synced,
            now: &now,
        };
        let before = object.status.clone().unwrap_or_default();
        if self.another_reports(look, &now) {
            return Ok(());
        }
        let after = status::status(&before, &found);
        if !status::worth_writing(&before, &after, &now) {
            return Ok(());
        }
        self.new_orphans(&before, &after).await;
        let written = write::status(&self.agent, object, &after).await?;
        self.agent.pool_gauges.api_reachable.set(1);
        self.expected = Some(after.pool_uuid.clone());
        self.object = Some(written);
        Ok(())
    }

    /// Whether another agent owns the pool: it reports, and two would contradict each other. Whoever else may own it does not
    /// report, and then there is something to say.
    fn another_reports(&self, look: &Look, now: &Time) -> bool {
        let owned = matches!(look, Look::Away { reason, .. } if *reason == look::OWNED);
        let fresh = self.object.as_ref().is_none_or(|object| {
            let status = object.status.as_ref();
            status.is_some_and(|status| !status::is_stale(status, now))
        });
        owned && fresh
    }

    async fn new_orphans(&self, before: &api::LocalPoolStatus, after: &api::LocalPoolStatus) {
        let new = after
            .orphans
            .iter()
            .filter(|orphan| before.orphans.iter().all(|old| old.id != orphan.id));
        for orphan in new {
            let note = format!(
                "{} is in the pool of this node and has no object. It is kept. To make it usable again, annotate the LocalPool {} with {}={}",
                orphan.id,
                self.agent.node.name(),
                api::ADOPT_ANNOTATION,
                orphan.id,
            );
            tracing::warn!(id = orphan.id, "data without an object; it is kept");
            self.agent.events.node("Orphaned", &note).await;
        }
        for folder in &after.quarantined {
            if !before.quarantined.contains(folder) {
                let note = format!("{}: {}. It is kept", folder.path, folder.reason);
                self.agent.events.node("Damaged", &note).await;
            }
        }
    }

    /// Tells of snapshots that the disk does not give: a state in the metric, an event for each that is new.
    async fn new_unreadable(&mut self) {
        let now = self.agent.node.unreadable_snapshots();
        let gauge = &self.agent.pool_gauges.snapshots_unreadable;
        gauge.set(count(now.len()));
        for (id, why) in &now {
            if !self.unreadable.contains(id) {
                let note = format!(
                    "the data of {id} cannot be read: {why}. That is no proof of damage; look at the disk. It is tried again"
                );
                self.agent.events.node("SnapshotUnreadable", &note).await;
            }
        }
        self.unreadable = now.into_keys().collect();
    }

    fn gauges(&self, look: &Look, orphans: usize) {
        let gauges = &self.agent.pool_gauges;
        gauges.orphans.set(count(orphans));
        let Look::Open(open) = look else {
            gauges.up.set(0);
            return;
        };
        gauges.up.set(1);
        let figures = &open.usage.figures;
        let promised = figures
            .volume_sizes
            .saturating_add(figures.snapshot_charges);
        for (gauge, value) in [
            (&gauges.size, figures.size),
            (&gauges.used, figures.used),
            (&gauges.promised, promised),
            (&gauges.foreign, figures.foreign()),
            (&gauges.available, open.usage.available()),
        ] {
            gauge.set(super::objects::signed(value));
        }
        let promised = status::unpromised(open).is_none();
        gauges.capacity_promised.set(i64::from(promised));
        gauges.set_overcommit(open.usage.policy.overcommit);
        gauges.snapshots.set(count(open.snapshots.len()));
        let snapshots = health::of(&open.snapshots, pool::record::Timestamp::now());
        gauges.snapshots_damaged.set(count(snapshots.damaged));
        gauges.snapshots_undigested.set(count(snapshots.undigested));
        let (waiting, done) = (snapshots.uncompressed, snapshots.compressed);
        gauges.snapshots_uncompressed.set(count(waiting.snapshots));
        gauges.snapshots_compressed.set(count(done.snapshots));
        for (gauge, value) in [
            (
                &gauges.snapshots_oldest_check,
                snapshots.oldest_check_seconds,
            ),
            (
                &gauges.snapshots_oldest_uncompressed,
                snapshots.oldest_uncompressed_seconds,
            ),
            (&gauges.snapshots_uncompressed_bytes, waiting.bytes),
            (&gauges.snapshots_compressed_bytes, done.bytes),
        ] {
            gauge.set(super::objects::signed(value));
        }
        gauges.set_compression_failures(self.agent.node.compression_failures());
        gauges.quarantined.set(count(open.damaged.len()));
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn now() -> Time {
    let now = Timestamp::now().as_second();
    Time(Timestamp::from_second(now).unwrap_or_default())
}
