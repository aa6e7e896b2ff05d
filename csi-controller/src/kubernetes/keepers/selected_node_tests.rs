use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Claims, arrived, is_for_us, note, requested};
use crate::kubernetes::keepers::foreign::VolumeCloneSource;
use crate::kubernetes::keepers::source_node::Reference;

fn claim(change: impl FnOnce(&mut Value)) -> PersistentVolumeClaim {
    let mut claim = json!({
        "metadata": {"name": "c", "namespace": "n", "uid": "1"},
        "spec": {
            "storageClassName": "vd", "resources": {"requests": {"storage": "10Gi"}},
            "dataSourceRef": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"},
        },
        "status": {"phase": "Pending"},
    });
    change(&mut claim);
    serde_json::from_value(claim).unwrap()
}

fn kept(change: impl FnOnce(&mut Value)) -> Vec<Reference> {
    let mut claims = Claims::new();
    note(&mut claims, Event::Apply(claim(change)));
    claims.into_values().map(|claim| claim.source).collect()
}

#[test]
fn a_pending_claim_with_a_source_is_kept() {
    let snapshot = Reference::Snapshot {
        namespace: "n".to_owned(),
        name: "s".to_owned(),
    };
    assert_eq!(kept(|_| {}), [snapshot]);
    let other = Reference::Claim {
        namespace: "n".to_owned(),
        name: "d".to_owned(),
    };
    assert_eq!(
        kept(|c| c["spec"]["dataSourceRef"] = json!({"kind": "PersistentVolumeClaim", "name": "d"})),
        [other]
    );
}

#[test]
fn a_clone_source_of_cdi_may_be_in_another_namespace() {
    let cloned = kept(|c| {
        c["metadata"]["annotations"] = json!({"cdi.kubevirt.io/dataSourceNamespace": "golden"});
        c["spec"]["dataSourceRef"] =
            json!({"apiGroup": "cdi.kubevirt.io", "kind": "VolumeCloneSource", "name": "v"});
    });
    let golden = Reference::CloneSource {
        namespace: "golden".to_owned(),
        name: "v".to_owned(),
    };
    assert_eq!(cloned, [golden]);
}

#[test]
fn every_other_claim_is_not_kept() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 5] = [
        ("bound", |c| c["status"]["phase"] = json!("Bound")),
        ("being bound", |c| c["spec"]["volumeName"] = json!("pvc-1")),
        ("no class", |c| c["spec"]["storageClassName"] = Value::Null),
        ("no source", |c| c["spec"]["dataSourceRef"] = Value::Null),
        ("going", |c| {
            c["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }),
    ];
    for (what, change) in changes {
        assert_eq!(kept(change), [], "{what}");
    }
}

#[test]
fn a_claim_is_forgotten_once_it_does_not_wait_any_more() {
    let mut claims = Claims::new();
    note(&mut claims, Event::Apply(claim(|_| {})));
    note(
        &mut claims,
        Event::Apply(claim(|c| c["status"]["phase"] = json!("Bound"))),
    );
    assert!(claims.is_empty());
    note(&mut claims, Event::Apply(claim(|_| {})));
    note(&mut claims, Event::Init);
    note(&mut claims, Event::InitDone);
    assert!(claims.is_empty());
}

fn selected(claim: &mut Value) {
    claim["metadata"]["annotations"] = json!({"volume.kubernetes.io/selected-node": "a"});
}

#[test]
fn a_claim_that_lost_its_node_keeps_its_pause() {
    let mut claims = Claims::new();
    note(&mut claims, Event::Apply(claim(selected)));
    let key = ("n".to_owned(), "c".to_owned());
    let known = claims.get_mut(&key).unwrap();
    (known.settled, known.pause) = (true, known.pause * 8);
    let before = (known.pause, known.due);
    note(&mut claims, Event::Apply(claim(|_| {})));
    assert!(!claims[&key].settled);
    assert_eq!((claims[&key].pause, claims[&key].due), before);
    note(
        &mut claims,
        Event::Apply(claim(|c| c["metadata"]["uid"] = json!("2"))),
    );
    assert!(
        claims[&key].pause < before.0,
        "a new claim of that name begins anew"
    );
}

#[test]
fn a_claim_that_the_scheduler_binds_is_looked_at_at_once_and_then_no_more() {
    let mut claims = Claims::new();
    note(&mut claims, Event::Apply(claim(|_| {})));
    let key = ("n".to_owned(), "c".to_owned());
    let later = Instant::now() + Duration::from_secs(60);
    claims.get_mut(&key).unwrap().due = later;
    note(&mut claims, Event::Apply(claim(selected)));
    let known = claims.get_mut(&key).unwrap();
    assert!(!known.settled && known.due < later);
    known.settled = true;
    note(&mut claims, Event::Apply(claim(selected)));
    assert!(claims[&key].settled);
}

#[test]
fn somebody_who_insists_on_another_node_is_overruled_ever_more_seldom() {
    let mut claims = Claims::new();
    note(&mut claims, Event::Apply(claim(|_| {})));
    let key = ("n".to_owned(), "c".to_owned());
    let known = claims.get_mut(&key).unwrap();
    // As it is after it was bound once.
    (known.settled, known.pause) = (true, known.pause * 2);
    known.due = Instant::now() + Duration::from_secs(60);
    let due = known.due;
    note(&mut claims, Event::Apply(claim(selected)));
    assert!(!claims[&key].settled);
    assert_eq!(claims[&key].due, due);
}

#[test]
fn a_source_that_arrives_is_looked_at_at_once() {
    let mut claims = Claims::new();
    let waiting = claim(|c| {
        c["spec"]["dataSourceRef"] =
            json!({"apiGroup": "cdi.kubevirt.io", "kind": "VolumeCloneSource", "name": "v"});
    });
    note(&mut claims, Event::Apply(waiting));
    let key = ("n".to_owned(), "c".to_owned());
    let later = Instant::now() + Duration::from_secs(60);
    claims.get_mut(&key).unwrap().due = later;
    let source = |namespace: &str, name: &str| -> VolumeCloneSource {
        serde_json::from_value(json!({
            "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "VolumeCloneSource",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"source": {"kind": "PersistentVolumeClaim", "name": "golden"}},
        }))
        .unwrap()
    };
    arrived(&mut claims, &source("n", "other"));
    arrived(&mut claims, &source("other", "v"));
    assert_eq!(claims[&key].due, later);
    arrived(&mut claims, &source("n", "v"));
    assert!(claims[&key].due < later);
}

#[test]
fn the_size_of_a_claim_is_what_it_requests() {
    assert_eq!(requested(&claim(|_| {})), Some(10 << 30));
}

#[test]
fn only_late_binding_classes_of_this_driver_matter() {
    let class = |provisioner: &str, mode: Value| -> k8s_openapi::api::storage::v1::StorageClass {
        serde_json::from_value(json!({"metadata": {"name": "c"}, "provisioner": provisioner, "volumeBindingMode": mode})).unwrap()
    };
    let late = json!("WaitForFirstConsumer");
    let answer = |class| is_for_us(Some(&class), "vd.csi.io");
    assert_eq!(answer(class("vd.csi.io", late.clone())), Some(true));
    assert_eq!(answer(class("vd.csi.io", json!("Immediate"))), Some(false));
    assert_eq!(answer(class("vd.csi.io", Value::Null)), Some(false));
    assert_eq!(answer(class("other", late)), Some(false));
    assert_eq!(is_for_us(None, "vd.csi.io"), None);
}
