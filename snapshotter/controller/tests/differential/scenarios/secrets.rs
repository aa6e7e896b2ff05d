//! Secrets that the driver's calls need.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::is_ready;
use crate::part::Part;
use crate::stage::made_for;

fn secret(class: &mut Value) {
    class["parameters"] = json!({
        "csi.storage.k8s.io/snapshotter-secret-name": "of-${volumesnapshot.name}",
        "csi.storage.k8s.io/snapshotter-secret-namespace": "${volumesnapshot.namespace}",
        "compression": "zstd",
    });
}

pub async fn a_secret_that_comes_later_is_sent(part: Arc<Part>) {
    let (content, _) = made_for(&part.begin_with(secret).await);
    part.until_error("of-snap").await;
    assert!(part.driver.calls(&part.volume()).is_empty());
    part.compare("missing").await;
    part.secret("of-snap").await;
    part.until_ready().await;
    assert_eq!(part.driver.secrets_of(&part.volume())["key"], "word");
    part.compare("there").await;
    part.delete_all(&content).await;
    part.compare("deleted").await;
}

pub async fn a_secret_that_is_gone_when_it_is_deleted(part: Arc<Part>) {
    part.secret("of-snap").await;
    let (content, _) = made_for(&part.begin_with(secret).await);
    part.until_ready().await;
    let secrets: Api<Secret> = Api::namespaced(part.client.clone(), &part.name);
    secrets
        .delete("of-snap", &DeleteParams::default())
        .await
        .unwrap();
    part.delete(&part.snapshots(), "snap").await;
    part.until_told(&content, "SnapshotDeleteError").await;
    part.compare("missing").await;
    part.secret("of-snap").await;
    part.until_gone(&part.contents(), &content).await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
}

/// Nothing was made for want of the Secret, so nothing is there; that is settled by asking for its deletion, without.
pub async fn a_snapshot_whose_secret_never_came_is_deleted(part: Arc<Part>) {
    let (content, _) = made_for(&part.begin_with(secret).await);
    part.until_error("of-snap").await;
    part.delete_all(&content).await;
    part.compare("deleted").await;
}

pub async fn half_a_secret_is_told(part: Arc<Part>) {
    let half = |class: &mut Value| {
        class["parameters"] = json!({"csi.storage.k8s.io/snapshotter-secret-name": "x"});
    };
    part.begin_with(half).await;
    part.until_error("snapshotter-secret-namespace").await;
    part.compare("told").await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
}

pub async fn a_secret_named_after_what_does_not_exist_is_told(part: Arc<Part>) {
    let wrong = |class: &mut Value| {
        secret(class);
        class["parameters"]["csi.storage.k8s.io/snapshotter-secret-name"] = json!("${pvc.name}");
    };
    part.begin_with(wrong).await;
    part.until_error("pvc.name").await;
    part.compare("told").await;
}

pub async fn a_secret_for_listing_is_sent(part: Arc<Part>) {
    part.driver.has(&part.handle());
    let class = part
        .class(|class| {
            class["parameters"] = json!({
                "csi.storage.k8s.io/snapshotter-list-secret-name": "lists",
                "csi.storage.k8s.io/snapshotter-list-secret-namespace": part.name,
            });
        })
        .await;
    part.seen().await;
    let content = part
        .content(&part.handle(), "Retain", |content| {
            content["spec"]["volumeSnapshotClassName"] = json!(class);
        })
        .await;
    let spec =
        json!({"source": {"volumeSnapshotContentName": content}, "volumeSnapshotClassName": class});
    part.snapshot_of("snap", spec).await;
    part.until_error("lists").await;
    part.compare("missing").await;
    part.secret("lists").await;
    part.until_snapshot("ready", is_ready).await;
    part.compare("there").await;
}
