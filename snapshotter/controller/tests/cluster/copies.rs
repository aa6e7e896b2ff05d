//! Several copies, other controllers beside, and restarts.

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tonic::Code;

use crate::driver::{Answer, Driver};
use crate::plane::{client, plane};
use crate::program::Program;
use crate::stage::{Stage, made_for};

async fn stage(name: &str, driver: &'static str) -> Stage {
    Stage {
        client: client().await,
        driver: Driver::start(driver),
        name: name.to_owned(),
        texts: true,
    }
}

/// In sidecar mode of a driver with its own ids, the upstream controller's part is played by the test.
fn content(stage: &Stage) -> Value {
    let uid = "5d3f7c8a-0000-4000-8000-000000000001";
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
        "metadata": {
            "name": format!("snapcontent-{}", stage.name),
            "finalizers": ["snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"],
        },
        "spec": {
            "driver": stage.driver.name, "deletionPolicy": "Delete", "source": {"volumeHandle": stage.volume()},
            "volumeSnapshotClassName": stage.name,
            "volumeSnapshotRef": {"namespace": stage.name, "name": "snap", "uid": uid, "kind": "VolumeSnapshot"},
        },
    })
}

async fn make(stage: &Stage, content: Value) -> String {
    let content: kube::core::DynamicObject = serde_json::from_value(content).unwrap();
    let parameters = PostParams::default();
    stage
        .contents()
        .create(&parameters, &content)
        .await
        .unwrap()
        .name_any()
}

