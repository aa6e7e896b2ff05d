//! What is made.

use anyhow::Result;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

/// Where everything is.
pub(crate) const NAMESPACE: &str = "default";
/// The class of all snapshots, and the claim that they are of.
pub(crate) const NAME: &str = "bench";
const DRIVER: &str = "vd.csi.io";

fn of_kind(kind: &str, plural: &str) -> ApiResource {
    let kind = GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", kind);
    ApiResource::from_gvk_with_plural(&kind, plural)
}

pub(crate) fn snapshots(client: &Client) -> Api<DynamicObject> {
    let kind = of_kind("VolumeSnapshot", "volumesnapshots");
    Api::namespaced_with(client.clone(), NAMESPACE, &kind)
}

pub(crate) fn contents(client: &Client) -> Api<DynamicObject> {
    let kind = of_kind("VolumeSnapshotContent", "volumesnapshotcontents");
    Api::all_with(client.clone(), &kind)
}

/// The class, and a bound claim of the driver's volume.
pub(crate) async fn set_up(client: &Client, volume: &str) -> Result<()> {
    let class = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
        "metadata": {"name": NAME}, "driver": DRIVER, "deletionPolicy": "Delete",
    });
    let classes = of_kind("VolumeSnapshotClass", "volumesnapshotclasses");
    make(&Api::all_with(client.clone(), &classes), class).await?;
    let uid = bound_claim(client, NAME).await?;
    let persistent = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": NAME},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "16Mi"}, "volumeMode": "Block",
            "csi": {"driver": DRIVER, "volumeHandle": volume},
            "claimRef": {"namespace": NAMESPACE, "name": NAME, "uid": uid},
        },
    });
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let parameters = PostParams::default();
    let _made = volumes
        .create(&parameters, &serde_json::from_value(persistent)?)
        .await?;
    Ok(())
}

/// A claim that is bound to the volume of its name; its uid.
pub(crate) async fn bound_claim(client: &Client, name: &str) -> Result<Option<String>> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), NAMESPACE);
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "volumeMode": "Block", "storageClassName": "vd",
            "resources": {"requests": {"storage": "16Mi"}}, "volumeName": name,
        },
    });
    let parameters = PostParams::default();
    let made = claims
        .create(&parameters, &serde_json::from_value(claim)?)
        .await?;
    let bound = json!({"status": {"phase": "Bound"}});
    let parameters = PatchParams::default();
    let made = claims
        .patch_status(&made.name_any(), &parameters, &Patch::Merge(&bound))
        .await?;
    Ok(made.uid())
}

/// A snapshot as a user asks for it.
pub(crate) fn snapshot(name: &str, claim: &str) -> Value {
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"name": name},
        "spec": {"volumeSnapshotClassName": NAME, "source": {"persistentVolumeClaimName": claim}},
    })
}

/// The content that was made for a snapshot.
pub(crate) fn content(name: &str, snapshot: &str, uid: &str) -> Value {
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
        "metadata": {
            "name": name,
            "finalizers": ["snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"],
        },
        "spec": {
            "driver": DRIVER, "deletionPolicy": "Delete", "volumeSnapshotClassName": NAME, "sourceVolumeMode": "Block",
            "source": {"volumeHandle": format!("pvc-of-{snapshot}")},
            "volumeSnapshotRef": {
                "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
                "namespace": NAMESPACE, "name": snapshot, "uid": uid,
            },
        },
    })
}

pub(crate) async fn make(api: &Api<DynamicObject>, object: Value) -> Result<DynamicObject> {
    let object: DynamicObject = serde_json::from_value(object)?;
    Ok(api.create(&PostParams::default(), &object).await?)
}
