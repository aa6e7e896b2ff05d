//! What users do, and what has to come of it whatever is cut meanwhile.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tonic::Code;

use crate::driver::Answer;
use crate::stage::{Stage, made_for};

/// A user's wish from beginning to end.
pub struct Flow {
    pub name: &'static str,
    /// In the names of its drivers; `vd.csi.io` stands for ids that are names.
    pub driver: &'static str,
    pub mode: &'static str,
    /// Whether the program asks for a Lease, as it does where it is deployed.
    pub leased: bool,
    pub play: fn(Stage) -> BoxFuture<'static, ()>,
}

/// A snapshot of a claim is made and deleted.
pub const DYNAMIC: Flow = Flow {
    name: "dynamic",
    driver: "vd.csi.io",
    mode: "full",
    leased: false,
    play: |stage| dynamic(stage).boxed(),
};

/// A snapshot is bound to a content that somebody else has made, and deleted.
pub const GIVEN: Flow = Flow {
    name: "given",
    driver: "given.csi.io",
    mode: "full",
    leased: false,
    play: |stage| given(stage).boxed(),
};

/// A snapshot whose content is to be retained is made and deleted, and then the content.
pub const RETAINED: Flow = Flow {
    name: "retained",
    driver: "retained.csi.io",
    mode: "full",
    leased: false,
    play: |stage| retained(stage).boxed(),
};

/// A snapshot is deleted as soon as the driver was asked for it. Only CreateSnapshot tells this driver's ids.
pub const DROPPED: Flow = Flow {
    name: "dropped",
    driver: "dropped.csi.io",
    mode: "full",
    leased: false,
    play: |stage| dropped(stage).boxed(),
};

/// The same with a driver whose ids are known beforehand, while it refuses for ever and makes the snapshot all the same.
pub const REFUSED: Flow = Flow {
    name: "refused",
    driver: "vd.csi.io",
    mode: "full",
    leased: false,
    play: |stage| refused(stage).boxed(),
};

/// Beside an upstream controller, whose part is played here: a content is made, and deleted when it is ready.
pub const BESIDE: Flow = Flow {
    name: "beside",
    driver: "vd.csi.io",
    mode: "sidecar",
    leased: false,
    play: |stage| beside(stage, false).boxed(),
};

/// The same, and it is deleted as soon as the driver was asked.
pub const DROPPED_BESIDE: Flow = Flow {
    name: "dropped-beside",
    driver: "vd.csi.io",
    mode: "sidecar",
    leased: false,
    play: |stage| beside(stage, true).boxed(),
};

/// As it is deployed, with a Lease.
pub const LEASED: Flow = Flow {
    name: "leased",
    driver: "leased.csi.io",
    mode: "full",
    leased: true,
    play: |stage| dynamic(stage).boxed(),
};

/// What is there before the program is.
pub async fn set_up(stage: &Stage) {
    stage.class(|_| {}).await;
    stage.claim(stage.driver.name).await;
}

/// Nothing may be left of the flow; then what was there before is taken away too.
pub async fn clean_up(stage: &Stage) {
    let snapshots = stage
        .snapshots()
        .list(&ListParams::default())
        .await
        .unwrap();
    assert!(snapshots.items.is_empty(), "{:?}", snapshots.items);
    let contents = stage.contents().list(&ListParams::default()).await.unwrap();
    let ours =
        |content: &&kube::core::DynamicObject| content.data["spec"]["driver"] == stage.driver.name;
    let left: Vec<_> = contents.iter().filter(ours).collect();
    assert!(left.is_empty(), "{left:?}");
    let claim = stage.claims().get("data").await.unwrap();
    assert!(claim.finalizers().is_empty(), "{:?}", claim.finalizers());
    let at_once = DeleteParams::default();
    stage.claims().delete("data", &at_once).await.unwrap();
    let volumes: Api<PersistentVolume> = Api::all(stage.client.clone());
    volumes
        .delete(&format!("pv-{}", stage.name), &at_once)
        .await
        .unwrap();
    stage.classes().delete(&stage.name, &at_once).await.unwrap();
}

