//! The StorageProfiles of CDI and the VolumeSnapshotClass.

use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::objects::{DRIVER, class, keep, merge, until};
use crate::support::driver::driver;
use crate::support::foreign::{any, create, definition};
use crate::support::plane::{client, install};

#[tokio::test]
async fn a_storage_profile_is_filled_in_where_no_user_has_and_again_when_it_is_made_anew() {
    let client = client().await;
    let driver = driver(&client).await;
    // Before CDI is installed.
    let _keepers = [keep(&client, &driver, ""), keep(&client, &driver, "")];
    class(&client, "profiled", "Immediate").await;
    class(&client, "profiled-by-user", "Immediate").await;
    install(
        &client,
        &definition(
            "cdi.kubevirt.io",
            "v1beta1",
            "StorageProfile",
            "storageprofiles",
            false,
        ),
    )
    .await;
    let profiles = any(
        &client,
        "cdi.kubevirt.io",
        "v1beta1",
        "StorageProfile",
        "storageprofiles",
        None,
    );
    let profile = |name: &str, spec: Value| {
        json!({
            "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "StorageProfile", "metadata": {"name": name}, "spec": spec,
        })
    };
    create(&profiles, profile("stranger", json!({}))).await;
    create(
        &profiles,
        profile("profiled-by-user", json!({"cloneStrategy": "copy"})),
    )
    .await;
    let sets = json!([
        {"accessModes": ["ReadWriteOnce"], "volumeMode": "Block"},
        {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"},
    ]);
    let filled = |object: Option<&kube::core::DynamicObject>| {
        object.is_some_and(|one| one.data["spec"]["claimPropertySets"] == sets)
    };
    // Often: one of the keepers may still be filling in what was just deleted, and must not bring it back.
    for _made_anew in 0..20 {
        create(&profiles, profile("profiled", json!({}))).await;
        let now = until(&profiles, "profiled", filled).await.unwrap();
        assert_eq!(now.data["spec"]["cloneStrategy"], "csi-clone");
        profiles
            .delete("profiled", &DeleteParams::default())
            .await
            .unwrap();
    }
    let user = until(&profiles, "profiled-by-user", filled).await.unwrap();
    assert_eq!(user.data["spec"]["cloneStrategy"], "copy");
    assert_eq!(
        profiles.get("stranger").await.unwrap().data["spec"],
        json!({})
    );
}

#[tokio::test]
async fn the_snapshot_class_appears_with_its_kind_and_a_user_s_edits_stay() {
    let client = client().await;
    let driver = driver(&client).await;
    let _keepers = [keep(&client, &driver, "vd"), keep(&client, &driver, "vd")];
    let group = "snapshot.storage.k8s.io";
    install(
        &client,
        &definition(
            group,
            "v1",
            "VolumeSnapshotClass",
            "volumesnapshotclasses",
            false,
        ),
    )
    .await;
    let classes = any(
        &client,
        group,
        "v1",
        "VolumeSnapshotClass",
        "volumesnapshotclasses",
        None,
    );
    let exists = |object: Option<&kube::core::DynamicObject>| object.is_some();
    let made = until(&classes, "vd", exists).await.unwrap();
    assert_eq!(
        (&made.data["driver"], &made.data["deletionPolicy"]),
        (&json!(DRIVER), &json!("Delete"))
    );
    assert_eq!(
        made.annotations()["snapshot.storage.kubernetes.io/is-default-class"],
        "true"
    );
    let edit = json!({"deletionPolicy": "Retain"});
    let edited = merge(&classes, "vd", &edit).await;
    // One that starts now finds it, and leaves it alone.
    let other = crate::support::driver::driver(&client).await;
    let _other = keep(&client, &other, "vd");
    other.backend.ready().await;
    let now = classes.get("vd").await.unwrap();
    assert_eq!(now.resource_version(), edited.resource_version());
    classes
        .delete("vd", &DeleteParams::default())
        .await
        .unwrap();
    let again = |object: Option<&kube::core::DynamicObject>| {
        object.is_some_and(|one| one.uid() != made.uid())
    };
    until(&classes, "vd", again).await.unwrap();
}
