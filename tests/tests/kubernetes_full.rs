//! A cluster without the upstream snapshot-controller: the shipped manifest alone serves its VolumeSnapshots, from request to
//! deletion.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and their folders are their own"
)]

use std::sync::OnceLock;

use serde_json::json;
use tests::cluster::{self, Cluster};
use tests::kubernetes::{self, Claim, Namespace, Pod, snapshot};

const GUARD: &str = env!("CARGO_BIN_EXE_cluster");

/// The cluster of all tests here, with the shipped image and manifest, and with no other snapshot controller.
#[track_caller]
fn without_upstream() -> &'static Cluster {
    static INSTALLED: OnceLock<&'static Cluster> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let cluster = cluster::shared_with(GUARD, |options| options.snapshot_controller = false);
        kubernetes::install(cluster);
        cluster
    })
}

/// Fills the device of the pod `app`, and returns what is on it.
fn fill(space: &Namespace) -> String {
    let _wrote = space.sh(
        "app",
        "dd if=/dev/urandom of=/dev/disk bs=1M count=4 conv=fsync 2>/dev/null",
    );
    content(space, "app", "/dev/disk")
}

fn content(space: &Namespace, pod: &str, device: &str) -> String {
    space.sh(pod, &format!("head -c 4194304 {device} | sha256sum"))
}

/// The pod `app` with a device.
fn with_app(space: &Namespace) {
    space.apply(&[
        Claim::new("disk").block().object(),
        Pod::new("app").device("disk").object(),
    ]);
    space.ready("app");
}

#[test]
fn a_snapshot_is_made_restored_and_deleted_by_ours_alone() {
    let cluster = without_upstream();
    let space = Namespace::new(cluster, "alone");
    with_app(&space);
    let first = fill(&space);
    space.apply(&[snapshot("cut", "disk")]);
    space.snapshot_ready("cut");
    // Also csi-snapshotter's: whichever of the two is deployed, one calls the driver.
    let lease = ["-n=vd-csi", "lease/external-snapshotter-leader-vd-csi-io"];
    let holder = kubernetes::field(cluster, &lease, "{.spec.holderIdentity}");
    assert!(holder.starts_with("csi-controller-"), "{holder}");
    let content_name = space.field(
        "volumesnapshot/cut",
        "{.status.boundVolumeSnapshotContentName}",
    );
    let finalizers = space.field("volumesnapshot/cut", "{.metadata.finalizers}");
    assert!(
        finalizers.contains("volumesnapshot-bound-protection"),
        "{finalizers}"
    );
    let held = space.field("pvc/disk", "{.metadata.finalizers}");
    assert!(!held.contains("pvc-as-source-protection"), "{held}");
    let _told = space.event("cut", "SnapshotReady", "ready");
    assert_ne!(fill(&space), first);
    space.apply(&[
        Claim::new("old").block().from_snapshot("cut").object(),
        Pod::new("restored").device("old").object(),
    ]);
    space.ready("restored");
    assert_eq!(content(&space, "restored", "/dev/old"), first);
    space.delete("volumesnapshot/cut");
    let left = cluster.kubectl(&["get", "volumesnapshotcontents,localsnapshots", "-o", "name"]);
    let left = left.unwrap();
    let uid = content_name.trim_start_matches("snapcontent-");
    assert!(!uid.is_empty() && !left.contains(uid), "{left}");
    space.finish();
}

#[test]
fn a_snapshot_that_was_retained_is_given_to_another_namespace() {
    let cluster = without_upstream();
    let mut space = Namespace::new(cluster, "given");
    with_app(&space);
    let first = fill(&space);
    let class = space.name.clone();
    space.apply_beside(&json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass", "metadata": {"name": class},
        "driver": "vd.csi.io", "deletionPolicy": "Retain",
    }));
    let mut cut = snapshot("cut", "disk");
    cut["spec"]["volumeSnapshotClassName"] = json!(class);
    space.apply(&[cut]);
    space.snapshot_ready("cut");
    let bound = space.field(
        "volumesnapshot/cut",
        "{.status.boundVolumeSnapshotContentName}",
    );
    let handle = kubernetes::field(
        cluster,
        &["volumesnapshotcontent", &bound],
        "{.status.snapshotHandle}",
    );
    space.delete("volumesnapshot/cut");
    let _deleted = cluster
        .kubectl(&["delete", "volumesnapshotcontent", &bound])
        .unwrap();

    // As Velero does it: the driver's snapshot is still there, and now somebody else's.
    let given = format!("given-{}", space.name);
    space.apply(&[
        json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent", "metadata": {"name": given},
            "spec": {
                "driver": "vd.csi.io", "deletionPolicy": "Delete", "source": {"snapshotHandle": handle},
                "sourceVolumeMode": "Block", "volumeSnapshotRef": {"namespace": space.name, "name": "again"},
            },
        }),
        json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"name": "again"},
            "spec": {"source": {"volumeSnapshotContentName": given}},
        }),
    ]);
    space.snapshot_ready("again");
    space.apply(&[
        Claim::new("old").block().from_snapshot("again").object(),
        Pod::new("restored").device("old").object(),
    ]);
    space.ready("restored");
    assert_eq!(content(&space, "restored", "/dev/old"), first);
    space.delete("volumesnapshot/again");
    let left = cluster
        .kubectl(&["get", "localsnapshots", "-o", "name"])
        .unwrap();
    assert!(!left.contains(&handle), "{left}");
    space.finish();
}

#[test]
fn a_namespace_that_is_deleted_with_everything_in_flight_leaves_nothing() {
    let cluster = without_upstream();
    let space = Namespace::new(cluster, "in-flight");
    with_app(&space);
    let mut objects = Vec::new();
    for index in 0..4 {
        let (cut, old) = (format!("cut-{index}"), format!("old-{index}"));
        objects.push(snapshot(&cut, "disk"));
        objects.push(Claim::new(&old).block().from_snapshot(&cut).object());
        objects.push(Pod::new(&format!("user-{index}")).device(&old).object());
    }
    space.apply(&objects);
    // Nothing is waited for: whatever has begun is now taken away.
    space.vanish();
}
