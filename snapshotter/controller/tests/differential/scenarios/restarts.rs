//! The programs are lost at some step, and others go on from what is written.

use std::sync::Arc;

use serde_json::{Value, json};
use tonic::Code;

use super::is_ready;
use crate::driver::Answer;
use crate::part::Part;
use crate::side::Side;
use crate::stage::made_for;

async fn restart(part: &Part) {
    part.killed().await;
    part.started().await;
}

pub async fn before_there_is_a_class(part: Arc<Part>) {
    part.claim(part.driver.name).await;
    part.seen().await;
    part.snapshot(Some(&part.name)).await;
    part.until_error("VolumeSnapshotClass").await;
    restart(&part).await;
    part.class(|_| {}).await;
    part.until_ready().await;
    part.compare("made").await;
}

pub async fn before_there_is_a_claim(part: Arc<Part>) {
    let class = part.class(|_| {}).await;
    part.seen().await;
    part.snapshot(Some(&class)).await;
    part.until_error("claim data").await;
    restart(&part).await;
    part.claim(part.driver.name).await;
    part.until_ready().await;
    part.compare("made").await;
}

pub async fn before_the_claim_is_bound(part: Arc<Part>) {
    let class = part.class(|_| {}).await;
    part.unbound_claim("data", json!({})).await;
    part.seen().await;
    part.snapshot(Some(&class)).await;
    part.until_error("not bound").await;
    part.killed().await;
    part.bind(part.driver.name).await;
    part.started().await;
    part.until_ready().await;
    part.compare("made").await;
}

pub async fn while_the_driver_does_not_answer(part: Arc<Part>) {
    part.driver.script(&part.volume(), &[Answer::Hang]);
    part.begin().await;
    part.driver.called(&part.volume(), 1).await;
    part.killed().await;
    part.driver.script(&part.volume(), &[Answer::Ready]);
    part.started().await;
    part.until_ready().await;
    part.compare("made").await;
}

/// The driver answers so, before and after.
async fn fails(part: &Part, code: Code) {
    part.driver.script(&part.volume(), &[Answer::No(code)]);
    part.begin().await;
    part.until_error("as the test wants").await;
    restart(part).await;
    part.compare("failing").await;
    part.driver.script(&part.volume(), &[Answer::Ready]);
    part.until_ready().await;
    part.compare("made").await;
}

pub async fn while_the_driver_fails(part: Arc<Part>) {
    fails(&part, Code::Internal).await;
}

pub async fn while_the_driver_has_no_room(part: Arc<Part>) {
    fails(&part, Code::ResourceExhausted).await;
}

pub async fn before_it_is_ready(part: Arc<Part>) {
    part.driver.script(&part.volume(), &[Answer::Pending]);
    part.begin().await;
    let cut = |s: &Value| !s["status"]["creationTime"].is_null();
    part.until_snapshot("cut", cut).await;
    part.killed().await;
    part.driver.script(&part.volume(), &[Answer::Ready]);
    part.started().await;
    part.until_ready().await;
    part.compare("made").await;
}

pub async fn when_it_is_ready(part: Arc<Part>) {
    let (content, _) = made_for(&part.begin().await);
    part.until_ready().await;
    part.until_claim("released", <[String]>::is_empty).await;
    part.compare("before").await;
    restart(&part).await;
    part.compare("after").await;
    part.delete_all(&content).await;
    part.compare("deleted").await;
}

pub async fn made_while_nobody_serves(part: Arc<Part>) {
    let class = part.class(|_| {}).await;
    part.claim(part.driver.name).await;
    part.seen().await;
    part.killed().await;
    part.snapshot(Some(&class)).await;
    part.started().await;
    part.until_ready().await;
    part.compare("made").await;
}

pub async fn deleted_while_nobody_serves(part: Arc<Part>) {
    let (content, _) = made_for(&part.begin().await);
    part.until_ready().await;
    part.killed().await;
    part.delete(&part.snapshots(), "snap").await;
    part.started().await;
    part.until_gone(&part.contents(), &content).await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
}

pub async fn deleted_with_its_content_while_nobody_serves(part: Arc<Part>) {
    let (content, _) = made_for(&part.begin().await);
    part.until_ready().await;
    part.killed().await;
    part.delete(&part.contents(), &content).await;
    part.delete(&part.snapshots(), "snap").await;
    part.started().await;
    part.until_gone(&part.contents(), &content).await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
}

pub async fn made_and_deleted_while_nobody_serves(part: Arc<Part>) {
    let class = part.class(|_| {}).await;
    part.claim(part.driver.name).await;
    part.seen().await;
    part.killed().await;
    part.snapshot(Some(&class)).await;
    part.delete(&part.snapshots(), "snap").await;
    part.started().await;
    part.compare("neither").await;
}

