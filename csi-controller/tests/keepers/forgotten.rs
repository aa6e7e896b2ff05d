//! Volumes that nobody will ask to delete.

use std::time::{Duration, Instant};

use api::{LocalVolume, UNANSWERED_ANNOTATION};
use csi_controller::kubernetes::keepers::forgotten::Forgotten;
use csi_controller::kubernetes::keepers::{Metrics, Options};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use telemetry::prometheus::registry::Registry;
use tokio::sync::Mutex;

use crate::objects::{
    claim, claims, is_there, merge, merge_status, object, options, persistent_volume, told, until,
    volumes,
};
use crate::support::agent::{Agent, MIB};
use crate::support::driver::{
    Driver, driver, for_claim, from_snapshot, from_volume, patient, request,
};
use crate::support::plane::client;

/// A sweep is about all volumes: one test after the other, and none leaves any.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn a_volume_that_its_provisioner_forgot_is_collected_after_ten_minutes_and_no_other() {
    let _alone = ALONE.lock().await;
    let client = client().await;
    let _agent = Agent::start(&client, "forgot-1", 100 * MIB).await;
    let driver = driver(&client).await;
    let uuid = |digit: u8| format!("pvc-3f8b9c1e-0d2a-4c6b-9e57-01234567890{digit}");
    let make = async |digit: u8| driver.make(request(&uuid(digit), MIB, &["forgot-1"])).await;
    let (forgotten, staged, named, restored) =
        (make(1).await, make(2).await, make(3).await, uuid(4));
    let claimed = object(&claims(&client), claim("forgot", "whatever", &Value::Null)).await;
    let claimed = format!("pvc-{}", claimed.uid().unwrap());
    driver
        .make(for_claim(
            request(&claimed, MIB, &["forgot-1"]),
            "default",
            "forgot",
        ))
        .await;
    let cut = driver.cut("forgot-cut", &staged).await.unwrap().snapshot_id;
    driver
        .make(from_snapshot(request(&restored, MIB, &["forgot-1"]), &cut))
        .await;
    let other = driver
        .make(request("not-of-a-claim", MIB, &["forgot-1"]))
        .await;
    let persistent: Api<PersistentVolume> = Api::all(client.clone());
    object(&persistent, persistent_volume("renamed-by-hand", &named)).await;
    let was = json!({"status": {"everStaged": true}});
    merge_status(&volumes(&client), &staged, &was).await;

    // Its own view: whatever the test above wrote is in it.
    let fresh = crate::support::driver::driver(&client).await;
    let mut sweeper = Forgotten::new(client.clone(), &fresh.backend, &options(""));
    let begun = Instant::now();
    let after = |minutes: u64| begun + Duration::from_secs(60 * minutes);
    sweeper.sweep(begun).await.unwrap();
    sweeper.sweep(after(9)).await.unwrap();
    assert!(
        is_there(&client, &forgotten).await,
        "not before ten minutes are over"
    );
    sweeper.sweep(after(11)).await.unwrap();
    assert!(!is_there(&client, &forgotten).await);
    for id in [&staged, &named, &restored, &other, &claimed] {
        assert!(is_there(&client, id).await, "{id}");
    }
    // Ten minutes count from when the claim was seen to be gone.
    claims(&client)
        .delete("forgot", &DeleteParams::default())
        .await
        .unwrap();
    strip(&client, "forgot").await;
    sweeper.sweep(after(20)).await.unwrap();
    sweeper.sweep(after(29)).await.unwrap();
    assert!(is_there(&client, &claimed).await);
    sweeper.sweep(after(31)).await.unwrap();
    assert!(!is_there(&client, &claimed).await);
    for id in [&staged, &named, &restored, &other] {
        driver.delete(id).await.unwrap();
    }
}

/// A source that is in use, a restore whose caller has its answer, and one whose caller has gone before, as the snapshot has.
async fn restores(client: &Client, agent: &Agent, driver: &Driver) -> (String, String, String) {
    let uuid = |digit: u8| format!("pvc-4a7c2f10-6c1e-4b8f-a1d5-01234567890{digit}");
    let source = driver.make(request(&uuid(1), MIB, &["copies-1"])).await;
    let was = json!({"status": {"everStaged": true}});
    merge_status(&volumes(client), &source, &was).await;
    let cut = driver.cut("copies", &source).await.unwrap().snapshot_id;
    let restore = |digit: u8| from_snapshot(request(&uuid(digit), MIB, &["copies-1"]), &cut);
    let answered = driver.make(restore(2)).await;
    agent.change(|node| node.stuck = true);
    let moment = Duration::from_millis(300);
    let hasty = patient(client, moment, moment).await;
    hasty.create(restore(3)).await.unwrap_err();
    driver.delete_snapshot(&cut).await.unwrap();
    agent.change(|node| node.stuck = false);
    let ready = |object: Option<&LocalVolume>| {
        let status = object.and_then(|object| object.status.as_ref());
        status.is_some_and(|status| status.state == api::VolumeState::Ready)
    };
    let unanswered = uuid(3);
    until(&volumes(client), &unanswered, ready).await.unwrap();
    for (id, marked) in [(&answered, false), (&unanswered, true)] {
        let object = volumes(client).get(id).await.unwrap();
        let mark = object.annotations().contains_key(UNANSWERED_ANNOTATION);
        assert_eq!(mark, marked, "{id}");
    }
    (source, answered, unanswered)
}

