//! What a snapshot gets that names no class.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::part::Part;

fn default(class: &mut Value) {
    class["metadata"]["annotations"] =
        json!({"snapshot.storage.kubernetes.io/is-default-class": "true"});
}

async fn ask(part: &Part) {
    part.claim(part.driver.name).await;
    part.seen().await;
    part.snapshot(None).await;
}

pub async fn no_default_class(part: Arc<Part>) {
    ask(&part).await;
    part.until_error("default").await;
    part.until_told("snap", "SetDefaultSnapshotClassFailed")
        .await;
    part.compare("none").await;
    part.class(default).await;
    part.until_ready().await;
    part.compare("one").await;
    part.delete(&part.classes(), &part.name).await;
    part.seen().await;
}

pub async fn one_default_class(part: Arc<Part>) {
    part.class(default).await;
    ask(&part).await;
    part.until_ready().await;
    part.compare("made").await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.delete(&part.classes(), &part.name).await;
    part.compare("deleted").await;
}

pub async fn two_default_classes(part: Arc<Part>) {
    part.class(default).await;
    let mut second = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass", "metadata": {"name": "second-default"},
        "driver": part.driver.name, "deletionPolicy": "Delete",
    });
    default(&mut second);
    part.make(&part.classes(), second).await;
    ask(&part).await;
    part.until_error("default").await;
    part.compare("two").await;
    part.delete(&part.classes(), "second-default").await;
    part.until_ready().await;
    part.compare("one").await;
    part.delete(&part.classes(), &part.name).await;
    part.seen().await;
}

pub async fn a_default_class_of_another_driver(part: Arc<Part>) {
    part.class(|class| {
        default(class);
        class["driver"] = json!("other.csi.io");
    })
    .await;
    ask(&part).await;
    part.until_error("default").await;
    part.compare("none").await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.delete(&part.classes(), &part.name).await;
    part.compare("deleted").await;
}

pub async fn no_class_and_no_claim(part: Arc<Part>) {
    part.snapshot(None).await;
    part.until_error("data").await;
    part.compare("neither").await;
    part.class(default).await;
    part.claim(part.driver.name).await;
    part.until_ready().await;
    part.compare("both").await;
    part.delete(&part.classes(), &part.name).await;
    part.seen().await;
}