async fn delete_as_upstream(stage: &Stage, content: &str) {
    let mark = json!({"snapshot.storage.kubernetes.io/volumesnapshot-being-deleted": "yes"});
    stage
        .change(
            &stage.contents(),
            content,
            json!({"metadata": {"annotations": mark}}),
        )
        .await;
    stage.delete(&stage.contents(), content).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidecar_mode_leaves_snapshots_to_the_upstream_controller() {
    let stage = stage("sidecar", "sidecar.csi.io").await;
    let more = [
        "--mode=sidecar",
        "--driver-name=sidecar.csi.io",
        "--leader-election=false",
    ];
    let program = Program::start(&plane().kubeconfig, &stage.driver.socket, &more)
        .await
        .quiet();
    let snapshot = stage.begin().await;
    let content = make(&stage, content(&stage)).await;
    let ready = |c: &Value| c["status"]["readyToUse"] == json!(true);
    let made = stage
        .until(&stage.contents(), &content, "ready", ready)
        .await;
    assert_eq!(made["status"]["snapshotHandle"], json!("id-of-vol-sidecar"));
    let untouched = serde_json::to_value(stage.snapshots().get("snap").await.unwrap()).unwrap();
    assert!(untouched["status"].is_null() && untouched["metadata"]["finalizers"].is_null());
    assert!(
        stage
            .contents()
            .get_opt(&made_for(&snapshot).0)
            .await
            .unwrap()
            .is_none()
    );
    delete_as_upstream(&stage, &content).await;
    stage.until_gone(&stage.contents(), &content).await;
    assert!(stage.driver.snapshots_of(&stage.volume()).is_empty());
    program.stop().await;
}

/// Only another CreateSnapshot tells the id of what is to be deleted: external-snapshotter#1388.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_driver_with_its_own_ids_an_unknown_snapshot_is_made_known_and_deleted() {
    let stage = stage("unknown", "unknown.csi.io").await;
    let more = [
        "--mode=sidecar",
        "--driver-name=unknown.csi.io",
        "--leader-election=false",
    ];
    let program = Program::start(&plane().kubeconfig, &stage.driver.socket, &more)
        .await
        .quiet();
    stage
        .driver
        .script(&stage.volume(), &[Answer::MadeBut(Code::DeadlineExceeded)]);
    stage.class(|_| {}).await;
    let content = make(&stage, content(&stage)).await;
    stage.driver.called(&stage.volume(), 1).await;
    delete_as_upstream(&stage, &content).await;
    stage.driver.called(&stage.volume(), 3).await;
    assert!(stage.contents().get_opt(&content).await.unwrap().is_some());
    stage.driver.script(&stage.volume(), &[Answer::Ready]);
    stage.until_gone(&stage.contents(), &content).await;
    assert!(stage.driver.snapshots_of(&stage.volume()).is_empty());
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_copy_works_and_another_takes_over() {
    let stage = stage("copies", "copies.csi.io").await;
    let more = [
        "--mode=full",
        "--driver-name=copies.csi.io",
        "--leader-election-namespace=copies",
        "--upstream-lease-namespace=nobody",
    ];
    let kubeconfig = &plane().kubeconfig;
    let mut first = Program::start(kubeconfig, &stage.driver.socket, &more).await;
    first.says("this copy works").await;
    let first = first.quiet();
    let mut second = Program::start(kubeconfig, &stage.driver.socket, &more).await;
    second.says("another copy works").await;
    let second = second.quiet();
    stage.begin().await;
    stage.until_ready().await;
    assert!(
        first
            .get("/metrics")
            .await
            .contains("vd_snapshotter_leading 1")
    );
    assert!(
        second
            .get("/metrics")
            .await
            .contains("vd_snapshotter_leading 0")
    );
    assert!(second.get("/readyz").await.contains("200 OK"));
    // It gives its Lease back, so nobody waits until that runs out.
    first.stop().await;
    let content = made_for(&stage.snapshots().get("snap").await.unwrap()).0;
    stage.delete(&stage.snapshots(), "snap").await;
    stage.until_gone(&stage.snapshots(), "snap").await;
    stage.until_gone(&stage.contents(), &content).await;
    second.stop().await;
}

/// The driver is another socket for each of them, so it is known who calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_held_up_calls_the_driver_no_more() {
    let stage = stage("held-up", "held-up.csi.io").await;
    let others = Driver::start("held-up.csi.io");
    let more = [
        "--mode=full",
        "--driver-name=held-up.csi.io",
        "--leader-election-namespace=held-up",
        "--upstream-lease-namespace=nobody",
    ];
    let kubeconfig = &plane().kubeconfig;
    let mut first = Program::start(kubeconfig, &stage.driver.socket, &more).await;
    first.says("this copy works").await;
    let first = first.quiet();
    // It tries again and again, and would do so at once when it wakes up.
    let fails = [Answer::No(Code::Internal)];
    stage.driver.script(&stage.volume(), &fails);
    stage.begin().await;
    stage.driver.called(&stage.volume(), 2).await;
    first.hold_up(true);
    let mut second = Program::start(kubeconfig, &others.socket, &more).await;
    second.says("this copy works").await;
    let second = second.quiet();
    stage.until_ready().await;
    let calls = stage.driver.calls(&stage.volume()).len();
    first.hold_up(false);
    assert!(!first.ended().await, "another one works");
    assert_eq!(stage.driver.calls(&stage.volume()).len(), calls);
    second.stop().await;
}