pub async fn while_it_is_restored(part: Arc<Part>) {
    let (content, _) = made_for(&part.begin().await);
    part.until_ready().await;
    let source =
        json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "snap"});
    let spec = json!({"dataSource": source, "volumeName": "pv-copy"});
    part.unbound_claim("copy", spec).await;
    part.seen().await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_told("snap", "SnapshotDeletePending").await;
    restart(&part).await;
    part.compare("restored").await;
    part.phase("copy", "Bound").await;
    part.until_gone(&part.contents(), &content).await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
}

pub async fn while_the_driver_refuses_to_delete(part: Arc<Part>) {
    let (content, id) = made_for(&part.begin().await);
    part.until_ready().await;
    part.driver.refuse_delete(&id, u32::MAX);
    part.delete(&part.snapshots(), "snap").await;
    part.until_told(&content, "SnapshotDeleteError").await;
    part.killed().await;
    part.driver.refuse_delete(&id, 0);
    part.started().await;
    part.until_gone(&part.contents(), &content).await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
}

pub async fn before_a_given_content_is_there(part: Arc<Part>) {
    part.driver.has(&part.handle());
    let source = json!({"source": {"volumeSnapshotContentName": format!("given-{}", part.name)}});
    part.snapshot_of("snap", source).await;
    part.until_error("VolumeSnapshotContent").await;
    part.killed().await;
    part.content(&part.handle(), "Retain", |_| {}).await;
    part.started().await;
    part.until_snapshot("ready", is_ready).await;
    part.compare("bound").await;
}

pub async fn while_a_given_handle_does_not_exist(part: Arc<Part>) {
    let content = part.content(&part.handle(), "Delete", |_| {}).await;
    part.seen().await;
    let source = json!({"source": {"volumeSnapshotContentName": content}});
    part.snapshot_of("snap", source).await;
    part.until_error("no snapshot handle-").await;
    restart(&part).await;
    part.driver.has(&part.handle());
    part.until_ready().await;
    part.compare("bound").await;
    part.delete_all(&content).await;
    part.compare("deleted").await;
}

pub async fn a_retained_one_deleted_while_nobody_serves(part: Arc<Part>) {
    let snapshot = part
        .begin_with(|class| class["deletionPolicy"] = json!("Retain"))
        .await;
    let (content, id) = made_for(&snapshot);
    part.until_snapshot("ready", is_ready).await;
    part.killed().await;
    part.delete(&part.snapshots(), "snap").await;
    part.started().await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("retained").await;
    part.delete(&part.contents(), &content).await;
    part.until_gone(&part.contents(), &content).await;
    assert!(part.driver.knows(&id));
}

pub async fn deleted_while_the_driver_fails(part: Arc<Part>) {
    part.driver
        .script(&part.volume(), &[Answer::No(Code::Internal)]);
    let (content, _) = made_for(&part.begin().await);
    part.until_error("as the test wants").await;
    part.until_told(&content, "SnapshotContentCheckandUpdateFailed")
        .await;
    part.compare("failing").await;
    part.killed().await;
    part.delete(&part.snapshots(), "snap").await;
    part.started().await;
    part.until_gone(&part.contents(), &content).await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
}

/// Who was lost had given it its content, and not written that onto the snapshot yet. Upstream looks for its content there only: what
/// is to be deleted along stays.
pub async fn bound_and_deleted_while_nobody_serves(part: Arc<Part>) {
    part.driver.has(&part.handle());
    let source = json!({"source": {"volumeSnapshotContentName": format!("given-{}", part.name)}});
    let snapshot = part.snapshot_of("snap", source).await;
    part.until_error("VolumeSnapshotContent").await;
    part.killed().await;
    let uid = snapshot.metadata.uid;
    let bound = |content: &mut Value| content["spec"]["volumeSnapshotRef"]["uid"] = json!(uid);
    let content = part.content(&part.handle(), "Delete", bound).await;
    part.delete(&part.snapshots(), "snap").await;
    part.started().await;
    part.until_gone(&part.snapshots(), "snap").await;
    if part.side == Side::Full {
        part.until_gone(&part.contents(), &content).await;
        assert!(!part.driver.knows(&part.handle()));
    }
    part.compare("deleted").await;
}

/// Gone before any controller saw that it was deleted: its content is nobody's, and its data somebody's.
async fn let_go(part: &Part) -> String {
    let (content, _) = made_for(&part.begin().await);
    part.until_ready().await;
    part.until_claim("released", <[String]>::is_empty).await;
    part.killed().await;
    let none = json!({"metadata": {"finalizers": null}});
    part.change(&part.snapshots(), "snap", none).await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    content
}

pub async fn let_go_by_hand_while_nobody_serves(part: Arc<Part>) {
    let content = let_go(&part).await;
    part.started().await;
    part.compare("let go").await;
    part.delete(&part.contents(), &content).await;
    part.compare("deleted by hand").await;
}

pub async fn let_go_by_hand_and_made_again_while_nobody_serves(part: Arc<Part>) {
    let_go(&part).await;
    let second = part.snapshot(Some(&part.name)).await;
    part.started().await;
    part.until_ready().await;
    part.compare("made again").await;
    part.delete_all(&made_for(&second).0).await;
    part.compare("deleted").await;
}
