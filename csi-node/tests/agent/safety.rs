//! Data is removed only when it was asked for, and never replaced.

use std::fs;
use std::path::PathBuf;

use api::{CREATED_ANNOTATION, LocalVolume, VolumeState};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::machine::Machine;
use crate::objects::{
    MIB, create, delete, merge, ready_volume, volume, volume_is, volume_says, volumes,
};

fn image(machine: &Machine, name: &str) -> PathBuf {
    machine.pool().join("volumes").join(name).join("disk.img")
}

fn reason(volume: &LocalVolume) -> &str {
    let status = volume.status.as_ref();
    status.map_or("", |status| {
        status
            .conditions
            .first()
            .map_or("", |one| one.reason.as_str())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_deleted_by_hand_keeps_its_data_until_it_is_deleted_for_good() {
    let machine = Machine::started().await;
    let name = ready_volume(&machine, 64 * MIB, None).await;
    let api = volumes(&machine);
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    let kept = volume_says(&machine, &name, |volume| reason(volume) == "DeletedByHand").await;
    assert!(image(&machine, &name).exists());
    assert_eq!(kept.status.unwrap().state, VolumeState::Ready);
    merge(&api, &name, json!({"spec": {"delete": true}})).await;
    crate::objects::gone(&machine, &api, &name).await;
    assert!(!image(&machine, &name).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_data_is_reported_and_nothing_is_made_in_its_place() {
    let mut machine = Machine::started().await;
    let name = ready_volume(&machine, 64 * MIB, None).await;
    machine.stop();
    fs::remove_dir_all(machine.pool().join("volumes").join(&name)).unwrap();
    machine.start();
    volume_is(&machine, &name, VolumeState::DataMissing).await;
    assert!(!image(&machine, &name).exists());
    // What is lost can be deleted.
    delete(&machine, &volumes(&machine), &name).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_of_another_pool_is_missing_and_names_that_pool() {
    let machine = Machine::started().await;
    let mut foreign = volume(&machine, 64 * MIB, None);
    let elsewhere = uuid::Uuid::new_v4().to_string();
    foreign
        .annotations_mut()
        .insert(CREATED_ANNOTATION.to_owned(), elsewhere.clone());
    let name = create(&volumes(&machine), &foreign).await;
    let missing = volume_is(&machine, &name, VolumeState::DataMissing).await;
    let status = missing.status.unwrap();
    assert!(
        status.conditions[0].message.contains(&elsewhere),
        "{status:?}"
    );
    assert!(!image(&machine, &name).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_differs_from_its_record_fails_and_names_the_field() {
    let mut machine = Machine::started().await;
    let name = ready_volume(&machine, 64 * MIB, None).await;
    machine.stop();
    // The object is lost, and made again by somebody who remembers it differently.
    let api = volumes(&machine);
    let old = api.get(&name).await.unwrap();
    forget(&api, &name).await;
    let mut other = LocalVolume::new(&name, old.spec.clone());
    other.spec.fs_type = Some(api::FsType::Xfs);
    create(&api, &other).await;
    machine.start();
    let failed = volume_is(&machine, &name, VolumeState::Failed).await;
    let failure = failed.status.unwrap().failure.unwrap();
    assert_eq!(failure.kind, "Conflict");
    assert!(
        failure.message.contains("fsType is \"ext4\""),
        "{failure:?}"
    );
    assert!(image(&machine, &name).exists());
}

async fn forget(api: &Api<LocalVolume>, name: &str) {
    merge(api, name, json!({"metadata": {"finalizers": null}})).await;
    api.delete(name, &DeleteParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_without_an_object_is_an_orphan_that_can_be_adopted() {
    let mut machine = Machine::started().await;
    let name = ready_volume(&machine, 64 * MIB, None).await;
    machine.stop();
    let api = volumes(&machine);
    forget(&api, &name).await;
    machine.start();
    let pool = machine
        .pool_says(|pool| pool.status.as_ref().unwrap().orphan_count == 1)
        .await;
    assert!(crate::objects::is(&pool, "Orphaned", "True"));
    let status = pool.status.unwrap();
    let orphan = status.orphans[0].clone();
    assert_eq!(orphan.id, name);
    assert!(image(&machine, &name).exists());
    let mut adopted = LocalVolume::new(&name, orphan.volume.unwrap());
    adopted
        .annotations_mut()
        .insert(CREATED_ANNOTATION.to_owned(), status.pool_uuid.unwrap());
    create(&api, &adopted).await;
    volume_is(&machine, &name, VolumeState::Ready).await;
    machine
        .pool_says(|pool| pool.status.as_ref().unwrap().orphan_count == 0)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_never_had_data_goes_when_it_is_deleted_by_hand() {
    let mut machine = Machine::started().await;
    machine.stop();
    let mut held = volume(&machine, 64 * MIB, None);
    held.finalizers_mut().push(api::AGENT_FINALIZER.to_owned());
    let api = volumes(&machine);
    let name = create(&api, &held).await;
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    machine.start();
    crate::objects::gone(&machine, &api, &name).await;
    assert!(!image(&machine, &name).exists());
}
