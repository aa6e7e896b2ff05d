//! Snapshots that are made as they should be.

use std::sync::Arc;

use kube::ResourceExt as _;
use serde_json::json;

use super::{BOUND, CONTENT, SOURCE, finalizers, is_ready};
use crate::driver::Answer;
use crate::part::Part;
use crate::stage::made_for;

pub async fn a_snapshot_is_made_and_deleted(part: Arc<Part>) {
    let snapshot = part.begin().await;
    let (content, id) = made_for(&snapshot);
    let ready = part.until_ready().await;
    assert_eq!(finalizers(&ready), [SOURCE, BOUND]);
    let unmarked = |c: &serde_json::Value| {
        let annotations = c["metadata"]["annotations"].as_object();
        annotations.is_none_or(serde_json::Map::is_empty)
    };
    let made = part
        .until(&part.contents(), &content, "unmarked", unmarked)
        .await;
    assert_eq!(finalizers(&made), [CONTENT]);
    part.until_claim("released", <[String]>::is_empty).await;
    for reason in ["CreatingSnapshot", "SnapshotCreated", "SnapshotReady"] {
        part.until_told("snap", reason).await;
    }
    part.compare("made").await;
    let calls = part.driver.calls(&part.volume()).len();
    assert_eq!(calls, 1, "it was made at the first attempt");
    part.delete_all(&content).await;
    assert!(!part.driver.knows(&id));
    part.compare("deleted").await;
}

pub async fn what_a_user_writes_on_a_snapshot_stays(part: Arc<Part>) {
    let class = part
        .class(|class| {
            class["metadata"]["labels"] = json!({"of": "class"});
            class["metadata"]["annotations"] = json!({"of": "class"});
            class["parameters"] = json!({"compression": "zstd"});
        })
        .await;
    part.claim(part.driver.name).await;
    part.seen().await;
    let snapshot = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {
            "name": "snap", "namespace": part.name, "finalizers": ["example.com/mine"],
            "labels": {"app": "shop"}, "annotations": {"example.com/why": "because"},
        },
        "spec": {"source": {"persistentVolumeClaimName": "data"}, "volumeSnapshotClassName": class},
    });
    let snapshot = part.make(&part.snapshots(), snapshot).await;
    let (content, _) = made_for(&snapshot);
    part.until_snapshot("ready", is_ready).await;
    part.compare("made").await;
    part.change(
        &part.snapshots(),
        "snap",
        json!({"metadata": {"labels": {"app": "other"}, "annotations": {"more": "x"}}}),
    )
    .await;
    part.change(
        &part.contents(),
        &content,
        json!({"metadata": {"labels": {"backup": "yes"}, "annotations": {"velero.io/x": "y"}}}),
    )
    .await;
    part.compare("changed").await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.contents(), &content).await;
    part.until_snapshot("free but for the user", |s| {
        finalizers(s) == ["example.com/mine"]
    })
    .await;
    part.compare("deleted").await;
}

pub async fn a_snapshot_of_a_filesystem_says_so(part: Arc<Part>) {
    let class = part.class(|_| {}).await;
    part.unbound_claim("data", json!({})).await;
    part.bind_with(part.driver.name, |volume| {
        volume["spec"]["volumeMode"] = json!("Filesystem");
    })
    .await;
    part.seen().await;
    part.snapshot(Some(&class)).await;
    part.until_ready().await;
    part.compare("made").await;
}

pub async fn two_snapshots_of_one_claim_are_two(part: Arc<Part>) {
    part.begin().await;
    part.until_ready().await;
    let spec = json!({"source": {"persistentVolumeClaimName": "data"}, "volumeSnapshotClassName": part.name});
    part.snapshot_of("second", spec).await;
    part.until(&part.snapshots(), "second", "ready", is_ready)
        .await;
    part.compare("made").await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("one is deleted").await;
}

/// The rename race: what was, and what is now, have one name.
pub async fn a_snapshot_of_the_same_name_is_another_one(part: Arc<Part>) {
    let first = part.begin().await;
    part.until_ready().await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    let second = part.snapshot(Some(&part.name)).await;
    part.until_ready().await;
    assert_ne!(first.uid(), second.uid());
    part.until_gone(&part.contents(), &made_for(&first).0).await;
    part.compare("made again").await;
    part.delete_all(&made_for(&second).0).await;
    part.compare("deleted again").await;
}

pub async fn a_driver_that_says_no_size_and_no_time(part: Arc<Part>) {
    part.driver.script(&part.volume(), &[Answer::Bare]);
    part.begin().await;
    part.until_ready().await;
    part.compare("made").await;
}

pub async fn a_hundred_at_once_are_all_made(part: Arc<Part>) {
    let class = part.class(|_| {}).await;
    part.claim(part.driver.name).await;
    part.seen().await;
    let names: Vec<String> = (0..100).map(|number| format!("snap-{number:02}")).collect();
    let spec =
        json!({"source": {"persistentVolumeClaimName": "data"}, "volumeSnapshotClassName": class});
    for name in &names {
        part.snapshot_of(name, spec.clone()).await;
    }
    for name in &names {
        part.until(&part.snapshots(), name, "ready", is_ready).await;
    }
    part.compare("made").await;
    for name in &names {
        part.delete(&part.snapshots(), name).await;
    }
    for name in &names {
        part.until_gone(&part.snapshots(), name).await;
    }
    part.compare("deleted").await;
    assert!(part.driver.snapshots_of(&part.volume()).is_empty());
}
