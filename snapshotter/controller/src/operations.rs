//! How long snapshots take from a user's point of view: the metrics of the upstream snapshot-controller, by their names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::objects::{Meta, VolumeSnapshot};

const BUCKETS: [f64; 13] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

const CREATE: &str = "CreateSnapshot";
const CREATE_AND_READY: &str = "CreateSnapshotAndReady";
const DELETE: &str = "DeleteSnapshot";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    driver_name: String,
    operation_name: &'static str,
    snapshot_type: &'static str,
    operation_status: &'static str,
}

/// Operations that run, and how long those took that are over. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Operations(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    driver: String,
    seconds: Family<Labels, Histogram>,
    in_flight: Gauge,
    running: Mutex<HashMap<String, Vec<Running>>>,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    operation: &'static str,
    snapshot_type: &'static str,
    since: Instant,
}

impl Operations {
    /// Registers `snapshot_controller_operation_total_seconds` and `snapshot_controller_operations_in_flight`.
    pub(crate) fn register(registry: &mut Registry, driver: &str) -> Self {
        let inner = Inner {
            driver: driver.to_owned(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            in_flight: Gauge::default(),
            running: Mutex::default(),
        };
        registry.register(
            "snapshot_controller_operation_total_seconds",
            "How long operations on snapshots took, from the first sight of the wish to its end, in seconds",
            inner.seconds.clone(),
        );
        registry.register(
            "snapshot_controller_operations_in_flight",
            "Operations on snapshots that are not over",
            inner.in_flight.clone(),
        );
        Self(Arc::new(inner))
    }

    /// A snapshot of the driver is being looked at. `is_there`: whether it still is; who is told of its end takes it away only once.
    pub(crate) fn seen(&self, snapshot: &VolumeSnapshot, is_there: impl FnOnce() -> bool) {
        let begun: &[&str] = if snapshot.waits_for_deletion() {
            &[DELETE]
        } else if snapshot.is_ready() && snapshot.bound_content().is_some() {
            &[]
        } else if snapshot.is_cut() {
            &[CREATE_AND_READY]
        } else {
            &[CREATE, CREATE_AND_READY]
        };
        let snapshot_type = match snapshot.wanted_content() {
            Some(_) => "pre-provisioned",
            None => "dynamic",
        };
        let uid = Meta::uid(snapshot);
        let mut running = self.running();
        if !is_there() {
            return;
        }
        for &operation in begun {
            let all = running.entry(uid.to_owned()).or_default();
            if all.iter().all(|one| one.operation != operation) {
                let since = Instant::now();
                all.push(Running {
                    operation,
                    snapshot_type,
                    since,
                });
            }
        }
        drop(running);
        if !snapshot.is_going() {
            if snapshot.is_cut() {
                self.end(uid, CREATE, "success");
            }
            if snapshot.is_ready() {
                self.end(uid, CREATE_AND_READY, "success");
            }
        }
        self.count();
    }

    /// The snapshot is no more: what was to be made was given up.
    pub(crate) fn gone(&self, uid: &str) {
        self.end(uid, DELETE, "success");
        self.end(uid, CREATE, "cancel");
        self.end(uid, CREATE_AND_READY, "cancel");
        self.count();
    }

    fn end(&self, uid: &str, operation: &str, status: &'static str) {
        let mut running = self.running();
        let Some(all) = running.get_mut(uid) else {
            return;
        };
        let Some(at) = all.iter().position(|one| one.operation == operation) else {
            return;
        };
        let ended = all.swap_remove(at);
        if all.is_empty() {
            running.remove(uid);
        }
        drop(running);
        let labels = Labels {
            driver_name: self.0.driver.clone(),
            operation_name: ended.operation,
            snapshot_type: ended.snapshot_type,
            operation_status: status,
        };
        let seconds = ended.since.elapsed().as_secs_f64();
        self.0.seconds.get_or_create(&labels).observe(seconds);
    }

    fn count(&self) {
        let running: usize = self.running().values().map(Vec::len).sum();
        self.0
            .in_flight
            .set(i64::try_from(running).unwrap_or(i64::MAX));
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Vec<Running>>> {
        self.0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use serde_json::{Value, json};

    use super::Operations;
    use crate::objects::VolumeSnapshot;

    fn snapshot(status: &Value) -> VolumeSnapshot {
        serde_json::from_value(json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
            "metadata": {"namespace": "n", "name": "s", "uid": "1"},
            "spec": {"source": {"persistentVolumeClaimName": "c"}}, "status": status,
        }))
        .unwrap()
    }

    fn page(registry: &Registry) -> String {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, registry).unwrap();
        page
    }

    fn count(page: &str, operation: &str, status: &str) -> bool {
        page.lines().any(|line| {
            line.starts_with("snapshot_controller_operation_total_seconds_count")
                && line.contains(&format!("operation_name=\"{operation}\""))
                && line.contains(&format!("operation_status=\"{status}\""))
                && line.contains("driver_name=\"vd.csi.io\"")
                && line.ends_with(" 1")
        })
    }

    #[test]
    fn a_snapshot_counts_when_it_is_cut_and_when_it_is_ready() {
        let mut registry = Registry::default();
        let operations = Operations::register(&mut registry, "vd.csi.io");
        operations.seen(&snapshot(&Value::Null), || true);
        assert!(page(&registry).contains("snapshot_controller_operations_in_flight 2"));
        let cut = json!({"creationTime": "2026-01-01T00:00:00Z", "readyToUse": false, "boundVolumeSnapshotContentName": "x"});
        operations.seen(&snapshot(&cut), || true);
        assert!(count(&page(&registry), "CreateSnapshot", "success"));
        let ready = json!({"creationTime": "2026-01-01T00:00:00Z", "readyToUse": true, "boundVolumeSnapshotContentName": "x"});
        operations.seen(&snapshot(&ready), || true);
        let page = page(&registry);
        assert!(count(&page, "CreateSnapshotAndReady", "success"));
        assert!(page.contains("snapshot_controller_operations_in_flight 0"));
    }

    #[test]
    fn a_snapshot_that_is_deleted_before_it_was_made_was_given_up() {
        let mut registry = Registry::default();
        let operations = Operations::register(&mut registry, "vd.csi.io");
        operations.seen(&snapshot(&Value::Null), || true);
        operations.gone("1");
        let page = page(&registry);
        assert!(count(&page, "CreateSnapshot", "cancel"));
        assert!(!page.contains("operation_name=\"DeleteSnapshot\""));
        assert!(page.contains("snapshot_controller_operations_in_flight 0"));
    }

    #[test]
    fn a_snapshot_that_is_gone_while_it_is_looked_at_is_not_counted() {
        let mut registry = Registry::default();
        let operations = Operations::register(&mut registry, "vd.csi.io");
        operations.gone("1");
        operations.seen(&snapshot(&Value::Null), || false);
        assert!(page(&registry).contains("snapshot_controller_operations_in_flight 0"));
    }
}
