//! Claims and the nodes of their sources.

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::objects::{
    DRIVER, SELECTED, claim, claims, class, keep, merge, object, persistent_volume, told, until,
    volumes,
};
use crate::support::agent::{Agent, MIB, report};
use crate::support::driver::{driver, for_claim, from_volume, patient, request};
use crate::support::foreign::{any, create, definition, snapshot_kinds};
use crate::support::plane::{client, install};

const GROUP: &str = "snapshot.storage.k8s.io";

fn from(snapshot: &str) -> Value {
    json!({"apiGroup": GROUP, "kind": "VolumeSnapshot", "name": snapshot})
}

/// A VolumeSnapshot of this name, as the snapshot controllers leave it.
async fn bound_snapshot(client: &Client, name: &str, volume: &str, snapshot: &str) {
    for kind in snapshot_kinds() {
        install(client, &kind).await;
    }
    let kind = ("VolumeSnapshotContent", "volumesnapshotcontents");
    let contents = any(client, GROUP, "v1", kind.0, kind.1, None);
    create(&contents, json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": kind.0, "metadata": {"name": name},
        "spec": {"driver": DRIVER, "source": {"volumeHandle": volume}}, "status": {"snapshotHandle": snapshot},
    }))
    .await;
    let kind = ("VolumeSnapshot", "volumesnapshots");
    let snapshots = any(client, GROUP, "v1", kind.0, kind.1, Some("default"));
    create(&snapshots, json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": kind.0, "metadata": {"name": name, "namespace": "default"},
        "spec": {"source": {"persistentVolumeClaimName": "x"}}, "status": {"boundVolumeSnapshotContentName": name},
    }))
    .await;
}

fn is_on(node: &'static str) -> impl Fn(Option<&PersistentVolumeClaim>) -> bool {
    move |claim| {
        let selected = claim.and_then(|claim| claim.annotations().get(SELECTED));
        selected.is_some_and(|name| name == node)
    }
}

#[tokio::test]
async fn a_claim_is_bound_to_the_node_of_its_source_also_if_that_comes_later() {
    let client = client().await;
    let _agent = Agent::start(&client, "pin-1", 100 * MIB).await;
    let driver = driver(&client).await;
    let _keepers = [keep(&client, &driver, ""), keep(&client, &driver, "")];
    class(&client, "late", "WaitForFirstConsumer").await;
    class(&client, "at-once", "Immediate").await;
    object(&claims(&client), claim("restored", "late", &from("snap"))).await;
    object(&claims(&client), claim("at-once", "at-once", &from("snap"))).await;
    let volume = driver.make(request("pin", MIB, &["pin-1"])).await;
    let snapshot = driver
        .cut("pin-snapshot", &volume)
        .await
        .unwrap()
        .snapshot_id;
    bound_snapshot(&client, "snap", &volume, &snapshot).await;
    let restored = until(&claims(&client), "restored", is_on("pin-1"))
        .await
        .unwrap();
    told(
        &client,
        &restored.uid().unwrap(),
        "BoundToSourceNode",
        "pin-1",
    )
    .await;
    let at_once = claims(&client).get("at-once").await.unwrap();
    assert!(!at_once.annotations().contains_key(SELECTED));
}

#[tokio::test]
async fn a_scheduler_that_was_faster_is_overruled_while_the_claim_is_not_bound() {
    let client = client().await;
    let _agent = Agent::start(&client, "first-1", 100 * MIB).await;
    let driver = driver(&client).await;
    class(&client, "late-first", "WaitForFirstConsumer").await;
    let volume = driver.make(request("first", MIB, &["first-1"])).await;
    let snapshot = driver.cut("first-snapshot", &volume).await;
    let snapshot = snapshot.unwrap().snapshot_id;
    bound_snapshot(&client, "first", &volume, &snapshot).await;
    let elsewhere = |name: &str| {
        let mut claim = claim(name, "late-first", &from("first"));
        claim["metadata"]["annotations"] = json!({SELECTED: "first-2"});
        claim
    };
    let mut bound = elsewhere("first-bound");
    bound["spec"]["volumeName"] = json!("somewhere");
    object(&claims(&client), bound).await;
    let waiting = object(&claims(&client), elsewhere("first")).await;
    let _keepers = keep(&client, &driver, "");
    until(&claims(&client), "first", is_on("first-1"))
        .await
        .unwrap();
    told(
        &client,
        &waiting.uid().unwrap(),
        "BoundToSourceNode",
        "first-1",
    )
    .await;
    // Both were known from the first list.
    let bound = claims(&client).get("first-bound").await.unwrap();
    assert_eq!(bound.annotations()[SELECTED], "first-2");
}

