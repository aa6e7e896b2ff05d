//! What is deleted: by its user, by hand, at a bad time.

use std::sync::Arc;

use serde_json::{Value, json};
use tonic::Code;

use super::{BOUND, CONTENT, SOURCE, finalizers, is_ready};
use crate::driver::Answer;
use crate::part::Part;
use crate::stage::made_for;

pub async fn a_retained_snapshot_stays_at_the_driver(part: Arc<Part>) {
    let snapshot = part
        .begin_with(|class| class["deletionPolicy"] = json!("Retain"))
        .await;
    let (content, id) = made_for(&snapshot);
    let ready = part.until_snapshot("ready", is_ready).await;
    assert_eq!(finalizers(&ready), [SOURCE]);
    part.compare("made").await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("retained").await;
    part.delete(&part.contents(), &content).await;
    part.until_gone(&part.contents(), &content).await;
    part.compare("deleted").await;
    assert!(part.driver.knows(&id));
}

pub async fn a_policy_that_is_changed_later_counts(part: Arc<Part>) {
    let (content, id) = made_for(&part.begin().await);
    part.until_ready().await;
    let retain = json!({"spec": {"deletionPolicy": "Retain"}});
    part.change(&part.contents(), &content, retain).await;
    part.seen().await;
    part.compare("changed").await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("retained").await;
    part.delete(&part.contents(), &content).await;
    part.until_gone(&part.contents(), &content).await;
    part.compare("deleted").await;
    assert!(part.driver.knows(&id));
}

pub async fn a_deletion_that_the_driver_refuses_is_tried_again(part: Arc<Part>) {
    let (content, id) = made_for(&part.begin().await);
    part.until_ready().await;
    part.driver.refuse_delete(&id, u32::MAX);
    part.delete(&part.snapshots(), "snap").await;
    part.until_told(&content, "SnapshotDeleteError").await;
    part.driver.called(&id, 3).await;
    part.compare("refused").await;
    part.driver.refuse_delete(&id, 0);
    part.until_gone(&part.contents(), &content).await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
    assert!(!part.driver.knows(&id));
}

pub async fn a_snapshot_is_kept_while_it_is_restored(part: Arc<Part>) {
    let (content, id) = made_for(&part.begin().await);
    part.until_ready().await;
    let source =
        json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "snap"});
    let spec = json!({"dataSource": source, "volumeName": "pv-copy"});
    part.unbound_claim("copy", spec).await;
    part.seen().await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_told("snap", "SnapshotDeletePending").await;
    part.compare("restored").await;
    part.phase("copy", "Bound").await;
    part.until_gone(&part.contents(), &content).await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
    assert!(!part.driver.knows(&id));
}

pub async fn a_content_deleted_by_hand_stays_until_its_snapshot_goes(part: Arc<Part>) {
    let (content, id) = made_for(&part.begin().await);
    part.until_ready().await;
    part.delete(&part.contents(), &content).await;
    part.compare("deleted by hand").await;
    assert!(part.driver.knows(&id));
    part.delete_all(&content).await;
    part.compare("deleted").await;
    assert!(!part.driver.knows(&id));
}

pub async fn a_content_that_is_gone_is_told(part: Arc<Part>) {
    let (content, _) = made_for(&part.begin().await);
    part.until_ready().await;
    part.until_claim("released", <[String]>::is_empty).await;
    part.delete(&part.contents(), &content).await;
    let none = json!({"metadata": {"finalizers": null}});
    part.change(&part.contents(), &content, none).await;
    part.until_gone(&part.contents(), &content).await;
    part.until_told("snap", "SnapshotContentMissing").await;
    part.compare("gone").await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
}

pub async fn a_snapshots_finalizers_taken_off_by_hand_come_back(part: Arc<Part>) {
    part.begin().await;
    part.until_ready().await;
    part.until_claim("released", <[String]>::is_empty).await;
    let none = json!({"metadata": {"finalizers": null}});
    part.change(&part.snapshots(), "snap", none).await;
    let both = part.until_ready().await;
    assert_eq!(finalizers(&both), [SOURCE, BOUND]);
    part.compare("back").await;
}

pub async fn a_contents_finalizer_taken_off_by_hand_comes_back(part: Arc<Part>) {
    let (content, _) = made_for(&part.begin().await);
    part.until_ready().await;
    let none = json!({"metadata": {"finalizers": null}});
    part.change(&part.contents(), &content, none).await;
    part.until(&part.contents(), &content, "protected", |c| {
        finalizers(c) == [CONTENT]
    })
    .await;
    part.compare("back").await;
}

pub async fn a_snapshot_is_deleted_while_its_claim_is_missing(part: Arc<Part>) {
    let class = part.class(|_| {}).await;
    part.seen().await;
    part.snapshot(Some(&class)).await;
    part.until_error("claim data").await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
}

pub async fn a_snapshot_is_deleted_while_the_driver_is_slow(part: Arc<Part>) {
    part.driver.script(&part.volume(), &[Answer::Wait]);
    let (content, id) = made_for(&part.begin().await);
    part.driver.called(&part.volume(), 1).await;
    part.until_bound().await;
    part.delete(&part.snapshots(), "snap").await;
    part.seen().await;
    part.driver.script(&part.volume(), &[Answer::Ready]);
    part.until_gone(&part.contents(), &content).await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
    assert!(!part.driver.knows(&id));
}

pub async fn a_snapshot_is_deleted_before_it_is_ready(part: Arc<Part>) {
    part.driver.script(&part.volume(), &[Answer::Pending]);
    let (content, id) = made_for(&part.begin().await);
    let cut = |s: &Value| !s["status"]["creationTime"].is_null();
    part.until_snapshot("cut", cut).await;
    part.delete_all(&content).await;
    part.compare("deleted").await;
    assert!(!part.driver.knows(&id));
}

pub async fn a_snapshot_is_deleted_while_the_driver_fails(part: Arc<Part>) {
    part.driver
        .script(&part.volume(), &[Answer::No(Code::Internal)]);
    let (content, _) = made_for(&part.begin().await);
    part.until_error("as the test wants").await;
    part.until_told(&content, "SnapshotContentCheckandUpdateFailed")
        .await;
    part.compare("failing").await;
    part.delete_all(&content).await;
    part.compare("deleted").await;
}

pub async fn a_retained_snapshot_is_deleted_while_the_driver_fails(part: Arc<Part>) {
    part.driver
        .script(&part.volume(), &[Answer::No(Code::Internal)]);
    let snapshot = part
        .begin_with(|class| class["deletionPolicy"] = json!("Retain"))
        .await;
    let (content, _) = made_for(&snapshot);
    part.until_error("as the test wants").await;
    part.until_told(&content, "SnapshotContentCheckandUpdateFailed")
        .await;
    part.compare("failing").await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("retained").await;
    part.driver.script(&part.volume(), &[Answer::Ready]);
    part.until(&part.contents(), &content, "ready", is_ready)
        .await;
    part.compare("made nevertheless").await;
}
