//! A cluster without the upstream snapshot-controller, and the chart with other values than the usual ones: the driver alone
//! serves its VolumeSnapshots, from request to deletion, and its values are what people set.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and their folders are their own"
)]

use std::sync::OnceLock;

use serde_json::{Value, json};
use tests::cluster::{self, Cluster};
use tests::kubernetes::{self, Claim, DRIVER, Namespace, Pod, field};
use tests::manifests::documents::render_into;

const GUARD: &str = env!("CARGO_BIN_EXE_cluster");

/// One of each that a cluster's administrator may want otherwise.
const VALUES: [&str; 10] = [
    "namespace.create=true",
    "image.repository=registry.example.org/vd-csi",
    "image.tag=other",
    "pool.directory=/var/vd/below/it",
    "pool.overcommit=2",
    "storageClasses.late.name=late.example.org",
    "storageClasses.immediate.create=false",
    "snapshotClass.name=cuts",
    "node.tolerations[0].key=disks",
    "node.tolerations[0].operator=Exists",
];
const CLASS: &str = "late.example.org";

/// The cluster of all tests here, with the shipped image and no other snapshot controller. Node 2 is tainted.
#[track_caller]
fn without_upstream() -> &'static Cluster {
    static INSTALLED: OnceLock<&'static Cluster> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let cluster = cluster::shared_with(GUARD, |options| options.snapshot_controller = false);
        let taint = ["taint", "node", "node-2", "disks=only:NoSchedule"];
        let _tainted = cluster.kubectl(&taint).unwrap();
        kubernetes::import(cluster);
        for node in cluster.nodes() {
            let tag = "/opt/cluster/ctr --namespace k8s.io images tag docker.io/library/vd-csi:";
            let version = env!("CARGO_PKG_VERSION");
            let tag = format!("{tag}{version} registry.example.org/vd-csi:other");
            let words: Vec<&str> = tag.split(' ').collect();
            let _tagged = node.run(&words).unwrap().ok();
        }
        kubernetes::deploy(cluster, &render_into(DRIVER, &VALUES).ok());
        let class = "volumesnapshotclass/cuts";
        cluster.wait_for(class, "create", &[]).unwrap();
        cluster
    })
}

fn claim(name: &str) -> Claim {
    Claim::new(name).class(CLASS)
}

fn snapshot(name: &str, claim: &str) -> Value {
    let mut cut = kubernetes::snapshot(name, claim);
    cut["spec"]["volumeSnapshotClassName"] = json!("cuts");
    cut
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
        claim("disk").block().object(),
        Pod::new("app").device("disk").object(),
    ]);
    space.ready("app");
}

#[test]
fn what_is_deployed_is_what_the_values_say() {
    let cluster = without_upstream();
    for node in cluster.nodes() {
        let pool = format!("localpool/{}", node.name());
        let promised = "{.status.conditions[?(@.type=='CapacityPromised')].reason}";
        assert_eq!(field(cluster, &[&pool], promised), "Overcommitted");
        assert!(node.pool().join("below/it/.vd-pool").exists());
        assert!(!node.pool().join(".vd-pool").exists());
    }
    let names = "{.items[*].metadata.name}";
    assert_eq!(field(cluster, &["storageclasses"], names), CLASS);
    let classes = field(cluster, &["volumesnapshotclasses"], names);
    let classes: Vec<&str> = classes.split(' ').collect();
    assert!(
        classes.contains(&"cuts") && !classes.contains(&"vd"),
        "{classes:?}"
    );
    let own = ["daemonset,deployment", "-n", DRIVER];
    let images = "{.items[*].spec.template.spec.containers[0].image}";
    let image = "registry.example.org/vd-csi:other";
    assert_eq!(field(cluster, &own, images), format!("{image} {image}"));
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
        claim("old").block().from_snapshot("cut").object(),
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
        claim("old").block().from_snapshot("again").object(),
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
        objects.push(claim(&old).block().from_snapshot(&cut).object());
        objects.push(Pod::new(&format!("user-{index}")).device(&old).object());
    }
    space.apply(&objects);
    // Nothing is waited for: whatever has begun is now taken away.
    space.vanish();
}
