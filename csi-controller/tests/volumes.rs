//! CreateVolume and DeleteVolume over custom resources, against a real API server.
//!
//! The nodes' agents are played by a small one in the test: what is tested is csi-controller's side of their contract.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests: a panic is how they report"
)]

mod support;

use std::time::Duration;

use api::LocalVolume;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use support::agent::{Agent, MIB, report};
use support::driver::{driver, from_volume, patient, request};
use support::plane::client;
use tonic::Code;

fn volumes(client: &Client) -> Api<LocalVolume> {
    Api::all(client.clone())
}

async fn of_node(client: &Client, node: &str) -> Vec<String> {
    let parameters = kube::api::ListParams::default().fields(&format!("spec.nodeName={node}"));
    let found = volumes(client).list(&parameters).await.unwrap();
    found.items.iter().map(ResourceExt::name_any).collect()
}

#[tokio::test]
async fn a_volume_is_made_by_its_node_and_listed_at_once_until_it_is_deleted() {
    let client = client().await;
    let _agent = Agent::start(&client, "made-1", 100 * MIB).await;
    let driver = driver(&client).await;
    let answer = driver
        .create(request("made", 5 * MIB - 1, &["made-1"]))
        .await
        .unwrap();
    let volume = answer.volume.unwrap();
    assert_eq!(volume.capacity_bytes, 5 * MIB);
    assert_eq!(
        volume.accessible_topology[0].segments[support::driver::KEY],
        "made-1"
    );
    let object = volumes(&client).get(&volume.volume_id).await.unwrap();
    assert_eq!(
        (object.spec.name.as_str(), object.spec.requested_bytes),
        ("made", 5 * MIB - 1)
    );
    assert!(driver.listed().await.contains(&volume.volume_id));
    driver.delete(&volume.volume_id).await.unwrap();
    assert!(!driver.listed().await.contains(&volume.volume_id));
    assert!(
        volumes(&client)
            .get_opt(&volume.volume_id)
            .await
            .unwrap()
            .is_none()
    );
    driver.delete(&volume.volume_id).await.unwrap();
}

#[tokio::test]
async fn an_identical_call_joins_and_another_one_is_told_what_differs() {
    let client = client().await;
    let agent = Agent::start(&client, "join-1", 100 * MIB).await;
    agent.change(|node| node.stuck = true);
    // Two copies of csi-controller, both called at once.
    let (one, two) = (driver(&client).await, driver(&client).await);
    let call = || request("join", 2 * MIB, &["join-1"]);
    let first = one.create(call());
    let second = two.create(call());
    let release = async {
        let id = csi_controller::ids::volume_id("join");
        let taken_on = |object: Option<&LocalVolume>| {
            object.is_some_and(|object| !object.finalizers().is_empty())
        };
        kube::runtime::wait::await_condition(volumes(&client), &id, taken_on)
            .await
            .unwrap();
        agent.change(|node| node.stuck = false);
    };
    let (first, second, ()) = tokio::join!(first, second, release);
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(of_node(&client, "join-1").await.len(), 1);
    let other = one
        .create(request("join", 3 * MIB, &["join-1"]))
        .await
        .unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists, "{other}");
}

#[tokio::test]
async fn many_calls_of_two_copies_leave_one_object_each_and_none_after_deletion() {
    let client = client().await;
    let agents = [
        Agent::start(&client, "many-1", 30 * MIB).await,
        Agent::start(&client, "many-2", 30 * MIB).await,
    ];
    let drivers = [driver(&client).await, driver(&client).await];
    let nodes = ["many-1", "many-2"];
    let calls = (0..40).map(|index| {
        let name = format!("many-{}", index / 2);
        drivers[index % 2].create(request(&name, 2 * MIB, &nodes))
    });
    let made: Vec<String> = futures::future::join_all(calls)
        .await
        .into_iter()
        .map(|answer| answer.unwrap().volume.unwrap().volume_id)
        .collect();
    let objects = [
        of_node(&client, "many-1").await,
        of_node(&client, "many-2").await,
    ]
    .concat();
    assert_eq!(objects.len(), 20);
    for agent in &agents {
        assert!(agent.node.lock().unwrap().room >= 0);
    }
    let deleted = made
        .iter()
        .enumerate()
        .map(|(index, id)| drivers[(index + 1) % 2].delete(id));
    futures::future::try_join_all(deleted).await.unwrap();
    assert!(
        of_node(&client, "many-1").await.is_empty() && of_node(&client, "many-2").await.is_empty()
    );
}