async fn dynamic(stage: Stage) {
    let snapshot = stage.snapshot(Some(&stage.name)).await;
    let (content, _) = made_for(&snapshot);
    let ready = stage.until_ready().await;
    assert_eq!(
        ready["status"]["boundVolumeSnapshotContentName"],
        json!(content)
    );
    assert!(ready["status"]["error"].is_null(), "{ready}");
    let unmarked = |c: &Value| {
        c["metadata"]["annotations"]
            .as_object()
            .is_none_or(serde_json::Map::is_empty)
    };
    stage
        .until(&stage.contents(), &content, "unmarked", unmarked)
        .await;
    stage.until_claim("let go", <[String]>::is_empty).await;
    assert_eq!(stage.driver.snapshots_of(&stage.volume()).len(), 1);
    stage.delete(&stage.snapshots(), "snap").await;
    stage.until_gone(&stage.snapshots(), "snap").await;
    stage.until_gone(&stage.contents(), &content).await;
    assert!(stage.driver.snapshots_of(&stage.volume()).is_empty());
}

async fn given(stage: Stage) {
    let handle = format!("handle-of-{}", stage.name);
    stage.driver.has(&handle);
    let content = stage.content(&handle, "Delete", |_| {}).await;
    bind(&stage, &content).await;
    stage.delete(&stage.snapshots(), "snap").await;
    stage.until_gone(&stage.snapshots(), "snap").await;
    stage.until_gone(&stage.contents(), &content).await;
    assert!(!stage.driver.knows(&handle));
}

async fn retained(stage: Stage) {
    let handle = format!("handle-of-{}", stage.name);
    stage.driver.has(&handle);
    let content = stage.content(&handle, "Retain", |_| {}).await;
    bind(&stage, &content).await;
    stage.delete(&stage.snapshots(), "snap").await;
    stage.until_gone(&stage.snapshots(), "snap").await;
    stage.delete(&stage.contents(), &content).await;
    stage.until_gone(&stage.contents(), &content).await;
    assert!(stage.driver.knows(&handle), "it was to be retained");
}

/// A snapshot of this content, until it is ready.
async fn bind(stage: &Stage, content: &str) {
    let spec = json!({"volumeSnapshotClassName": stage.name, "source": {"volumeSnapshotContentName": content}});
    stage.snapshot_of("snap", spec).await;
    let ready = |s: &Value| s["status"]["readyToUse"] == json!(true);
    let bound = stage.until_snapshot("ready", ready).await;
    assert_eq!(
        bound["status"]["boundVolumeSnapshotContentName"],
        json!(content)
    );
}

async fn dropped(stage: Stage) {
    let snapshot = stage.snapshot(Some(&stage.name)).await;
    stage.driver.called(&stage.volume(), 1).await;
    vanish(&stage, &snapshot).await;
}

async fn refused(stage: Stage) {
    let answers = [Answer::MadeBut(Code::ResourceExhausted)];
    stage.driver.script(&stage.volume(), &answers);
    let snapshot = stage.snapshot(Some(&stage.name)).await;
    stage.driver.called(&stage.volume(), 1).await;
    vanish(&stage, &snapshot).await;
}

/// As the upstream controller does: it protects a content only after it has made it, which may be too late.
async fn beside(stage: Stage, at_once: bool) {
    let uid = uuid::Uuid::new_v4().to_string();
    let content = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
        "metadata": {"name": format!("snapcontent-{uid}")},
        "spec": {
            "driver": stage.driver.name, "deletionPolicy": "Delete", "source": {"volumeHandle": stage.volume()},
            "volumeSnapshotClassName": stage.name,
            "volumeSnapshotRef": {"namespace": stage.name, "name": "snap", "uid": uid, "kind": "VolumeSnapshot"},
        },
    });
    let content = stage.make(&stage.contents(), content).await.name_any();
    if at_once {
        stage.driver.called(&stage.volume(), 1).await;
    } else {
        let made = |c: &Value| {
            let annotations = c["metadata"]["annotations"].as_object();
            c["status"]["readyToUse"] == json!(true)
                && annotations.is_none_or(serde_json::Map::is_empty)
        };
        stage.until(&stage.contents(), &content, "made", made).await;
    }
    let mark = json!({"snapshot.storage.kubernetes.io/volumesnapshot-being-deleted": "yes"});
    let mark = json!({"metadata": {"annotations": mark}});
    stage.change(&stage.contents(), &content, mark).await;
    stage.delete(&stage.contents(), &content).await;
    stage.until_gone(&stage.contents(), &content).await;
    assert!(stage.driver.snapshots_of(&stage.volume()).is_empty());
}

async fn vanish(stage: &Stage, snapshot: &kube::core::DynamicObject) {
    stage.delete(&stage.snapshots(), "snap").await;
    stage.until_gone(&stage.snapshots(), "snap").await;
    stage
        .until_gone(&stage.contents(), &made_for(snapshot).0)
        .await;
    assert!(stage.driver.snapshots_of(&stage.volume()).is_empty());
}
