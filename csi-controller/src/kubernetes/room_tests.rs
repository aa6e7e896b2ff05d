use std::sync::Arc;
use std::time::Duration;

use api::{LocalPool, LocalVolume};
use serde_json::{Value, json};

use super::{STALE, capacity, pools, trouble};

const NOW: &str = "2026-01-01T12:00:00Z";
const BEFORE: &str = "2026-01-01T11:00:00Z";
const AFTER: &str = "2026-01-01T13:00:00Z";
const MIB: u64 = 1 << 20;

fn pool(node: &str, available: u64, ready: &str) -> LocalPool {
    serde_json::from_value(json!({
        "apiVersion": "vd.csi.io/v1alpha1", "kind": "LocalPool", "metadata": {"name": node}, "spec": {"nodeName": node},
        "status": {"availableBytes": available, "observedTime": NOW, "conditions": [{
            "type": "Ready", "status": ready, "reason": "R", "message": "not mounted", "lastTransitionTime": BEFORE,
        }]},
    }))
    .unwrap()
}

/// A volume of 4 MiB on node `a`.
fn volume(status: &Value) -> Arc<LocalVolume> {
    let object = json!({
        "apiVersion": "vd.csi.io/v1alpha1", "kind": "LocalVolume", "metadata": {"name": "v"}, "status": status,
        "spec": {"nodeName": "a", "name": "x", "requestedBytes": 1, "sizeBytes": 4 * MIB, "volumeMode": "Block"},
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

fn ready_since(time: &str, size: u64) -> Value {
    json!({"state": "Ready", "sizeBytes": size, "conditions": [{
        "type": "Ready", "status": "True", "reason": "R", "message": "", "lastTransitionTime": time,
    }]})
}

/// One of 1 MiB that could not grow to its 4 MiB.
fn refused(kind: &str) -> Value {
    let mut status = ready_since(BEFORE, MIB);
    status["failure"] =
        json!({"kind": kind, "message": "m", "observedGeneration": 0, "attempts": 1, "time": NOW});
    status
}

fn room(volumes: &[Arc<LocalVolume>]) -> u64 {
    let pool = pool("a", 100 * MIB, "True");
    pools([(&pool, Duration::ZERO)], volumes)[0].available_bytes
}

#[test]
fn what_was_promised_since_the_pool_reported_is_taken_off() {
    for (what, status, expected) in [
        ("not made yet", Value::Null, 96),
        ("made after the report", ready_since(AFTER, 4 * MIB), 96),
        ("made before it", ready_since(BEFORE, 4 * MIB), 100),
        ("growing", ready_since(BEFORE, MIB), 97),
        ("refused to grow", refused("NoSpace"), 100),
        ("trying to grow", refused("Busy"), 97),
        ("deleted", json!({"state": "Deleted"}), 100),
    ] {
        assert_eq!(room(&[volume(&status)]), expected * MIB, "{what}");
    }
    assert_eq!(
        room(&vec![volume(&Value::Null); 30]),
        0,
        "never below nothing"
    );
}

#[test]
fn another_node_s_volumes_take_nothing() {
    let other = pool("b", 100 * MIB, "True");
    let rooms = pools([(&other, Duration::ZERO)], &[volume(&Value::Null)]);
    assert_eq!(rooms[0].available_bytes, 100 * MIB);
}

#[test]
fn a_pool_in_trouble_says_why() {
    let fresh = Duration::ZERO;
    assert_eq!(trouble(&pool("a", 1, "True"), fresh), None);
    assert_eq!(
        trouble(&pool("a", 1, "False"), fresh).unwrap(),
        "not mounted"
    );
    let old = trouble(&pool("a", 1, "True"), STALE + Duration::from_secs(60)).unwrap();
    assert!(old.contains("17 minutes"), "{old}");
    let mut silent = pool("a", 1, "True");
    silent.status = None;
    assert!(trouble(&silent, fresh).unwrap().contains("not reported"));
}

#[test]
fn capacity_is_the_sum_of_healthy_pools_and_one_volume_fits_in_one() {
    let all = [
        pool("a", 10, "True"),
        pool("b", 30, "True"),
        pool("c", 90, "False"),
    ];
    let none: [Arc<LocalVolume>; 0] = [];
    let pools = pools(all.iter().map(|pool| (pool, Duration::ZERO)), &none);
    let sum = capacity(&pools, None);
    assert_eq!((sum.available_bytes, sum.maximum_bytes), (40, 30));
    assert_eq!(capacity(&pools, Some("a")).available_bytes, 10);
    assert_eq!(capacity(&pools, Some("c")).available_bytes, 0);
    assert_eq!(capacity(&pools, Some("strange")).available_bytes, 0);
}
