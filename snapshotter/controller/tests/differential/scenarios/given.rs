//! Contents that somebody else has made, for a snapshot that the driver has already.

use std::sync::Arc;

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{CONTENT, SOURCE, finalizers, is_ready};
use crate::part::Part;
use crate::side::Side;
use crate::stage::made_for;

/// A snapshot that asks for this content.
async fn ask(part: &Part, content: &str) -> kube::core::DynamicObject {
    let spec = json!({"source": {"volumeSnapshotContentName": content}});
    part.snapshot_of("snap", spec).await
}

/// A content for the scenario's handle, known to the controllers.
async fn given(part: &Part, policy: &str, change: impl FnOnce(&mut Value)) -> String {
    let content = part.content(&part.handle(), policy, change).await;
    part.seen().await;
    content
}

pub async fn a_given_content_is_bound(part: Arc<Part>) {
    part.driver.has(&part.handle());
    let content = given(&part, "Retain", |_| {}).await;
    part.compare("unbound").await;
    ask(&part, &content).await;
    let ready = part.until_snapshot("ready", is_ready).await;
    assert_eq!(finalizers(&ready), [SOURCE]);
    let is_protected = |c: &Value| finalizers(c) == [CONTENT];
    part.until(&part.contents(), &content, "protected", is_protected)
        .await;
    part.compare("bound").await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
    assert!(part.driver.knows(&part.handle()));
}

pub async fn a_given_content_that_comes_later_is_bound(part: Arc<Part>) {
    part.driver.has(&part.handle());
    ask(&part, &format!("given-{}", part.name)).await;
    part.until_error("VolumeSnapshotContent").await;
    part.until_told("snap", "SnapshotContentMissing").await;
    part.compare("missing").await;
    part.content(&part.handle(), "Retain", |_| {}).await;
    let ready = part.until_snapshot("ready", is_ready).await;
    assert!(ready["status"]["error"].is_null());
    part.compare("there").await;
}

pub async fn a_given_handle_that_does_not_exist_is_told(part: Arc<Part>) {
    let content = given(&part, "Retain", |_| {}).await;
    ask(&part, &content).await;
    let waiting = part.until_error("no snapshot handle-").await;
    assert_eq!(waiting["status"]["readyToUse"], json!(false));
    part.until_told(&content, "SnapshotContentCheckandUpdateFailed")
        .await;
    part.compare("missing").await;
    part.driver.has(&part.handle());
    part.until_snapshot("ready", is_ready).await;
    part.compare("there").await;
}

pub async fn a_given_content_for_another_snapshot(part: Arc<Part>) {
    part.driver.has(&part.handle());
    let another =
        |content: &mut Value| content["spec"]["volumeSnapshotRef"]["name"] = json!("another");
    let content = given(&part, "Retain", another).await;
    ask(&part, &content).await;
    part.until_error("another snapshot").await;
    part.until_told("snap", "SnapshotContentMisbound").await;
    part.compare("told").await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
}

pub async fn a_given_content_for_an_earlier_snapshot_of_that_name(part: Arc<Part>) {
    part.driver.has(&part.handle());
    let earlier = |content: &mut Value| {
        content["spec"]["volumeSnapshotRef"]["uid"] = json!("5d3f7c8a-0000-4000-8000-000000000001");
    };
    let content = given(&part, "Delete", earlier).await;
    ask(&part, &content).await;
    part.until_error("another snapshot").await;
    part.compare("told").await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
    assert!(part.driver.knows(&part.handle()));
}

/// Upstream serves every driver, ours only its own.
pub async fn a_given_content_of_another_driver(part: Arc<Part>) {
    let other = |content: &mut Value| content["spec"]["driver"] = json!("other.csi.io");
    let content = given(&part, "Delete", other).await;
    ask(&part, &content).await;
    part.compare("asked for").await;
}

pub async fn a_given_content_that_was_made_for_a_claim(part: Arc<Part>) {
    let of_a_claim = |content: &mut Value| {
        content["spec"]["source"] = json!({"volumeHandle": "vol-unknown"});
        content["spec"]["driver"] = json!("vd.csi.io");
    };
    let content = given(&part, "Retain", of_a_claim).await;
    ask(&part, &content).await;
    part.until_error("spec.source.snapshotHandle").await;
    part.compare("told").await;
}

pub async fn a_given_snapshot_is_deleted_if_that_is_its_policy(part: Arc<Part>) {
    part.driver.has(&part.handle());
    let content = given(&part, "Delete", |_| {}).await;
    ask(&part, &content).await;
    part.until_ready().await;
    part.compare("bound").await;
    part.delete_all(&content).await;
    part.compare("deleted").await;
    assert!(!part.driver.knows(&part.handle()));
}

pub async fn a_given_content_gets_the_snapshots_class(part: Arc<Part>) {
    part.driver.has(&part.handle());
    let class = part.class(|_| {}).await;
    let content = given(&part, "Delete", |_| {}).await;
    let spec =
        json!({"source": {"volumeSnapshotContentName": content}, "volumeSnapshotClassName": class});
    part.snapshot_of("snap", spec).await;
    part.until_ready().await;
    part.compare("bound").await;
}

