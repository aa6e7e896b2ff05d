//! Claims that the real csi-provisioner makes from snapshots, and that are deleted before that is done.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::process::Child;

use crate::part::Part;
use crate::side::Side;
use crate::stage::made_for;

fn provisioner(part: &Part, more: &[&str]) -> Child {
    let mut command = part.servers.command("csi-provisioner");
    command.arg(format!("--csi-address={}", part.driver.socket.display()));
    command.args([
        "--retry-interval-start=100ms",
        "--retry-interval-max=1s",
        "--kube-api-qps=1000",
        "--kube-api-burst=1000",
    ]);
    command.args(more).spawn().unwrap()
}

/// A claim `copy` from the snapshot; gives the name of its volume.
async fn restore(part: &Part) -> String {
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": part.name},
        "provisioner": part.driver.name, "volumeBindingMode": "Immediate",
    });
    let classes: Api<StorageClass> = Api::all(part.client.clone());
    let class = serde_json::from_value(class).unwrap();
    classes
        .create(&PostParams::default(), &class)
        .await
        .unwrap();
    // The annotation is what the controller-manager would write.
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "copy", "namespace": part.name,
            "annotations": {"volume.kubernetes.io/storage-provisioner": part.driver.name},
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}},
            "storageClassName": part.name, "volumeMode": "Block",
            "dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "snap"},
        },
    });
    let claim = serde_json::from_value(claim).unwrap();
    let claim = part
        .claims()
        .create(&PostParams::default(), &claim)
        .await
        .unwrap();
    part.phase("copy", "Pending").await;
    format!("pvc-{}", claim.uid().unwrap())
}

async fn delete_copy(part: &Part) {
    let parameters = DeleteParams::default();
    part.claims().delete("copy", &parameters).await.unwrap();
    let gone = |claim: Option<&PersistentVolumeClaim>| claim.is_none();
    await_condition(part.claims(), "copy", gone).await.unwrap();
}

/// Claim and snapshot are deleted while the volume is made. Upstream: its controller deletes the snapshot at the driver, so
/// csi-provisioner cannot ask again, and the volume stays for ever. Ours keeps it until csi-provisioner has ended what it began.
pub async fn issue_1449_a_restore_whose_claim_and_snapshot_are_deleted(part: Arc<Part>) {
    let mut provisioner = provisioner(&part, &[]);
    let (content, id) = made_for(&part.begin().await);
    part.until_ready().await;
    part.driver.slow_restore(&id, true);
    let volume = restore(&part).await;
    part.driver.called(&id, 2).await;
    delete_copy(&part).await;
    part.delete(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
    part.driver.slow_restore(&id, false);
    if part.side == Side::Full {
        release(&part, &volume).await;
        part.driver.called(&volume, 1).await;
        assert!(part.driver.volumes_from(&id).is_empty());
    } else {
        assert_eq!(part.driver.volumes_from(&id), [volume]);
    }
    part.until_gone(&part.contents(), &content).await;
    part.compare("answered").await;
    provisioner.kill().await.unwrap();
}

/// The same, and csi-provisioner lets go of what no waiting claim names, as it does every five minutes unless it is told otherwise (the
/// chart says once an hour). So it takes its own finalizer off while the volume is made, and ours has no reason to keep the snapshot any
/// more: it is as upstream then. That volume is all that stays at the driver; csi-controller looks for such volumes.
pub async fn issue_1449_and_the_provisioner_lets_go_of_the_snapshot(part: Arc<Part>) {
    let mut provisioner = provisioner(&part, &["--snapshot-orphan-sweep-interval=1s"]);
    let (content, id) = made_for(&part.begin().await);
    part.until_ready().await;
    part.driver.slow_restore(&id, true);
    let volume = restore(&part).await;
    part.driver.called(&id, 2).await;
    delete_copy(&part).await;
    part.delete(&part.snapshots(), "snap").await;
    part.until_gone(&part.contents(), &content).await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.driver.slow_restore(&id, false);
    part.compare("let go").await;
    assert!(!part.driver.knows(&id));
    assert_eq!(part.driver.volumes_from(&id), [volume]);
    provisioner.kill().await.unwrap();
}

/// What the controller-manager does with a volume whose claim is gone.
async fn release(part: &Part, volume: &str) {
    let volumes: Api<PersistentVolume> = Api::all(part.client.clone());
    let there = |volume: Option<&PersistentVolume>| volume.is_some();
    await_condition(volumes.clone(), volume, there)
        .await
        .unwrap();
    let released = json!({"status": {"phase": "Released"}});
    volumes
        .patch_status(volume, &PatchParams::default(), &Patch::Merge(&released))
        .await
        .unwrap();
}

/// The same, and csi-provisioner is lost before it could end it: it remembers nothing, and nobody asks for the volume any more. Its
/// finalizer, which keeps the snapshot until then, goes when the next one starts and finds no claim that waits. No controller of snapshots
/// can know of the volume; csi-controller looks for such volumes.
pub async fn issue_486_a_restore_whose_provisioner_is_lost(part: Arc<Part>) {
    let mut first = provisioner(&part, &[]);
    let (content, id) = made_for(&part.begin().await);
    part.until_ready().await;
    part.driver.slow_restore(&id, true);
    let volume = restore(&part).await;
    part.driver.called(&id, 2).await;
    first.kill().await.unwrap();
    delete_copy(&part).await;
    part.delete(&part.snapshots(), "snap").await;
    part.driver.slow_restore(&id, false);
    part.compare("lost").await;
    let mut second = provisioner(&part, &[]);
    part.until_gone(&part.contents(), &content).await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("deleted").await;
    assert_eq!(part.driver.volumes_from(&id), [volume]);
    second.kill().await.unwrap();
}
