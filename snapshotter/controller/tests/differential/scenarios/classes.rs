//! The classes of snapshots: missing, wrong, changed, gone.

use std::sync::Arc;

use serde_json::json;

use super::finalizers;
use crate::driver::Answer;
use crate::part::Part;
use crate::stage::made_for;
use tonic::Code;

pub async fn a_class_that_comes_later_is_found(part: Arc<Part>) {
    part.claim(part.driver.name).await;
    part.seen().await;
    part.snapshot(Some(&part.name)).await;
    let waiting = part.until_error("VolumeSnapshotClass").await;
    assert_eq!(finalizers(&waiting), [""; 0]);
    part.until_told("snap", "GetSnapshotClassFailed").await;
    part.compare("missing").await;
    part.class(|_| {}).await;
    part.until_ready().await;
    part.compare("there").await;
}

/// Upstream serves every driver, ours only its own.
pub async fn a_class_of_another_driver(part: Arc<Part>) {
    let class = part
        .class(|class| class["driver"] = json!("other.csi.io"))
        .await;
    part.claim("other.csi.io").await;
    part.seen().await;
    part.snapshot(Some(&class)).await;
    part.compare("asked for").await;
    assert!(part.driver.calls(&part.volume()).is_empty());
}

pub async fn a_class_that_is_deleted_after_the_snapshot_was_made(part: Arc<Part>) {
    let snapshot = part.begin().await;
    let (content, _) = made_for(&snapshot);
    part.until_ready().await;
    part.until_claim("released", <[String]>::is_empty).await;
    part.compare("made").await;
    part.delete(&part.classes(), &part.name).await;
    part.compare("without class").await;
    part.delete_all(&content).await;
    part.compare("deleted").await;
}

pub async fn a_class_that_is_deleted_while_the_snapshot_is_made(part: Arc<Part>) {
    part.driver
        .script(&part.volume(), &[Answer::No(Code::Internal)]);
    let (content, _) = made_for(&part.begin().await);
    part.until_error("as the test wants").await;
    part.until_told(&content, "SnapshotContentCheckandUpdateFailed")
        .await;
    part.compare("failing").await;
    part.delete(&part.classes(), &part.name).await;
    part.compare("without class").await;
    part.driver.script(&part.volume(), &[Answer::Ready]);
    part.delete_all(&content).await;
    part.compare("deleted").await;
}

pub async fn a_class_that_is_changed_after_the_snapshot_was_made(part: Arc<Part>) {
    part.begin().await;
    part.until_ready().await;
    part.until_claim("released", <[String]>::is_empty).await;
    part.compare("made first").await;
    let retained = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass", "metadata": {"name": part.name},
        "driver": part.driver.name, "deletionPolicy": "Retain", "parameters": {"compression": "none"},
    });
    part.delete(&part.classes(), &part.name).await;
    part.make(&part.classes(), retained).await;
    part.compare("made").await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
}

pub async fn a_class_that_is_changed_while_the_snapshot_is_made(part: Arc<Part>) {
    part.driver
        .script(&part.volume(), &[Answer::No(Code::Internal)]);
    part.begin_with(|class| class["parameters"] = json!({"compression": "none"}))
        .await;
    part.until_error("as the test wants").await;
    part.delete(&part.classes(), &part.name).await;
    part.class(|class| class["parameters"] = json!({"compression": "zstd"}))
        .await;
    part.seen().await;
    part.driver.script(&part.volume(), &[Answer::Ready]);
    part.until_ready().await;
    part.compare("made").await;
}

pub async fn a_snapshot_whose_class_never_came_is_deleted(part: Arc<Part>) {
    part.claim(part.driver.name).await;
    part.seen().await;
    part.snapshot(Some("there-is-no-such-class")).await;
    part.until_error("VolumeSnapshotClass").await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
}

/// Upstream marks a call before it looks at the parameters, and no call takes the mark off: it cannot be deleted.
pub async fn a_reserved_parameter_that_does_not_exist(part: Arc<Part>) {
    let snapshot = part
        .begin_with(|class| class["parameters"] = json!({"csi.storage.k8s.io/what": "x"}))
        .await;
    let (content, _) = made_for(&snapshot);
    part.until_error("csi.storage.k8s.io/what").await;
    assert!(part.driver.calls(&part.volume()).is_empty());
    part.compare("told").await;
    part.delete(&part.snapshots(), "snap").await;
    if part.side != crate::side::Side::Upstream {
        part.until_gone(&part.contents(), &content).await;
    }
    part.compare("deleted").await;
}