#[tokio::test]
async fn a_call_is_joined_after_a_restart_of_the_controller() {
    let client = client().await;
    let agent = Agent::start(&client, "again-1", 100 * MIB).await;
    agent.change(|node| node.stuck = true);
    let hasty = patient(
        &client,
        Duration::from_millis(500),
        Duration::from_millis(500),
    )
    .await;
    let refused = hasty
        .create(request("again", MIB, &["again-1"]))
        .await
        .unwrap_err();
    assert!(
        matches!(refused.code(), Code::Aborted | Code::Unavailable),
        "{refused}"
    );
    drop(hasty);
    let uid = volumes(&client)
        .get(&csi_controller::ids::volume_id("again"))
        .await
        .unwrap()
        .uid();
    agent.change(|node| node.stuck = false);
    let id = driver(&client)
        .await
        .make(request("again", MIB, &["again-1"]))
        .await;
    assert_eq!(volumes(&client).get(&id).await.unwrap().uid(), uid);
}

#[tokio::test]
async fn without_room_the_next_node_is_asked_and_at_last_nothing_is_left() {
    let client = client().await;
    let _one = Agent::start(&client, "full-1", MIB).await;
    let _two = Agent::start(&client, "full-2", 20 * MIB).await;
    // The figure of the first is old: it looks better than it is.
    report(&client, "full-1", 100 * MIB, None).await;
    let driver = driver(&client).await;
    let nodes = ["full-1", "full-2"];
    let id = driver.make(request("full-a", 5 * MIB, &nodes)).await;
    assert_eq!(
        volumes(&client).get(&id).await.unwrap().spec.node_name,
        "full-2"
    );
    report(&client, "full-2", 100 * MIB, None).await;
    let refused = driver
        .create(request("full-b", 50 * MIB, &nodes))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    for part in ["full-1", "full-2", "bytes are free"] {
        assert!(refused.message().contains(part), "{refused}");
    }
    assert!(of_node(&client, "full-1").await.is_empty());
    assert_eq!(of_node(&client, "full-2").await, [id]);
}

#[tokio::test]
async fn what_can_never_be_made_is_withdrawn_and_what_may_pass_is_left() {
    let client = client().await;
    let agent = Agent::start(&client, "fail-1", 100 * MIB).await;
    let driver = driver(&client).await;
    for (kind, code, left) in [
        ("Precondition", Code::FailedPrecondition, false),
        ("Conflict", Code::AlreadyExists, false),
        ("Io", Code::Internal, true),
        ("Unavailable", Code::Unavailable, true),
        ("Uncertain", Code::Unavailable, true),
    ] {
        agent.change(|node| node.failing = Some(kind));
        let name = format!("fail-{kind}");
        let failed = driver
            .create(request(&name, MIB, &["fail-1"]))
            .await
            .unwrap_err();
        assert_eq!(failed.code(), code, "{kind}: {failed}");
        assert!(
            failed.message().contains("told to fail") && failed.message().contains("fail-1"),
            "{failed}"
        );
        let id = csi_controller::ids::volume_id(&name);
        assert_eq!(
            volumes(&client).get_opt(&id).await.unwrap().is_some(),
            left,
            "{kind}"
        );
    }
    agent.change(|node| node.failing = None);
    // The agent goes on by itself; whoever calls then finds the volume.
    let id = csi_controller::ids::volume_id("fail-Io");
    let ready = |object: Option<&LocalVolume>| {
        let status = object.and_then(|object| object.status.as_ref());
        status.is_some_and(|status| status.state == api::VolumeState::Ready)
    };
    kube::runtime::wait::await_condition(volumes(&client), &id, ready)
        .await
        .unwrap();
    assert_eq!(driver.make(request("fail-Io", MIB, &["fail-1"])).await, id);
}

