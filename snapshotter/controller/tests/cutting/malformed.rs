//! Objects that are not as they should be: written by an older version of the definitions, or within what those allow.

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceValidation,
};
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};

use crate::cuts::Cuts;
use crate::driver::Driver;
use crate::plane::{Plane, client, plane};
use crate::program::Program;
use crate::run::Behind;
use crate::stage::{Stage, made_for};

const ALONE: [&str; 3] = [
    "--mode=full",
    "--leader-election=false",
    "--upstream-lease-namespace=nobody",
];

/// Takes anything.
fn loosen(definition: &mut CustomResourceDefinition) {
    for version in &mut definition.spec.versions {
        let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        version.schema = Some(CustomResourceValidation {
            open_api_v3_schema: Some(serde_json::from_value(anything).unwrap()),
        });
    }
}

async fn stage(plane: &Plane, name: &str) -> Stage {
    Stage {
        client: plane.client().await,
        driver: Driver::start("vd.csi.io"),
        name: name.to_owned(),
        texts: true,
    }
}

fn object(kind: &str, name: &str, fields: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": kind, "metadata": {"name": name},
    });
    for (field, value) in fields.as_object().unwrap() {
        object[field] = value.clone();
    }
    object
}

async fn status(api: &Api<DynamicObject>, name: &str, status: Value) {
    let change = json!({"status": status});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&change))
        .await
        .unwrap();
}

/// One of each kind with each of these fields.
async fn make_all(stage: &Stage, name: &str, fields: &Value) {
    for (api, kind) in [
        (stage.snapshots(), "VolumeSnapshot"),
        (stage.contents(), "VolumeSnapshotContent"),
        (stage.classes(), "VolumeSnapshotClass"),
    ] {
        stage.make(&api, object(kind, name, fields)).await;
        // Classes have no status of their own.
        if kind != "VolumeSnapshotClass" && !fields["status"].is_null() {
            status(&api, name, fields["status"].clone()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_objects_stop_nothing_but_what_they_are_about() {
    let plane = Plane::another_with(loosen).await;
    let stage = stage(&plane, "malformed").await;
    let cuts = Arc::new(Cuts::new(None));
    let behind = Behind::new(stage.client.clone(), &stage.driver, &cuts).await;
    let kinds = [
        json!({}),
        json!({"spec": 7, "status": "what", "driver": [], "deletionPolicy": {}, "parameters": "none"}),
        json!({
            "spec": {
                "source": 1, "driver": 2, "volumeSnapshotRef": "snap", "volumeSnapshotClassName": [], "deletionPolicy": "Keep",
                "sourceVolumeMode": {},
            },
            "status": {
                "readyToUse": "yes", "creationTime": {}, "restoreSize": [], "error": "none", "snapshotHandle": 7,
                "boundVolumeSnapshotContentName": {},
            },
            "driver": 1, "deletionPolicy": 1, "parameters": {"a": 1},
        }),
        json!({
            "spec": {
                "driver": "vd.csi.io", "deletionPolicy": "Delete", "source": {"volumeHandle": [], "snapshotHandle": 1.5},
                "volumeSnapshotRef": {"namespace": "malformed", "name": "snap", "uid": 3},
            },
            "status": {"error": {"time": 1, "message": []}, "restoreSize": 1.5},
            "driver": "vd.csi.io", "deletionPolicy": null, "parameters": [],
        }),
    ];
    // Some are there already, and some come while it works.
    let (before, after) = kinds.split_at(2);
    for (number, fields) in before.iter().enumerate() {
        make_all(&stage, &format!("before-{number}"), fields).await;
    }
    let program = Program::start(&behind.kubeconfig, &behind.socket, &ALONE)
        .await
        .quiet();
    let first = stage.begin().await;
    stage.until_ready().await;
    for (number, fields) in after.iter().enumerate() {
        make_all(&stage, &format!("after-{number}"), fields).await;
    }
    goes(&stage, &first).await;
    let second = stage.snapshot(Some(&stage.name)).await;
    stage.until_ready().await;
    goes(&stage, &second).await;
    program.ready().await;
    let calls = cuts.calls().len();
    assert!(calls < 500, "{calls} calls are a storm");
    program.stop().await;
}

async fn goes(stage: &Stage, snapshot: &DynamicObject) {
    stage.delete(&stage.snapshots(), "snap").await;
    stage.until_gone(&stage.snapshots(), "snap").await;
    stage
        .until_gone(&stage.contents(), &made_for(snapshot).0)
        .await;
    assert!(stage.driver.snapshots_of(&stage.volume()).is_empty());
}

/// The definitions allow it: a size is an integer or a string.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_whose_size_is_a_large_number_is_one_like_any_other() {
    let stage = Stage {
        client: client().await,
        driver: Driver::start("large.csi.io"),
        name: "large".to_owned(),
        texts: true,
    };
    let more = [&["--driver-name=large.csi.io"][..], &ALONE[..]].concat();
    let program = Program::start(&plane().kubeconfig, &stage.driver.socket, &more)
        .await
        .quiet();
    let large = stage.begin().await;
    stage.until_ready().await;
    let size = json!({"restoreSize": 3_000_000_000_u64});
    status(&stage.snapshots(), "snap", size).await;
    // What comes after it, in the watch and in a list.
    another(&stage, "second").await;
    program.kill().await;
    let program = Program::start(&plane().kubeconfig, &stage.driver.socket, &more)
        .await
        .quiet();
    another(&stage, "third").await;
    for name in ["second", "third"] {
        stage.delete(&stage.snapshots(), name).await;
        stage.until_gone(&stage.snapshots(), name).await;
    }
    goes(&stage, &large).await;
    program.stop().await;
}

async fn another(stage: &Stage, name: &str) {
    let spec = json!({"source": {"persistentVolumeClaimName": "data"}, "volumeSnapshotClassName": stage.name});
    stage.snapshot_of(name, spec).await;
    let ready = |s: &Value| s["status"]["readyToUse"] == json!(true);
    stage.until(&stage.snapshots(), name, "ready", ready).await;
}