pub async fn a_given_content_with_another_class(part: Arc<Part>) {
    part.driver.has(&part.handle());
    let class = part.class(|_| {}).await;
    let other = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
        "metadata": {"name": format!("{class}-2")}, "driver": part.driver.name, "deletionPolicy": "Retain",
    });
    part.make(&part.classes(), other).await;
    let named = format!("{class}-2");
    let content = given(&part, "Delete", |content| {
        content["spec"]["volumeSnapshotClassName"] = json!(named);
    })
    .await;
    let spec =
        json!({"source": {"volumeSnapshotContentName": content}, "volumeSnapshotClassName": class});
    part.snapshot_of("snap", spec).await;
    part.until_ready().await;
    part.compare("bound").await;
}

pub async fn a_given_snapshot_whose_class_does_not_exist(part: Arc<Part>) {
    part.driver.has(&part.handle());
    let content = given(&part, "Delete", |_| {}).await;
    let spec = json!({"source": {"volumeSnapshotContentName": content}, "volumeSnapshotClassName": part.name});
    part.snapshot_of("snap", spec).await;
    part.until_error("VolumeSnapshotClass").await;
    part.compare("missing").await;
    part.class(|_| {}).await;
    part.until_ready().await;
    part.compare("there").await;
}

pub async fn a_given_content_that_nobody_asked_for_is_deleted(part: Arc<Part>) {
    part.driver.has(&part.handle());
    let content = given(&part, "Delete", |_| {}).await;
    part.until(&part.contents(), &content, "looked at", |_| true)
        .await;
    part.compare("unbound").await;
    part.delete(&part.contents(), &content).await;
    part.until_gone(&part.contents(), &content).await;
    part.compare("deleted").await;
}

pub async fn a_given_snapshot_that_was_never_bound_is_deleted(part: Arc<Part>) {
    ask(&part, &format!("given-{}", part.name)).await;
    part.until_error("VolumeSnapshotContent").await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
}

/// As after a restore of the objects alone: the driver's snapshot is somebody's.
pub async fn a_given_content_whose_snapshot_does_not_exist(part: Arc<Part>) {
    part.driver.has(&part.handle());
    let earlier = |content: &mut Value| {
        content["spec"]["volumeSnapshotRef"]["uid"] = json!("5d3f7c8a-0000-4000-8000-000000000002");
    };
    let content = given(&part, "Delete", earlier).await;
    part.until(&part.contents(), &content, "protected", |c| {
        finalizers(c) == [CONTENT]
    })
    .await;
    part.compare("alone").await;
    part.delete(&part.contents(), &content).await;
    part.compare("deleted").await;
    assert!(part.driver.knows(&part.handle()));
}

/// csi-provisioner reads both; who binds it keeps them.
pub async fn a_given_content_with_a_mode_and_leave_to_change_it(part: Arc<Part>) {
    part.driver.has(&part.handle());
    let content = given(&part, "Retain", |content| {
        content["spec"]["sourceVolumeMode"] = json!("Filesystem");
        content["metadata"]["annotations"] =
            json!({"snapshot.storage.kubernetes.io/allow-volume-mode-change": "true"});
    })
    .await;
    ask(&part, &content).await;
    part.until_snapshot("ready", is_ready).await;
    part.compare("bound").await;
}

pub async fn a_driver_that_cannot_list_given_ones(part: Arc<Part>) {
    part.driver.has(&part.handle());
    part.driver.refuse_list(&part.handle(), true);
    let content = given(&part, "Retain", |_| {}).await;
    ask(&part, &content).await;
    part.until_error("as the test wants").await;
    part.compare("refused").await;
    part.driver.refuse_list(&part.handle(), false);
    part.until_snapshot("ready", is_ready).await;
    part.compare("listed").await;
}

/// Upstream knows the ids only of what it has asked after, and lets this one go without a word to the driver.
pub async fn a_given_snapshot_that_could_not_be_listed_is_deleted(part: Arc<Part>) {
    part.driver.has(&part.handle());
    part.driver.refuse_list(&part.handle(), true);
    let content = given(&part, "Delete", |_| {}).await;
    ask(&part, &content).await;
    part.until_error("as the test wants").await;
    part.until_bound().await;
    part.delete_all(&content).await;
    part.compare("deleted").await;
    let stays = part.side == Side::Upstream;
    assert_eq!(part.driver.knows(&part.handle()), stays);
}

/// As a backup does: what one cluster has retained is another's content.
pub async fn what_was_retained_is_given_again(part: Arc<Part>) {
    let snapshot = part
        .begin_with(|class| class["deletionPolicy"] = json!("Retain"))
        .await;
    let (content, id) = made_for(&snapshot);
    part.until_snapshot("ready", is_ready).await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.delete(&part.contents(), &content).await;
    part.until_gone(&part.contents(), &content).await;
    part.compare("retained").await;
    assert!(part.driver.knows(&id));
    let content = part.content(&id, "Delete", |_| {}).await;
    part.seen().await;
    let again = ask(&part, &content).await;
    assert_ne!(again.uid(), snapshot.uid());
    part.until_ready().await;
    part.compare("given again").await;
    part.delete_all(&content).await;
    part.compare("deleted").await;
    assert!(!part.driver.knows(&id));
}