#[tokio::test]
async fn an_operation_that_is_in_the_way_for_a_moment_fails_no_call() {
    let client = client().await;
    let agent = Agent::start(&client, "busy-1", 100 * MIB).await;
    let driver = driver(&client).await;
    let source = driver.make(request("busy-source", MIB, &["busy-1"])).await;
    // As when the source is being unmounted.
    agent.change(|node| node.failing = Some("Busy"));
    let clone = driver.create(from_volume(request("busy", MIB, &["busy-1"]), &source));
    let id = csi_controller::ids::volume_id("busy");
    let release = async {
        let told = |object: Option<&LocalVolume>| {
            let status = object.and_then(|object| object.status.as_ref());
            status.is_some_and(|status| status.failure.is_some())
        };
        kube::runtime::wait::await_condition(volumes(&client), &id, told)
            .await
            .unwrap();
        agent.change(|node| node.failing = None);
    };
    let (cloned, ()) = tokio::join!(clone, release);
    assert_eq!(cloned.unwrap().volume.unwrap().volume_id, id);
    // One that does not end in time is called by its name.
    agent.change(|node| node.failing = Some("Busy"));
    let hasty = patient(&client, Duration::from_secs(3), Duration::from_secs(60)).await;
    let busy = hasty
        .create(request("busy-still", MIB, &["busy-1"]))
        .await
        .unwrap_err();
    assert_eq!(busy.code(), Code::Aborted, "{busy}");
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_named_and_another_one_is_asked_where_that_is_allowed() {
    let client = client().await;
    let mut dead = Agent::start(&client, "dead-1", 100 * MIB).await;
    let steady = driver(&client).await;
    let kept = steady.make(request("dead-kept", MIB, &["dead-1"])).await;
    dead.stop().await;
    let hasty = patient(&client, Duration::from_secs(60), Duration::from_millis(300)).await;
    let silent = hasty
        .create(request("dead-a", MIB, &["dead-1"]))
        .await
        .unwrap_err();
    assert_eq!(silent.code(), Code::Unavailable, "{silent}");
    let id = csi_controller::ids::volume_id("dead-a");
    assert!(
        silent.message().contains(&id) && silent.message().contains("dead-1"),
        "{silent}"
    );
    let undeleted = hasty.delete(&kept).await.unwrap_err();
    assert_eq!(undeleted.code(), Code::Unavailable, "{undeleted}");
    assert!(
        undeleted.message().contains(&kept) && undeleted.message().contains("dead-1"),
        "{undeleted}"
    );
    // Never begun, so deleting it needs nobody.
    hasty.delete(&id).await.unwrap();
    let _alive = Agent::start(&client, "dead-2", 50 * MIB).await;
    let longer = patient(&client, Duration::from_secs(60), Duration::from_secs(10)).await;
    let elsewhere = longer
        .make(request("dead-b", MIB, &["dead-1", "dead-2"]))
        .await;
    assert_eq!(
        volumes(&client)
            .get(&elsewhere)
            .await
            .unwrap()
            .spec
            .node_name,
        "dead-2"
    );
    dead.resume();
    steady.delete(&kept).await.unwrap();
}

#[tokio::test]
async fn a_volume_in_use_is_not_deleted_and_not_later_either() {
    let client = client().await;
    let agent = Agent::start(&client, "used-1", 100 * MIB).await;
    let driver = driver(&client).await;
    let id = driver.make(request("used", MIB, &["used-1"])).await;
    agent.change(|node| {
        node.in_use.insert(id.clone());
    });
    let refused = driver.delete(&id).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(!volumes(&client).get(&id).await.unwrap().spec.delete);
    agent.change(|node| node.in_use.clear());
    // The agent has looked at everything again once this one is made.
    driver.make(request("used-other", MIB, &["used-1"])).await;
    assert!(driver.listed().await.contains(&id));
    driver.delete(&id).await.unwrap();
    assert!(!driver.listed().await.contains(&id));
}

#[tokio::test]
async fn a_volume_deleted_by_hand_stays_and_can_still_be_deleted_properly() {
    let client = client().await;
    let _agent = Agent::start(&client, "hand-1", 100 * MIB).await;
    let driver = driver(&client).await;
    let id = driver.make(request("hand", MIB, &["hand-1"])).await;
    volumes(&client)
        .delete(&id, &DeleteParams::default())
        .await
        .unwrap();
    assert!(driver.listed().await.contains(&id));
    assert_eq!(driver.make(request("hand", MIB, &["hand-1"])).await, id);
    driver.delete(&id).await.unwrap();
    assert!(volumes(&client).get_opt(&id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_volume_whose_data_is_missing_is_never_made_anew() {
    let client = client().await;
    let mut agent = Agent::start(&client, "lost-1", 100 * MIB).await;
    let driver = driver(&client).await;
    let id = driver.make(request("lost", MIB, &["lost-1"])).await;
    agent.stop().await;
    let lost = json!({"status": {"state": "DataMissing", "conditions": [{
        "type": "Ready", "status": "False", "reason": "DataMissing", "message": "its data was on another disk",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]}});
    volumes(&client)
        .patch_status(&id, &PatchParams::default(), &Patch::Merge(&lost))
        .await
        .unwrap();
    let refused = driver
        .create(request("lost", MIB, &["lost-1"]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::DataLoss, "{refused}");
    assert!(refused.message().contains("another disk"), "{refused}");
    let clone = from_volume(request("lost-clone", MIB, &["lost-1"]), &id);
    assert_eq!(
        driver.create(clone).await.unwrap_err().code(),
        Code::DataLoss
    );
    assert_eq!(of_node(&client, "lost-1").await, [id]);
}

#[tokio::test]
async fn a_pool_that_is_not_ready_gets_no_volumes() {
    let client = client().await;
    let _agent = Agent::start(&client, "sick-1", 100 * MIB).await;
    report(
        &client,
        "sick-1",
        100 * MIB,
        Some("nothing is mounted at /var/vd"),
    )
    .await;
    let driver = driver(&client).await;
    let refused = driver
        .create(request("sick", MIB, &["sick-1"]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(
        refused.message().contains("nothing is mounted at /var/vd"),
        "{refused}"
    );
    assert!(of_node(&client, "sick-1").await.is_empty());
}