/// Each has a driver of its own beside it, as in two pods.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_has_lost_its_driver_leaves_the_work_to_another() {
    let stage = stage("driverless", "driverless.csi.io").await;
    let others = Driver::start("driverless.csi.io");
    let more = [
        "--mode=full",
        "--driver-name=driverless.csi.io",
        "--leader-election-namespace=driverless",
        "--upstream-lease-namespace=nobody",
    ];
    let kubeconfig = &plane().kubeconfig;
    let mut first = Program::start(kubeconfig, &stage.driver.socket, &more).await;
    first.says("this copy works").await;
    let first = first.quiet();
    let mut second = Program::start(kubeconfig, &others.socket, &more).await;
    second.says("another copy works").await;
    let second = second.quiet();
    stage.driver.go();
    stage.begin().await;
    stage.until_ready().await;
    assert_eq!(others.snapshots_of(&stage.volume()).len(), 1);
    first.said("the driver has not answered for", 1).await;
    assert!(
        !first.ended().await,
        "it begins anew, and waits for its driver"
    );
    // One that starts has no part in it before its driver is there.
    let mut third = Program::start(kubeconfig, &stage.driver.socket, &more).await;
    third.says("waiting for the driver").await;
    stage.driver.come();
    third.says("another copy works").await;
    third.quiet().stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stands_back_while_an_upstream_controller_serves_the_cluster() {
    let stage = stage("upstream", "upstream.csi.io").await;
    let leases: Api<Lease> = Api::namespaced(stage.client.clone(), "upstream");
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "snapshot-controller-leader"},
        "spec": {"holderIdentity": "upstream-1", "leaseDurationSeconds": 3600, "renewTime": now},
    });
    leases
        .create(
            &PostParams::default(),
            &serde_json::from_value(lease).unwrap(),
        )
        .await
        .unwrap();
    let more = [
        "--mode=full",
        "--driver-name=upstream.csi.io",
        "--leader-election=false",
        "--upstream-lease-namespace=upstream",
    ];
    let mut program = Program::start(&plane().kubeconfig, &stage.driver.socket, &more).await;
    program
        .says("an upstream snapshot-controller serves this cluster")
        .await;
    stage.begin().await;
    // The driver's half goes on.
    let content = make(&stage, content(&stage)).await;
    let ready = |c: &Value| c["status"]["readyToUse"] == json!(true);
    stage
        .until(&stage.contents(), &content, "ready", ready)
        .await;
    assert!(
        stage
            .snapshots()
            .get("snap")
            .await
            .unwrap()
            .finalizers()
            .is_empty()
    );
    // It ends, and says so.
    let given_back = json!({"spec": {"holderIdentity": ""}});
    let patch = kube::api::Patch::Merge(&given_back);
    let parameters = kube::api::PatchParams::default();
    leases
        .patch("snapshot-controller-leader", &parameters, &patch)
        .await
        .unwrap();
    program.says("is gone").await;
    let program = program.quiet();
    stage.until_ready().await;
    let lease = leases.get("snapshot-controller-leader").await.unwrap();
    assert_eq!(
        lease.spec.unwrap().holder_identity.as_deref(),
        Some(""),
        "it was only looked at"
    );
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_lost_in_the_middle_of_a_call_is_followed_by_one_that_goes_on() {
    let stage = stage("lost", "lost.csi.io").await;
    let more = [
        "--mode=full",
        "--driver-name=lost.csi.io",
        "--leader-election=false",
        "--upstream-lease-namespace=nobody",
    ];
    let kubeconfig = &plane().kubeconfig;
    let program = Program::start(kubeconfig, &stage.driver.socket, &more)
        .await
        .quiet();
    stage.driver.script(&stage.volume(), &[Answer::Hang]);
    let snapshot = stage.begin().await;
    stage.driver.called(&stage.volume(), 1).await;
    program.kill().await;
    let (content, _) = made_for(&snapshot);
    let marked = stage.contents().get(&content).await.unwrap();
    assert!(
        marked
            .annotations()
            .contains_key("snapshot.storage.kubernetes.io/volumesnapshot-being-created")
    );
    stage.driver.script(&stage.volume(), &[Answer::Ready]);
    let program = Program::start(kubeconfig, &stage.driver.socket, &more)
        .await
        .quiet();
    stage.until_ready().await;
    let unmarked = |c: &Value| {
        c["metadata"]["annotations"]
            .as_object()
            .is_none_or(serde_json::Map::is_empty)
    };
    stage
        .until(&stage.contents(), &content, "unmarked", unmarked)
        .await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_of_another_name_is_refused() {
    let stage = stage("name", "name.csi.io").await;
    let more = ["--mode=full", "--leader-election=false"];
    let mut program = Program::start(&plane().kubeconfig, &stage.driver.socket, &more).await;
    let line = program.says("name.csi.io").await;
    assert!(line.contains("--driver-name is vd.csi.io"), "{line}");
}
