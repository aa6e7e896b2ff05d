//! The pools of all nodes, as their agents report them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::LocalPool;
use kube::{Api, Client};
use proto::errors::{Failure, Kind};

use super::mirror::Mirror;
use super::placement::Pool;

/// How long a node is passed over whose agent did not answer, unless it reports before.
const SILENT: Duration = Duration::from_secs(120);

/// All pools. Only their agents write them.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    api: Api<LocalPool>,
    mirror: Mirror<LocalPool>,
    silent: Silent,
}

/// Which nodes' agents did not answer, and when.
#[derive(Clone, Debug, Default)]
struct Silent(Arc<Mutex<HashMap<String, Instant>>>);

impl Pools {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            api: Api::all(client),
            mirror: Mirror::default(),
            silent: Silent::default(),
        }
    }

    pub(crate) fn mirror(&self) -> &Mirror<LocalPool> {
        &self.mirror
    }

    /// Keeps the mirror. Never ends.
    pub(crate) async fn follow(&self) {
        self.mirror.follow(self.api.clone()).await;
    }

    /// Remembers that the agent of a node did not answer: a dead node would stay the one with the most room until its report is
    /// old, and each volume would wait for it.
    pub(crate) fn did_not_answer(&self, node: &str) {
        self.silent.note(node);
    }

    /// Says of each pool whose agent did not answer a moment ago, and has not reported since, that it takes no volumes.
    pub(crate) fn pass_over_silent(&self, rooms: &mut [Pool]) {
        self.silent.pass_over(rooms, &self.mirror);
    }

    /// # Errors
    /// `Unavailable` until every pool is known once: a choice among some of them would be a wrong one.
    pub(crate) fn check_synced(&self) -> Result<(), Failure> {
        if self.mirror.is_synced() {
            return Ok(());
        }
        Err(Failure::new(
            Kind::Unavailable,
            "csi-controller has just started and does not know all pools yet; it is tried again",
        ))
    }
}

impl Silent {
    fn note(&self, node: &str) {
        let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|_, since| since.elapsed() < SILENT);
        silent.insert(node.to_owned(), Instant::now());
    }

    fn pass_over(&self, rooms: &mut [Pool], reports: &Mirror<LocalPool>) {
        let silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if silent.is_empty() {
            return;
        }
        for (pool, reported) in reports.all_with_change() {
            let node = &pool.spec.node_name;
            let Some(since) = silent.get(node).filter(|since| reported < **since) else {
                continue;
            };
            let quiet = since.elapsed();
            let room = rooms.iter_mut().find(|room| room.node == *node);
            if let Some(room) = room.filter(|_| quiet < SILENT) {
                let trouble = format!("its csi-node did not answer {} s ago", quiet.as_secs());
                room.trouble.get_or_insert(trouble);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use api::LocalPool;
    use kube::runtime::watcher::Event;

    use super::{Mirror, Pool, Silent};

    fn report(version: u64) -> Event<LocalPool> {
        let pool = serde_json::json!({
            "apiVersion": "vd.csi.io/v1alpha1", "kind": "LocalPool", "spec": {"nodeName": "a"},
            "metadata": {"name": "a", "uid": "1", "resourceVersion": version.to_string()},
        });
        Event::Apply(serde_json::from_value(pool).unwrap())
    }

    #[test]
    fn a_node_that_did_not_answer_is_passed_over_until_it_reports() {
        let reports = Mirror::default();
        let silent = Silent::default();
        let trouble = || {
            let mut rooms = ["a", "b"].map(|node| Pool {
                node: node.to_owned(),
                topology: node.to_owned(),
                available_bytes: 1,
                trouble: None,
            });
            silent.pass_over(&mut rooms, &reports);
            rooms.map(|room| room.trouble)
        };
        reports.apply(report(1));
        assert_eq!(trouble(), [None, None]);
        silent.note("a");
        let [a, b] = trouble();
        assert!(a.unwrap().contains("did not answer"));
        assert_eq!(b, None);
        reports.apply(report(2));
        assert_eq!(trouble(), [None, None]);
    }
}
