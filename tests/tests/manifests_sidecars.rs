//! The sidecars, stock and our own, do all of their work with the shipped flags and exactly the shipped rights.
//!
//! The driver behind them is the standalone one, and the test plays Kubernetes' own controllers: it binds claims.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use serde_json::{Value, json};
use tests::fixture::{Fixture, NODE};
use tests::manifests::api_server::{ApiServer, User, snapshot_definitions};
use tests::manifests::sidecars::Sidecars;
use tests::scratch_fs::FsKind;

fn admin(server: &ApiServer, arguments: &[&str]) -> String {
    server.kubectl(&User::Admin, arguments).ok()
}

fn create(server: &ApiServer, object: &Value) {
    let _output = server.send(&User::Admin, &["create"], object).ok();
}

fn wait(server: &ApiServer, object: &str, what: &str) {
    let condition = format!("--for={what}");
    let _output = admin(server, &["wait", object, &condition, "--timeout=100s"]);
}

fn patch(server: &ApiServer, object: &str, patch: &Value, more: &[&str]) {
    let text = patch.to_string();
    let _output = admin(
        server,
        &[&["patch", object, "--type=merge", "-p", &text], more].concat(),
    );
}

fn get(server: &ApiServer, object: &str, path: &str) -> String {
    admin(
        server,
        &["get", object, "-o", &format!("jsonpath={{{path}}}")],
    )
}

fn node(server: &ApiServer) {
    let labels = json!({"topology.vd.csi.io/node": NODE});
    create(
        server,
        &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": labels}}),
    );
    let driver =
        json!({"name": "vd.csi.io", "nodeID": NODE, "topologyKeys": ["topology.vd.csi.io/node"]});
    create(
        server,
        &json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": NODE},
            "spec": {"drivers": [driver]}}),
    );
}

/// A claim as the binder of Kubernetes hands it to the provisioner; returns the name of its volume once that is there.
fn claim(server: &ApiServer, name: &str, size: &str, source: &Value) -> String {
    let mut claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "annotations": {"volume.kubernetes.io/storage-provisioner": "vd.csi.io"}},
        "spec": {"storageClassName": "vd-immediate", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}}},
    });
    if !source.is_null() {
        claim["spec"]["dataSource"] = source.clone();
    }
    create(server, &claim);
    let object = format!("pvc/{name}");
    let volume = format!("pvc-{}", get(server, &object, ".metadata.uid"));
    wait(server, &format!("pv/{volume}"), "create");
    volume
}

/// What the binder does once there is a volume.
fn bind(server: &ApiServer, name: &str, volume: &str) {
    let bound = json!({"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"});
    let claim = format!("pvc/{name}");
    let spec = json!({"metadata": {"annotations": bound}, "spec": {"volumeName": volume}});
    patch(server, &claim, &spec, &[]);
    let status = ["--subresource=status"];
    let capacity = json!({"status": {"phase": "Bound", "capacity": {"storage": "200Mi"}, "accessModes": ["ReadWriteOnce"]}});
    patch(server, &claim, &capacity, &status);
    patch(
        server,
        &format!("pv/{volume}"),
        &json!({"status": {"phase": "Bound"}}),
        &status,
    );
}

/// A snapshot with the default class; back when it can be restored.
fn snapshot(server: &ApiServer) {
    let group = "snapshot.storage.k8s.io/v1";
    let default = json!({"snapshot.storage.kubernetes.io/is-default-class": "true"});
    let class = json!({
        "apiVersion": group, "kind": "VolumeSnapshotClass", "metadata": {"name": "vd", "annotations": default},
        "driver": "vd.csi.io", "deletionPolicy": "Delete",
    });
    create(server, &class);
    let snapshot = json!({
        "apiVersion": group, "kind": "VolumeSnapshot", "metadata": {"name": "s"},
        "spec": {"source": {"persistentVolumeClaimName": "c"}},
    });
    create(server, &snapshot);
    wait(
        server,
        "volumesnapshot/s",
        "jsonpath={.status.readyToUse}=true",
    );
    assert_eq!(
        get(server, "volumesnapshot/s", ".status.restoreSize"),
        "300Mi"
    );
}

/// A user deletes, and the binder does its part; then what the sidecars have to do with it.
fn remove(server: &ApiServer, volume: &str) {
    let _output = admin(server, &["delete", "volumesnapshot/s", "--timeout=100s"]);
    let contents = admin(server, &["get", "volumesnapshotcontents", "-o", "name"]);
    assert_eq!(contents, "", "the content went with its snapshot");
    let finalizers = json!({"metadata": {"finalizers": null}});
    patch(server, "pvc/c", &finalizers, &[]);
    let _output = admin(server, &["delete", "pvc/c", "--timeout=100s"]);
    let released = json!({"status": {"phase": "Released"}});
    patch(
        server,
        &format!("pv/{volume}"),
        &released,
        &["--subresource=status"],
    );
    wait(server, &format!("pv/{volume}"), "delete");
}

#[test]
fn the_sidecars_do_their_work_with_the_shipped_flags_and_rights() {
    let fixture = Fixture::on(FsKind::Xfs);
    let server = ApiServer::with_driver();
    let definitions = snapshot_definitions().display().to_string();
    let _output = admin(&server, &["apply", "-f", &definitions]);
    server.wait_established();
    node(&server);
    let folder = fixture.fs.folder();
    let sidecars = Sidecars::start(&server, &folder.join("csi.sock"), folder);

    let volume = claim(&server, "c", "200Mi", &Value::Null);
    bind(&server, "c", &volume);
    let more = json!({"spec": {"resources": {"requests": {"storage": "300Mi"}}}});
    patch(&server, "pvc/c", &more, &[]);
    wait(
        &server,
        &format!("pv/{volume}"),
        "jsonpath={.spec.capacity.storage}=300Mi",
    );
    snapshot(&server);
    let from =
        json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
    let restored = claim(&server, "restored", "300Mi", &from);
    // Until then the snapshot stays.
    bind(&server, "restored", &restored);
    let _clone = claim(
        &server,
        "clone",
        "300Mi",
        &json!({"kind": "PersistentVolumeClaim", "name": "c"}),
    );
    remove(&server, &volume);

    let capacities = admin(
        &server,
        &["get", "csistoragecapacities", "-n", "vd-csi", "-o", "json"],
    );
    let capacities: Value = serde_json::from_str(&capacities).expect("JSON");
    let capacities = capacities["items"].as_array().expect("a list");
    assert_eq!(capacities.len(), 2, "one for each class: {capacities:?}");
    for capacity in capacities {
        assert_eq!(
            capacity["metadata"]["ownerReferences"][0]["kind"],
            "Deployment"
        );
    }
    let said = sidecars.said();
    let lower = said.to_lowercase();
    for complaint in ["forbidden", "unknown flag", "panic"] {
        assert!(!lower.contains(complaint), "{complaint}: {said}");
    }
    let events = admin(&server, &["get", "events", "-A"]);
    assert!(!events.contains("Warning"), "{events}");
}
