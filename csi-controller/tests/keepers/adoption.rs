//! Data without an object.

use api::{ADOPT_ANNOTATION, CREATED_ANNOTATION, LocalPool, LocalSnapshot, LocalVolume};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::objects::{
    is_there, keep, merge, merge_status, object, persistent_volume, told, until, volumes,
};
use crate::support::agent::{Agent, MIB, report};
use crate::support::driver::{driver, request};
use crate::support::plane::client;

fn orphan(id: &str, node: &str) -> Value {
    json!({"id": id, "since": "2026-01-01T00:00:00Z", "volume": {
        "nodeName": node, "name": id, "requestedBytes": MIB, "sizeBytes": MIB, "volumeMode": "Block",
    }})
}

fn asks(ids: &str) -> Value {
    json!({"metadata": {"annotations": {ADOPT_ANNOTATION: ids}}})
}

#[tokio::test]
async fn data_without_an_object_is_adopted_when_it_is_named_and_only_then() {
    let client = client().await;
    report(&client, "orphan-1", 100 * MIB, None).await;
    let driver = driver(&client).await;
    let _keepers = [keep(&client, &driver, ""), keep(&client, &driver, "")];
    let id = |name: &str| csi_controller::ids::volume_id(name);
    let (named, asked, left, strange) = (
        id("orphan-named"),
        id("orphan-asked"),
        id("orphan-left"),
        id("orphan-strange"),
    );
    let persistent: Api<PersistentVolume> = Api::all(client.clone());
    object(&persistent, persistent_volume("orphan", &named)).await;
    let pools: Api<LocalPool> = Api::all(client.clone());
    merge(&pools, "orphan-1", &asks(&format!("{asked} {strange}"))).await;
    let status = json!({"status": {"orphanCount": 5, "orphans": [
        orphan(&left, "orphan-1"), orphan(&strange, "another-node"), orphan("../../etc", "orphan-1"),
        orphan(&named, "orphan-1"), orphan(&asked, "orphan-1"),
    ]}});
    merge_status(&pools, "orphan-1", &status).await;
    let exists = |object: Option<&LocalVolume>| object.is_some();
    for id in [&named, &asked] {
        let adopted = until(&volumes(&client), id, exists).await.unwrap();
        assert_eq!(
            adopted.annotations()[CREATED_ANNOTATION],
            "uuid-of-orphan-1"
        );
        assert_eq!(adopted.spec.node_name, "orphan-1");
    }
    let pool = pools.get("orphan-1").await.unwrap();
    told(&client, &pool.uid().unwrap(), "NotAdopted", &strange).await;
    for id in [&left, &strange] {
        assert!(!is_there(&client, id).await);
    }
}

#[tokio::test]
async fn an_administrator_may_ask_for_all_and_the_request_is_taken_off_when_it_is_done() {
    let client = client().await;
    report(&client, "star-1", 100 * MIB, None).await;
    let driver = driver(&client).await;
    let _keepers = [keep(&client, &driver, ""), keep(&client, &driver, "")];
    let left = csi_controller::ids::volume_id("star-left");
    let cut = csi_controller::ids::snapshot_id("star-cut");
    let exists = |object: Option<&LocalVolume>| object.is_some();
    let pools: Api<LocalPool> = Api::all(client.clone());
    merge(&pools, "star-1", &asks("*")).await;
    let status = json!({"status": {"orphanCount": 2, "orphans": [orphan(&left, "star-1"), {
        "id": cut, "since": "2026-01-01T00:00:00Z", "snapshot": {"nodeName": "star-1", "name": "c", "sourceVolume": left},
    }]}});
    merge_status(&pools, "star-1", &status).await;
    until(&volumes(&client), &left, exists).await.unwrap();
    let snapshots: Api<LocalSnapshot> = Api::all(client.clone());
    until(&snapshots, &cut, |object: Option<&LocalSnapshot>| {
        object.is_some()
    })
    .await
    .unwrap();
    let status = json!({"status": {"orphanCount": 0, "orphans": null}});
    merge_status(&pools, "star-1", &status).await;
    let off = |pool: Option<&LocalPool>| {
        pool.is_some_and(|pool| !pool.annotations().contains_key(ADOPT_ANNOTATION))
    };
    until(&pools, "star-1", off).await.unwrap();
}

#[tokio::test]
async fn data_whose_object_was_lost_is_found_again_by_a_call_about_it() {
    let client = client().await;
    report(&client, "found-1", 100 * MIB, None).await;
    let (made, gone) = (
        csi_controller::ids::volume_id("found-a"),
        csi_controller::ids::volume_id("found-b"),
    );
    let pools: Api<LocalPool> = Api::all(client.clone());
    let status = json!({"status": {"orphanCount": 2, "orphans": [orphan(&made, "found-1"), orphan(&gone, "found-1")]}});
    merge_status(&pools, "found-1", &status).await;
    let _elsewhere = Agent::start(&client, "found-2", 900 * MIB).await;
    let driver = driver(&client).await;
    let _agent = Agent::start(&client, "found-1", 100 * MIB).await;
    let nodes = ["found-1", "found-2"];
    assert_eq!(driver.make(request("found-a", MIB, &nodes)).await, made);
    let found = volumes(&client).get(&made).await.unwrap();
    assert_eq!(found.spec.node_name, "found-1");
    // The agent sees it by now, and does not report it any more.
    let status = json!({"status": {"orphanCount": 1, "orphans": [orphan(&gone, "found-1")]}});
    merge_status(&pools, "found-1", &status).await;
    // Were it answered without looking, its data would stay for ever.
    driver.delete(&gone).await.unwrap();
    assert!(!is_there(&client, &gone).await);
}