#[tokio::test]
async fn a_restore_that_was_never_answered_is_collected_and_one_that_was_is_told_of() {
    let _alone = ALONE.lock().await;
    let client = client().await;
    let agent = Agent::start(&client, "copies-1", 100 * MIB).await;
    let driver = driver(&client).await;
    let (source, answered, unanswered) = restores(&client, &agent, &driver).await;

    let fresh = crate::support::driver::driver(&client).await;
    let mut registry = Registry::default();
    let options = Options {
        metrics: Metrics::register(&mut registry),
        ..options("")
    };
    let unclaimed = || {
        let mut text = String::new();
        telemetry::prometheus::encoding::text::encode(&mut text, &registry).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("volumes_unclaimed "));
        line.unwrap().to_owned()
    };
    let mut sweeper = Forgotten::new(client.clone(), &fresh.backend, &options);
    let begun = Instant::now();
    let after = |minutes: u64| begun + Duration::from_secs(60 * minutes);
    sweeper.sweep(begun).await.unwrap();
    sweeper.sweep(after(9)).await.unwrap();
    assert!(is_there(&client, &unanswered).await);
    assert_eq!(unclaimed(), "volumes_unclaimed 0");
    sweeper.sweep(after(11)).await.unwrap();
    assert!(!is_there(&client, &unanswered).await);
    assert!(is_there(&client, &answered).await);
    assert_eq!(unclaimed(), "volumes_unclaimed 1");
    let uid = volumes(&client).get(&answered).await.unwrap().uid();
    let uid = uid.unwrap();
    told(&client, &uid, "Unclaimed", "It is kept").await;
    // Whoever finds it makes a PersistentVolume for it.
    let persistent: Api<PersistentVolume> = Api::all(client.clone());
    object(&persistent, persistent_volume("copies-found", &answered)).await;
    sweeper.sweep(after(17)).await.unwrap();
    assert_eq!(unclaimed(), "volumes_unclaimed 0");
    for id in [&source, &answered] {
        driver.delete(id).await.unwrap();
    }
}

#[tokio::test]
async fn a_restore_whose_persistent_volume_is_there_was_answered_whoever_did_it() {
    let _alone = ALONE.lock().await;
    let client = client().await;
    let _agent = Agent::start(&client, "older-1", 100 * MIB).await;
    let driver = driver(&client).await;
    let uuid = |digit: u8| format!("pvc-4a7c2f10-6c1e-4b8f-a1d5-11234567890{digit}");
    let source = driver.make(request(&uuid(1), MIB, &["older-1"])).await;
    let restored = driver
        .make(from_volume(request(&uuid(2), MIB, &["older-1"]), &source))
        .await;
    // A csi-controller that does not know the mark leaves it where it is.
    let mark = json!({"metadata": {"annotations": {UNANSWERED_ANNOTATION: "true"}}});
    merge(&volumes(&client), &restored, &mark).await;
    let persistent: Api<PersistentVolume> = Api::all(client.clone());
    object(&persistent, persistent_volume(&restored, &restored)).await;
    let fresh = crate::support::driver::driver(&client).await;
    let mut sweeper = Forgotten::new(client.clone(), &fresh.backend, &options(""));
    sweeper.sweep(Instant::now()).await.unwrap();
    let now = volumes(&client).get(&restored).await.unwrap();
    assert!(!now.annotations().contains_key(UNANSWERED_ANNOTATION));
    for id in [&source, &restored] {
        driver.delete(id).await.unwrap();
    }
}

/// Takes the protection off that Kubernetes' controllers, which do not run here, would take off.
async fn strip(client: &Client, claim: &str) {
    let patch = json!({"metadata": {"finalizers": null}});
    match claims(client)
        .patch(claim, &PatchParams::default(), &Patch::Merge(&patch))
        .await
    {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        answer => drop(answer.unwrap()),
    }
    let left = claims(client).list(&ListParams::default()).await.unwrap();
    assert!(left.items.iter().all(|one| one.name_any() != claim));
}

#[tokio::test]
async fn a_deletion_that_was_not_finished_is_finished() {
    let _alone = ALONE.lock().await;
    let client = client().await;
    let mut agent = Agent::start(&client, "half-1", 100 * MIB).await;
    let driver = driver(&client).await;
    let id = driver.make(request("half", MIB, &["half-1"])).await;
    // As it is when a controller ends between the agent's last step and its own.
    let patch = json!({"spec": {"delete": true}});
    merge(&volumes(&client), &id, &patch).await;
    let erased =
        |object: Option<&LocalVolume>| object.is_some_and(|object| object.finalizers().is_empty());
    until(&volumes(&client), &id, erased).await.unwrap();
    agent.stop().await;
    let fresh = crate::support::driver::driver(&client).await;
    let mut sweeper = Forgotten::new(client.clone(), &fresh.backend, &options(""));
    sweeper.sweep(Instant::now()).await.unwrap();
    assert!(!is_there(&client, &id).await);
}