#[tokio::test]
async fn the_target_of_a_clone_is_bound_once_its_source_is_named() {
    let client = client().await;
    let _agent = Agent::start(&client, "named-1", 100 * MIB).await;
    let driver = driver(&client).await;
    let group = "cdi.kubevirt.io";
    let kind = ("VolumeCloneSource", "volumeclonesources");
    install(&client, &definition(group, "v1beta1", kind.0, kind.1, true)).await;
    let _keepers = keep(&client, &driver, "");
    class(&client, "late-named", "WaitForFirstConsumer").await;
    let volume = driver.make(request("named", MIB, &["named-1"])).await;
    let persistent: Api<PersistentVolume> = Api::all(client.clone());
    object(&persistent, persistent_volume("named-golden", &volume)).await;
    let mut golden = claim("named-golden", "late-named", &Value::Null);
    golden["spec"]["volumeName"] = json!("named-golden");
    object(&claims(&client), golden).await;
    // In CDI's order: the target, then what names its source. The scheduler may be between the two.
    let reference = json!({"apiGroup": group, "kind": kind.0, "name": "named"});
    let mut target = claim("named", "late-named", &Value::Null);
    target["spec"]["dataSourceRef"] = reference;
    target["metadata"]["annotations"] = json!({SELECTED: "named-2"});
    object(&claims(&client), target).await;
    let sources = any(&client, group, "v1beta1", kind.0, kind.1, Some("default"));
    create(&sources, json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": kind.0, "metadata": {"name": "named", "namespace": "default"},
        "spec": {"source": {"kind": "PersistentVolumeClaim", "name": "named-golden"}},
    }))
    .await;
    until(&claims(&client), "named", is_on("named-1"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_claim_that_was_given_back_is_bound_again_once_there_is_room() {
    let client = client().await;
    let _agent = Agent::start(&client, "back-1", 100 * MIB).await;
    let driver = driver(&client).await;
    class(&client, "late-back", "WaitForFirstConsumer").await;
    let volume = driver.make(request("back", MIB, &["back-1"])).await;
    let snapshot = driver
        .cut("back-snapshot", &volume)
        .await
        .unwrap()
        .snapshot_id;
    bound_snapshot(&client, "back", &volume, &snapshot).await;
    report(&client, "back-1", 0, None).await;
    // One that knows the pool as it is now.
    let fresh = crate::support::driver::driver(&client).await;
    let _keepers = keep(&client, &fresh, "");
    let given_back = object(&claims(&client), claim("back", "late-back", &from("back"))).await;
    let uid = given_back.uid().unwrap();
    told(&client, &uid, "NoRoomBesideSource", "free for new volumes").await;
    report(&client, "back-1", 100 * MIB, None).await;
    until(&claims(&client), "back", is_on("back-1"))
        .await
        .unwrap();
    let patch = json!({"metadata": {"annotations": {SELECTED: null}}});
    merge(&claims(&client), "back", &patch).await;
    until(&claims(&client), "back", is_on("back-1"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_clone_is_bound_to_the_node_of_its_source_and_made_there() {
    let client = client().await;
    let _agent = Agent::start(&client, "clone-1", 100 * MIB).await;
    let _other = Agent::start(&client, "clone-2", 900 * MIB).await;
    let driver = driver(&client).await;
    let _keepers = keep(&client, &driver, "");
    class(&client, "late-clone", "WaitForFirstConsumer").await;
    let volume = driver
        .make(request("clone-source", MIB, &["clone-1"]))
        .await;
    let persistent: Api<PersistentVolume> = Api::all(client.clone());
    object(&persistent, persistent_volume("clone-source", &volume)).await;
    let mut source = claim("clone-source", "late-clone", &Value::Null);
    source["spec"]["volumeName"] = json!("clone-source");
    object(&claims(&client), source).await;
    let reference = json!({"kind": "PersistentVolumeClaim", "name": "clone-source"});
    object(&claims(&client), claim("clone", "late-clone", &reference)).await;
    let bound = |claim: Option<&PersistentVolumeClaim>| {
        claim.is_some_and(|claim| claim.annotations().contains_key(SELECTED))
    };
    let bound = until(&claims(&client), "clone", bound).await.unwrap();
    assert_eq!(bound.annotations()[SELECTED], "clone-1");
    let nodes = ["clone-2", "clone-1"];
    let clone = driver
        .make(from_volume(request("clone", MIB, &nodes), &volume))
        .await;
    assert_eq!(
        volumes(&client).get(&clone).await.unwrap().spec.node_name,
        "clone-1"
    );
    let strict = from_volume(request("clone-strict", MIB, &["clone-2"]), &volume);
    let refused = driver.create(strict).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(refused.message().contains("clone-1"), "{refused}");
}

#[tokio::test]
async fn under_late_binding_only_the_scheduler_s_node_is_used() {
    let client = client().await;
    let _one = Agent::start(&client, "sched-1", 5 * MIB).await;
    let _two = Agent::start(&client, "sched-2", 900 * MIB).await;
    let driver = driver(&client).await;
    let mut chosen = claim("chosen", "whatever", &Value::Null);
    chosen["metadata"]["annotations"] = json!({SELECTED: "sched-1"});
    object(&claims(&client), chosen).await;
    object(&claims(&client), claim("free", "whatever", &Value::Null)).await;
    let nodes = ["sched-1", "sched-2"];
    let ask = |name: &str, size: i64, claim: &str| {
        driver.create(for_claim(request(name, size, &nodes), "default", claim))
    };
    let on = async |answer: proto::csi::v1::CreateVolumeResponse| {
        let object = volumes(&client)
            .get(&answer.volume.unwrap().volume_id)
            .await
            .unwrap();
        (object.spec.node_name, object.spec.claim.unwrap().name)
    };
    let here = on(ask("sched-a", MIB, "chosen").await.unwrap()).await;
    assert_eq!(here, ("sched-1".to_owned(), "chosen".to_owned()));
    let refused = ask("sched-b", 50 * MIB, "chosen").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    assert!(
        refused.message().contains("sched-1") && refused.message().contains("bytes are free"),
        "{refused}"
    );
    let most_room = on(ask("sched-c", MIB, "free").await.unwrap()).await;
    assert_eq!(most_room.0, "sched-2");
}

#[tokio::test]
async fn a_late_bound_claim_is_given_back_to_the_scheduler_if_the_node_does_not_answer() {
    let client = client().await;
    let mut agent = Agent::start(&client, "quiet-1", 50 * MIB).await;
    agent.stop().await;
    let hasty = patient(&client, Duration::from_secs(60), Duration::from_millis(300)).await;
    let mut chosen = claim("quiet", "whatever", &Value::Null);
    chosen["metadata"]["annotations"] = json!({SELECTED: "quiet-1"});
    object(&claims(&client), chosen).await;
    let ask = for_claim(request("quiet", MIB, &["quiet-1"]), "default", "quiet");
    let refused = hasty.create(ask).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("quiet-1"), "{refused}");
    let id = csi_controller::ids::volume_id("quiet");
    assert!(volumes(&client).get_opt(&id).await.unwrap().is_none());
}
