//! The API server restarts, and forgets.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cuts::Cuts;
use crate::driver::{Answer, Driver};
use crate::plane::Plane;
use crate::program::{Program, Quiet};
use crate::run::Behind;
use crate::stage::Stage;

const ALONE: [&str; 3] = [
    "--mode=full",
    "--leader-election=false",
    "--upstream-lease-namespace=nobody",
];

/// A snapshot beside the first, of the same claim.
async fn another(stage: &Stage, name: &str) {
    let spec = json!({"volumeSnapshotClassName": stage.name, "source": {"persistentVolumeClaimName": "data"}});
    stage.snapshot_of(name, spec).await;
}

async fn until_ready(stage: &Stage, name: &str) {
    let ready = |s: &Value| s["status"]["readyToUse"] == json!(true);
    stage.until(&stage.snapshots(), name, "ready", ready).await;
}

/// Waits until its metrics have these lines: an object may go a moment after what was waited for.
async fn counts(program: &Quiet, lines: &[&str]) {
    let waiting = async {
        loop {
            let page = program.get("/metrics").await;
            let Some(missing) = lines.iter().find(|line| !page.contains(**line)) else {
                return;
            };
            eprintln!("not yet: {missing}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    assert!(waited.is_ok(), "its metrics never say {lines:?}");
}

async fn stage(plane: &Plane, name: &str) -> Stage {
    Stage {
        client: plane.client().await,
        driver: Driver::start("vd.csi.io"),
        name: name.to_owned(),
        texts: true,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_restarts_ends_nothing() {
    let mut plane = Plane::another().await;
    let mut stage = stage(&plane, "restarted").await;
    let cuts = Arc::new(Cuts::new(None));
    let behind = Behind::new(stage.client.clone(), &stage.driver, &cuts).await;
    let program = Program::start(&behind.kubeconfig, &behind.socket, &ALONE)
        .await
        .quiet();
    stage.begin().await;
    stage.until_ready().await;
    // Under way while there is no API server: nobody can be told that it was made.
    stage.driver.script(&stage.volume(), &[Answer::Pending]);
    another(&stage, "second").await;
    stage.driver.called(&stage.volume(), 2).await;
    let before = cuts.calls().len();
    plane.restart_api_server().await;
    stage.client = plane.client().await;
    stage.driver.script(&stage.volume(), &[Answer::Ready]);
    until_ready(&stage, "second").await;
    let calls = cuts.calls().len() - before;
    assert!(calls < 500, "{calls} calls are a storm");
    for name in ["snap", "second"] {
        stage.delete(&stage.snapshots(), name).await;
        stage.until_gone(&stage.snapshots(), name).await;
    }
    assert!(stage.driver.snapshots_of(&stage.volume()).is_empty());
    program.stop().await;
}

/// The answer to a watch that goes on from where it was is "410 Gone" then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_before_an_api_server_forgot_is_found_out() {
    let mut plane = Plane::another().await;
    let mut stage = stage(&plane, "forgotten").await;
    let cuts = Arc::new(Cuts::new(None));
    let behind = Behind::new(stage.client.clone(), &stage.driver, &cuts).await;
    let program = Program::start(&behind.kubeconfig, &behind.socket, &ALONE)
        .await
        .quiet();
    stage.begin().await;
    stage.until_ready().await;
    // One that waits for a class that never comes, and another driver's content: both only are to be forgotten.
    let spec =
        json!({"volumeSnapshotClassName": "none", "source": {"persistentVolumeClaimName": "data"}});
    stage.snapshot_of("waits", spec).await;
    let told = |s: &Value| !s["status"]["error"].is_null();
    stage.until(&stage.snapshots(), "waits", "told", told).await;
    stage
        .content("of-others", "Delete", |content| {
            content["spec"]["driver"] = json!("others.csi.io");
        })
        .await;

    cuts.close();
    stage.delete(&stage.snapshots(), "snap").await;
    stage.delete(&stage.snapshots(), "waits").await;
    stage.delete(&stage.contents(), "given-forgotten").await;
    another(&stage, "second").await;
    plane.compact().await;
    plane.restart_api_server().await;
    stage.client = plane.client().await;
    cuts.open();

    program.said("too old resource version", 1).await;
    stage.until_gone(&stage.snapshots(), "snap").await;
    until_ready(&stage, "second").await;
    program.ready().await;
    counts(
        &program,
        &[
            "vd_snapshotter_snapshots 1\n",
            "vd_snapshotter_contents 1\n",
        ],
    )
    .await;
    assert_eq!(stage.driver.snapshots_of(&stage.volume()).len(), 1);
    program.stop().await;
}

/// What was gone is back, what was made since is unknown, and all versions are lower.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_etcd_was_restored_it_goes_on_from_what_is_there() {
    let mut plane = Plane::another().await;
    let mut stage = stage(&plane, "restored").await;
    let cuts = Arc::new(Cuts::new(None));
    let behind = Behind::new(stage.client.clone(), &stage.driver, &cuts).await;
    let program = Program::start(&behind.kubeconfig, &behind.socket, &ALONE)
        .await
        .quiet();
    stage.begin().await;
    stage.until_ready().await;
    another(&stage, "kept").await;
    until_ready(&stage, "kept").await;
    plane.save().await;
    stage.client = plane.client().await;

    another(&stage, "lost").await;
    until_ready(&stage, "lost").await;
    // A version that comes after all that is written below.
    for number in 0..20 {
        let label = json!({"metadata": {"labels": {"number": number.to_string()}}});
        stage.change(&stage.snapshots(), "kept", label).await;
    }
    stage.delete(&stage.snapshots(), "snap").await;
    stage.until_gone(&stage.snapshots(), "snap").await;
    plane.bring_back().await;
    stage.client = plane.client().await;

    for name in ["snap", "kept"] {
        stage.delete(&stage.snapshots(), name).await;
        stage.until_gone(&stage.snapshots(), name).await;
    }
    another(&stage, "new").await;
    until_ready(&stage, "new").await;
    stage.until_claim("let go", <[String]>::is_empty).await;
    program.ready().await;
    let lines = [
        "vd_snapshotter_snapshots 1\n",
        "vd_snapshotter_contents 1\n",
        "vd_snapshotter_waiting_snapshots 0\n",
    ];
    counts(&program, &lines).await;
    let calls = cuts.calls().len();
    assert!(calls < 500, "{calls} calls are a storm");
    program.stop().await;
}
