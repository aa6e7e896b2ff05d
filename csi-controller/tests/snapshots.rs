//! Snapshots, expansion, lists, capacity and health over custom resources, against a real API server. The nodes' agents are played
//! by a small one in the test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests: a panic is how they report"
)]

mod support;

use std::time::Duration;

use api::{LocalSnapshot, LocalVolume};
use csi_controller::Backend;
use csi_controller::backend::{CapacityQuery, SnapshotFilter};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use support::agent::{Agent, MIB, report};
use support::driver::{Driver, driver, from_snapshot, patient, request};
use support::plane::client;
use tonic::Code;

fn snapshots(client: &Client) -> Api<LocalSnapshot> {
    Api::all(client.clone())
}

async fn snapshots_of(driver: &Driver, volume: &str) -> Vec<String> {
    let filter = SnapshotFilter {
        source_volume_id: Some(volume.to_owned()),
        snapshot_id: None,
    };
    let page = driver
        .backend
        .list_snapshots(&filter, None, 1000)
        .await
        .unwrap();
    page.items.into_iter().map(|snapshot| snapshot.id).collect()
}

#[tokio::test]
async fn a_snapshot_is_cut_where_its_source_is_and_listed_at_once_until_it_is_deleted() {
    let client = client().await;
    let _agent = Agent::start(&client, "cut-1", 100 * MIB).await;
    let driver = driver(&client).await;
    let volume = driver.make(request("cut", MIB, &["cut-1"])).await;
    let cut = driver.cut("cut-a", &volume).await.unwrap();
    assert!(cut.ready_to_use && cut.size_bytes == MIB && cut.source_volume_id == volume);
    assert_eq!(cut.creation_time.unwrap().seconds, 1);
    let object = snapshots(&client).get(&cut.snapshot_id).await.unwrap();
    assert_eq!(object.spec.node_name, "cut-1");
    assert_eq!(
        snapshots_of(&driver, &volume).await,
        *std::slice::from_ref(&cut.snapshot_id)
    );
    assert_eq!(driver.cut("cut-a", &volume).await.unwrap(), cut);
    let other = driver.make(request("cut-other", MIB, &["cut-1"])).await;
    assert_eq!(
        driver.cut("cut-a", &other).await.unwrap_err().code(),
        Code::AlreadyExists
    );
    // In any order: the snapshot outlives its source, the copy outlives the snapshot.
    driver.delete(&volume).await.unwrap();
    assert_eq!(driver.cut("cut-a", &volume).await.unwrap(), cut);
    let copy = driver
        .make(from_snapshot(
            request("cut-copy", MIB, &["cut-1"]),
            &cut.snapshot_id,
        ))
        .await;
    driver.delete_snapshot(&cut.snapshot_id).await.unwrap();
    driver.delete_snapshot(&cut.snapshot_id).await.unwrap();
    assert_eq!(snapshots_of(&driver, &volume).await, Vec::<String>::new());
    assert!(driver.listed().await.contains(&copy));
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_cut_is_withdrawn_and_one_that_still_may_is_left() {
    let client = client().await;
    let agent = Agent::start(&client, "uncut-1", 100 * MIB).await;
    let driver = driver(&client).await;
    let volume = driver.make(request("uncut", MIB, &["uncut-1"])).await;
    for (kind, code, left) in [
        ("Precondition", Code::FailedPrecondition, false),
        ("NoSpace", Code::ResourceExhausted, false),
        ("Io", Code::Internal, true),
    ] {
        agent.change(|node| node.failing = Some(kind));
        let name = format!("uncut-{kind}");
        let failed = driver.cut(&name, &volume).await.unwrap_err();
        assert_eq!(failed.code(), code, "{kind}: {failed}");
        let id = csi_controller::ids::snapshot_id(&name);
        assert_eq!(
            snapshots(&client).get_opt(&id).await.unwrap().is_some(),
            left,
            "{kind}"
        );
    }
    let nothing = driver
        .cut("uncut-nothing", &csi_controller::ids::volume_id("no such"))
        .await;
    assert_eq!(nothing.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_snapshot_that_is_deleted_while_a_call_waits_for_it_is_not_made_anew() {
    let client = client().await;
    let agent = Agent::start(&client, "twice-1", 100 * MIB).await;
    let driver = driver(&client).await;
    let volume = driver.make(request("twice", MIB, &["twice-1"])).await;
    agent.change(|node| node.stuck = true);
    let id = csi_controller::ids::snapshot_id("twice");
    let delete = async {
        let is_there = |object: Option<&LocalSnapshot>| object.is_some();
        kube::runtime::wait::await_condition(snapshots(&client), &id, is_there)
            .await
            .unwrap();
        driver.delete_snapshot(&id).await.unwrap();
        agent.change(|node| node.stuck = false);
    };
    let (cut, ()) = tokio::join!(driver.cut("twice", &volume), delete);
    let ended = cut.unwrap_err();
    assert_eq!(ended.code(), Code::Aborted, "{ended}");
    assert!(ended.message().contains("was deleted"), "{ended}");
    assert!(snapshots(&client).get_opt(&id).await.unwrap().is_none());
    // Whoever still wants it calls again.
    assert_eq!(driver.cut("twice", &volume).await.unwrap().snapshot_id, id);
}

#[tokio::test]
async fn a_copy_that_takes_longer_than_a_call_is_answered_with_aborted() {
    let client = client().await;
    let agent = Agent::start(&client, "slow-1", 100 * MIB).await;
    let steady = driver(&client).await;
    let volume = steady.make(request("slow", MIB, &["slow-1"])).await;
    agent.change(|node| node.stuck = true);
    let driver = patient(&client, Duration::from_millis(300), Duration::from_secs(60)).await;
    let id = csi_controller::ids::snapshot_id("slow");
    let object = LocalSnapshot::new(
        &id,
        api::LocalSnapshotSpec {
            node_name: "slow-1".to_owned(),
            name: "slow".to_owned(),
            source_volume: volume.clone(),
            compression: None,
            checksum: None,
            delete: false,
        },
    );
    let created = snapshots(&client)
        .create(&kube::api::PostParams::default(), &object)
        .await
        .unwrap();
    assert!(created.status.is_none());
    let taken_on = json!({"metadata": {"finalizers": [api::AGENT_FINALIZER]}});
    snapshots(&client)
        .patch(&id, &PatchParams::default(), &Patch::Merge(&taken_on))
        .await
        .unwrap();
    let progress = json!({"status": {"observedGeneration": 1, "progress": 42}});
    snapshots(&client)
        .patch_status(&id, &PatchParams::default(), &Patch::Merge(&progress))
        .await
        .unwrap();
    let copying = driver.cut("slow", &volume).await.unwrap_err();
    assert_eq!(copying.code(), Code::Aborted, "{copying}");
    assert!(
        copying.message().contains("42 %") && copying.message().contains("slow-1"),
        "{copying}"
    );
}

#[tokio::test]
async fn a_volume_grows_and_says_so_once_its_node_has_done_it() {
    let client = client().await;
    let agent = Agent::start(&client, "grow-1", 10 * MIB).await;
    let driver = driver(&client).await;
    let id = driver.make(request("grow", 2 * MIB, &["grow-1"])).await;
    assert_eq!(driver.expand(&id, 4 * MIB).await.unwrap(), 4 * MIB);
    assert_eq!(
        driver.expand(&id, 3 * MIB).await.unwrap(),
        4 * MIB,
        "never smaller"
    );
    let volumes: Api<LocalVolume> = Api::all(client.clone());
    assert_eq!(
        volumes.get(&id).await.unwrap().spec.requested_bytes,
        4 * MIB
    );
    let full = driver.expand(&id, 50 * MIB).await.unwrap_err();
    assert_eq!(full.code(), Code::OutOfRange, "{full}");
    assert_eq!(
        driver
            .backend
            .get_volume(&id)
            .await
            .unwrap()
            .volume
            .capacity_bytes,
        4 << 20
    );
    agent.change(|node| node.room = 100 * MIB);
    assert_eq!(driver.expand(&id, 50 * MIB).await.unwrap(), 50 * MIB);
    let missing = driver
        .expand(&csi_controller::ids::volume_id("nothing"), MIB)
        .await
        .unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
}

#[tokio::test]
async fn a_growth_that_has_no_room_leaves_no_wish_behind_and_a_smaller_one_succeeds() {
    let client = client().await;
    let _agent = Agent::start(&client, "greedy-1", 10 * MIB).await;
    let driver = driver(&client).await;
    let id = driver.make(request("greedy", 2 * MIB, &["greedy-1"])).await;
    // It became ready before this report, so the room is what is reported.
    report(&client, "greedy-1", 8 * MIB, None).await;
    let full = driver.expand(&id, 10 << 40).await.unwrap_err();
    assert_eq!(full.code(), Code::OutOfRange, "{full}");
    let volumes: Api<LocalVolume> = Api::all(client.clone());
    let spec = volumes.get(&id).await.unwrap().spec;
    assert_eq!(
        (spec.size_bytes, spec.requested_bytes),
        (2 * MIB, 2 * MIB),
        "the wish was taken back"
    );
    assert_eq!(driver.expand(&id, 4 * MIB).await.unwrap(), 4 * MIB);
}

#[tokio::test]
async fn a_wish_that_no_room_was_found_for_takes_none_and_gives_way_to_a_smaller_one() {
    let client = client().await;
    let _agent = Agent::start(&client, "left-1", 10 * MIB).await;
    let driver = driver(&client).await;
    let id = driver.make(request("left", 2 * MIB, &["left-1"])).await;
    report(&client, "left-1", 8 * MIB, None).await;
    // As it is when csi-controller ends between its wish and the agent's answer.
    let volumes: Api<LocalVolume> = Api::all(client.clone());
    let wish = json!({"spec": {"sizeBytes": 10_i64 << 40}});
    volumes
        .patch(&id, &PatchParams::default(), &Patch::Merge(&wish))
        .await
        .unwrap();
    let refused = |object: Option<&LocalVolume>| {
        let status = object.and_then(|object| object.status.as_ref());
        status.is_some_and(|status| status.failure.is_some())
    };
    kube::runtime::wait::await_condition(volumes.clone(), &id, refused)
        .await
        .unwrap();
    let fresh = crate::support::driver::driver(&client).await;
    assert_eq!(room(&fresh, "left-1").await, 8 << 20);
    assert_eq!(fresh.expand(&id, 4 * MIB).await.unwrap(), 4 * MIB);
    // But never below what there is.
    let smaller = json!({"spec": {"sizeBytes": 3 * MIB}});
    let shrunk = volumes
        .patch(&id, &PatchParams::default(), &Patch::Merge(&smaller))
        .await
        .unwrap_err();
    assert!(shrunk.to_string().contains("never shrinks"), "{shrunk}");
}

#[tokio::test]
async fn lists_come_in_pages_that_follow_each_other() {
    let client = client().await;
    let _agent = Agent::start(&client, "page-1", 100 * MIB).await;
    let driver = driver(&client).await;
    let mut made = Vec::new();
    for name in ["page-a", "page-b", "page-c", "page-d"] {
        made.push(driver.make(request(name, MIB, &["page-1"])).await);
    }
    made.sort();
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = driver
            .backend
            .list_volumes(after.as_deref(), 3)
            .await
            .unwrap();
        assert!(page.items.len() <= 3);
        found.extend(page.items.into_iter().map(|volume| volume.id));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert!(found.is_sorted());
    found.retain(|id| made.contains(id));
    assert_eq!(found, made);
}

async fn room(driver: &Driver, node: &str) -> u64 {
    let query = CapacityQuery {
        node: Some(node.to_owned()),
        ..CapacityQuery::default()
    };
    driver
        .backend
        .capacity(query)
        .await
        .unwrap()
        .available_bytes
}

#[tokio::test]
async fn capacity_is_what_the_pool_reports_less_what_it_does_not_know_yet() {
    let client = client().await;
    let agent = Agent::start(&client, "room-1", 50 * MIB).await;
    let steady = driver(&client).await;
    assert_eq!(room(&steady, "room-1").await, 50 << 20);
    agent.change(|node| node.stuck = true);
    let hasty = patient(
        &client,
        Duration::from_millis(300),
        Duration::from_millis(300),
    )
    .await;
    hasty
        .create(request("room", 8 * MIB, &["room-1"]))
        .await
        .unwrap_err();
    assert_eq!(room(&hasty, "room-1").await, 42 << 20);
    report(&client, "room-1", 50 * MIB, Some("no disk")).await;
    let fresh = driver(&client).await;
    assert_eq!(room(&fresh, "room-1").await, 0);
    assert_eq!(room(&fresh, "no such").await, 0);
}

#[tokio::test]
async fn a_node_that_did_not_answer_a_moment_ago_has_no_room() {
    let client = client().await;
    let mut agent = Agent::start(&client, "mute-1", 50 * MIB).await;
    agent.stop().await;
    let driver = patient(&client, Duration::from_secs(60), Duration::from_millis(300)).await;
    assert_eq!(room(&driver, "mute-1").await, 50 << 20);
    let silent = driver
        .create(request("mute", 8 * MIB, &["mute-1"]))
        .await
        .unwrap_err();
    assert_eq!(silent.code(), Code::Unavailable, "{silent}");
    assert_eq!(room(&driver, "mute-1").await, 0);
    let next = driver
        .create(request("mute-next", 8 * MIB, &["mute-1"]))
        .await
        .unwrap_err();
    assert!(next.message().contains("did not answer"), "{next}");
}

#[tokio::test]
async fn what_is_wrong_with_a_volume_is_told() {
    let client = client().await;
    let mut agent = Agent::start(&client, "ill-1", 50 * MIB).await;
    let driver = driver(&client).await;
    let id = driver.make(request("ill", MIB, &["ill-1"])).await;
    assert_eq!(
        driver.backend.volume_health(&id).await.unwrap().problems,
        []
    );
    agent.stop().await;
    let lost = json!({"status": {"state": "DataMissing", "conditions": [{
        "type": "Ready", "status": "False", "reason": "DataMissing", "message": "the disk was changed",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]}});
    let volumes: Api<LocalVolume> = Api::all(client.clone());
    volumes
        .patch_status(&id, &PatchParams::default(), &Patch::Merge(&lost))
        .await
        .unwrap();
    let health = driver.backend.volume_health(&id).await.unwrap();
    assert_eq!(health.problems[0].reason, "DataMissing");
    assert!(health.problems[0].message.contains("the disk was changed"));
    let listed = driver.backend.list_volume_health(None, 1000).await.unwrap();
    assert!(listed.items.contains(&health));
    // It can still be deleted: what is missing is deleted.
    agent.resume();
    driver.delete(&id).await.unwrap();
}
