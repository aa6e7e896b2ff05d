//! Volumes that nobody will ask to delete.

use std::time::{Duration, Instant};

use api::LocalVolume;
use csi_controller::kubernetes::keepers::forgotten::Forgotten;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::objects::{
    DRIVER, claim, claims, is_there, merge, merge_status, object, persistent_volume, until, volumes,
};
use crate::support::agent::{Agent, MIB};
use crate::support::driver::{driver, for_claim, from_snapshot, request};
use crate::support::plane::client;

#[tokio::test]
async fn a_volume_that_its_provisioner_forgot_is_collected_after_ten_minutes_and_no_other() {
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
    let mut sweeper = Forgotten::new(client.clone(), &fresh.backend, DRIVER);
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
    let mut sweeper = Forgotten::new(client.clone(), &fresh.backend, DRIVER);
    sweeper.sweep(Instant::now()).await.unwrap();
    assert!(!is_there(&client, &id).await);
}
