//! The claims that snapshots are made of.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use tonic::Code;

use super::CLAIM;
use crate::driver::Answer;
use crate::part::Part;

pub async fn a_claim_that_comes_later_is_found(part: Arc<Part>) {
    let class = part.class(|_| {}).await;
    part.seen().await;
    part.snapshot(Some(&class)).await;
    let waiting = part.until_error("claim data").await;
    assert_eq!(waiting["status"]["readyToUse"], json!(false));
    part.until_told("snap", "SnapshotContentCreationFailed")
        .await;
    part.compare("missing").await;
    part.claim(part.driver.name).await;
    part.until_ready().await;
    part.compare("there").await;
}

pub async fn a_claim_that_is_bound_later_is_found(part: Arc<Part>) {
    let class = part.class(|_| {}).await;
    part.unbound_claim("data", json!({})).await;
    part.seen().await;
    part.snapshot(Some(&class)).await;
    part.until_error("not bound").await;
    part.until_claim("protected", |all| all == [CLAIM]).await;
    part.compare("unbound").await;
    part.bind(part.driver.name).await;
    part.until_ready().await;
    part.until_claim("released", <[String]>::is_empty).await;
    part.compare("bound").await;
}

/// Neither looks whether class and volume are of one driver: the driver does, which is asked for a volume that it does not have.
pub async fn a_claim_of_another_driver(part: Arc<Part>) {
    part.driver
        .script(&part.volume(), &[Answer::No(Code::NotFound)]);
    let class = part.class(|_| {}).await;
    part.claim("other.csi.io").await;
    part.seen().await;
    part.snapshot(Some(&class)).await;
    part.until_error("as the test wants").await;
    part.compare("asked for").await;
}

/// A class, a claim whose volume is changed so, and a snapshot that fails for it.
async fn wrong_volume(part: &Part, change: impl FnOnce(&mut Value)) {
    let class = part.class(|_| {}).await;
    part.unbound_claim("data", json!({})).await;
    part.bind_with(part.driver.name, change).await;
    part.seen().await;
    part.snapshot(Some(&class)).await;
    part.until_error("volume").await;
    part.compare("told").await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
}

pub async fn a_claim_that_is_lost(part: Arc<Part>) {
    let class = part.class(|_| {}).await;
    part.claim(part.driver.name).await;
    part.phase("data", "Lost").await;
    part.seen().await;
    part.snapshot(Some(&class)).await;
    part.until_error("not bound").await;
    part.compare("told").await;
}

pub async fn a_claim_whose_volume_is_gone(part: Arc<Part>) {
    let class = part.class(|_| {}).await;
    part.claim(part.driver.name).await;
    let volumes: Api<PersistentVolume> = Api::all(part.client.clone());
    let name = format!("pv-{}", part.name);
    volumes
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    part.seen().await;
    part.snapshot(Some(&class)).await;
    part.until_error("is gone").await;
    part.compare("told").await;
}

pub async fn a_claim_whose_volume_is_of_another_claim(part: Arc<Part>) {
    wrong_volume(&part, |volume| {
        volume["spec"]["claimRef"]["name"] = json!("another");
    })
    .await;
}

pub async fn a_claim_whose_volume_is_of_no_driver(part: Arc<Part>) {
    wrong_volume(&part, |volume| {
        volume["spec"].as_object_mut().unwrap().remove("csi");
        volume["spec"]["hostPath"] = json!({"path": "/x"});
    })
    .await;
}

pub async fn a_claim_that_is_being_deleted(part: Arc<Part>) {
    let class = part.class(|_| {}).await;
    part.claim(part.driver.name).await;
    let keep = json!({"metadata": {"finalizers": ["example.com/mine"]}});
    part.claims()
        .patch("data", &PatchParams::default(), &Patch::Merge(&keep))
        .await
        .unwrap();
    delete_claim(&part).await;
    part.seen().await;
    part.snapshot(Some(&class)).await;
    part.until_error("being deleted").await;
    part.compare("told").await;
}

async fn delete_claim(part: &Part) {
    part.claims()
        .delete("data", &DeleteParams::default())
        .await
        .unwrap();
}

pub async fn a_claim_is_protected_until_all_its_snapshots_are_ready(part: Arc<Part>) {
    part.driver.script(&part.volume(), &[Answer::Pending]);
    part.begin().await;
    let cut = |s: &Value| !s["status"]["creationTime"].is_null();
    part.until_snapshot("cut", cut).await;
    let spec = json!({"source": {"persistentVolumeClaimName": "data"}, "volumeSnapshotClassName": part.name});
    part.snapshot_of("second", spec).await;
    part.until(&part.snapshots(), "second", "cut", cut).await;
    part.until_claim("protected", |all| all == [CLAIM]).await;
    part.compare("cut").await;
    part.delete(&part.snapshots(), "second").await;
    part.until_gone(&part.snapshots(), "second").await;
    part.compare("one is deleted").await;
    part.driver.script(&part.volume(), &[Answer::Ready]);
    part.until_ready().await;
    part.until_claim("released", <[String]>::is_empty).await;
    part.compare("ready").await;
}

pub async fn a_snapshot_of_a_deleted_claim_is_still_made(part: Arc<Part>) {
    part.driver
        .script(&part.volume(), &[Answer::No(Code::Aborted)]);
    part.begin().await;
    part.driver.called(&part.volume(), 1).await;
    delete_claim(&part).await;
    part.compare("claim is deleted").await;
    part.driver.script(&part.volume(), &[Answer::Ready]);
    part.until_ready().await;
    let gone = |claim: Option<&PersistentVolumeClaim>| claim.is_none();
    await_condition(part.claims(), "data", gone).await.unwrap();
    part.compare("made").await;
}

pub async fn a_claims_finalizer_taken_off_by_hand(part: Arc<Part>) {
    part.driver.script(&part.volume(), &[Answer::Pending]);
    part.begin().await;
    part.until_claim("protected", |all| all == [CLAIM]).await;
    let cut = |s: &Value| !s["status"]["creationTime"].is_null();
    part.until_snapshot("cut", cut).await;
    let none = json!({"metadata": {"finalizers": null}});
    part.claims()
        .patch("data", &PatchParams::default(), &Patch::Merge(&none))
        .await
        .unwrap();
    part.compare("taken off").await;
    part.driver.script(&part.volume(), &[Answer::Ready]);
    part.until_ready().await;
    part.compare("made").await;
}
