//! Data without an object.

use std::collections::{BTreeMap, BTreeSet};

use api::Orphan;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::look::{Look, Open};
use crate::agent::objects::{snapshot, volume};

/// How long data has to be without an object before it is called an orphan, in seconds: an object can be on its way.
const PATIENCE: i64 = 60;

/// Since when which data has been without an object.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    since: BTreeMap<String, Time>,
    /// Known from before this start; there is nothing to wait for.
    known: BTreeSet<String>,
}

impl Orphans {
    /// What was reported before.
    pub(super) fn remember(&mut self, orphans: &[Orphan]) {
        for orphan in orphans {
            self.since
                .entry(orphan.id.clone())
                .or_insert_with(|| orphan.since.clone());
            self.known.insert(orphan.id.clone());
        }
    }

    /// Compares the pool with all objects of the node.
    pub(super) fn look(&mut self, open: &Open, objects: &BTreeSet<String>, now: &Time) {
        let volumes = open.volumes.iter().map(|record| record.id.to_string());
        let snapshots = open.snapshots.iter().map(|record| record.id.to_string());
        let without: BTreeSet<String> = volumes
            .chain(snapshots)
            .filter(|id| !objects.contains(id))
            .collect();
        self.since.retain(|id, _| without.contains(id));
        self.known.retain(|id| without.contains(id));
        for id in without {
            self.since.entry(id).or_insert_with(|| now.clone());
        }
    }

    /// The orphans, by id, each with what an object for it would say.
    pub(super) fn report(&self, look: &Look, node: &str, now: &Time) -> Vec<Orphan> {
        let Look::Open(open) = look else {
            return Vec::new();
        };
        let mut orphans = Vec::new();
        for (id, since) in &self.since {
            let age = now.0.as_second() - since.0.as_second();
            if age <= PATIENCE && !self.known.contains(id) {
                continue;
            }
            let volumes = open.volumes.iter();
            let volume = volumes.into_iter().find(|record| record.id.as_str() == id);
            let mut snapshots = open.snapshots.iter();
            let snapshot = snapshots.find(|record| record.id.as_str() == id);
            orphans.push(Orphan {
                id: id.clone(),
                since: since.clone(),
                volume: volume.map(|record| volume::spec_of(node, record)),
                snapshot: snapshot.map(|record| snapshot::spec_of(node, record)),
            });
        }
        orphans
    }
}
