//! Snapshots, restores and clones.

use tests::kubernetes::{Claim, Namespace, Pod, snapshot};

use crate::standing;

/// Fills the file and the device of the pod `app`, and returns what is in them.
fn fill(space: &Namespace) -> String {
    let script = "dd if=/dev/urandom of=/data/file bs=1M count=4 2>/dev/null; \
                  dd if=/dev/urandom of=/dev/disk bs=1M count=4 conv=fsync 2>/dev/null; sync";
    let _wrote = space.sh("app", script);
    content(space, "app", "/data/file /dev/disk")
}

fn content(space: &Namespace, pod: &str, files: &str) -> String {
    let script = format!("for one in {files}; do head -c 4194304 $one | sha256sum; done");
    space.sh(pod, &script)
}

/// The pod `app` with a filesystem and a device.
fn with_app(space: &Namespace, node: &str) {
    space.apply(&[
        Claim::new("data").object(),
        Claim::new("disk").block().object(),
        Pod::new("app")
            .mount("data")
            .device("disk")
            .on(node)
            .object(),
    ]);
    space.ready("app");
}

#[test]
fn a_running_pod_s_volumes_are_snapshotted_restored_and_cloned_on_their_node() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "copies");
    with_app(&space, "node-2");
    let first = fill(&space);
    space.apply(&[snapshot("data-1", "data"), snapshot("disk-1", "disk")]);
    space.snapshot_ready("data-1");
    space.snapshot_ready("disk-1");
    assert_eq!(
        space.field("volumesnapshot/disk-1", "{.status.restoreSize}"),
        "64Mi"
    );
    let second = fill(&space);
    assert_ne!(first, second);

    // Late bound, and larger than the source: the filesystem is as large as its claim.
    space.apply(&[
        Claim::new("data-old")
            .size("128Mi")
            .from_snapshot("data-1")
            .object(),
        Claim::new("disk-old")
            .size("128Mi")
            .block()
            .from_snapshot("disk-1")
            .object(),
        Pod::new("restored")
            .mount("data-old")
            .device("disk-old")
            .object(),
        Claim::new("data-copy").from_claim("data").object(),
        Claim::new("disk-copy").block().from_claim("disk").object(),
        Pod::new("copy")
            .mount("data-copy")
            .device("disk-copy")
            .object(),
    ]);
    space.ready("restored");
    space.ready("copy");
    assert_eq!(
        content(&space, "restored", "/data-old/file /dev/disk-old"),
        first
    );
    assert_eq!(
        content(&space, "copy", "/data-copy/file /dev/disk-copy"),
        second
    );
    assert_eq!(space.node_of("restored"), "node-2");
    assert_eq!(space.node_of("copy"), "node-2");
    assert_eq!(
        space.sh("restored", "blockdev --getsize64 /dev/disk-old"),
        "134217728"
    );
    let kib: u64 = space
        .sh("restored", "df -k /data-old | tail -1 | awk '{print $2}'")
        .parse()
        .unwrap();
    assert!(kib > 100 << 10, "{kib} KiB");
    // The source goes on under its own pod.
    assert_eq!(content(&space, "app", "/data/file /dev/disk"), second);
    space.finish();
}

#[test]
fn a_copy_that_is_bound_at_once_is_on_its_source_s_node() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "at-once");
    with_app(&space, "node-1");
    let now = fill(&space);
    space.apply(&[snapshot("disk-1", "disk")]);
    let class = "vd-immediate";
    space.apply(&[
        Claim::new("disk-old")
            .class(class)
            .block()
            .from_snapshot("disk-1")
            .object(),
        Claim::new("data-copy")
            .class(class)
            .from_claim("data")
            .object(),
    ]);
    space.bound("data-copy");
    space.snapshot_ready("disk-1");
    space.bound("disk-old");
    for claim in ["disk-old", "data-copy"] {
        assert_eq!(space.node_of_volume(claim), "node-1", "{claim}");
    }
    space.apply(&[Pod::new("reads")
        .mount("data-copy")
        .device("disk-old")
        .object()]);
    space.ready("reads");
    assert_eq!(
        content(&space, "reads", "/data-copy/file /dev/disk-old"),
        now
    );
    space.clear();
}

#[test]
fn a_clone_for_a_pod_that_is_pinned_elsewhere_says_so_and_comes_when_the_pod_lets_go() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "pinned");
    with_app(&space, "node-2");
    let now = fill(&space);
    space.apply(&[
        Pod::new("user")
            .mount("data-copy")
            .device("disk-copy")
            .on("node-1")
            .object(),
        Claim::new("data-copy").from_claim("data").object(),
        Claim::new("disk-copy").block().from_claim("disk").object(),
    ]);
    let told = space.event("data-copy", "BoundToSourceNode", "node-2");
    assert!(told.contains("pinned to another"), "{told}");
    let _told = space.event("user", "FailedScheduling", "node");
    space.delete("pod/user");
    space.apply(&[Pod::new("user")
        .mount("data-copy")
        .device("disk-copy")
        .object()]);
    space.ready("user");
    assert_eq!(space.node_of("user"), "node-2");
    assert_eq!(
        content(&space, "user", "/data-copy/file /dev/disk-copy"),
        now
    );
    space.clear();
}

#[test]
fn source_snapshot_and_restore_can_be_deleted_in_any_order() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "orders");
    let things = ["pvc/source", "volumesnapshot/cut", "pvc/restored"];
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    let names = |index: usize| ["source", "cut", "restored"].map(|name| format!("{name}-{index}"));
    let class = "vd-immediate";
    for index in 0..orders.len() {
        let [source, cut, restored] = names(index);
        space.apply(&[Claim::new(&source).class(class).block().object()]);
        // Only then: whoever serves snapshots writes to their claims, and kube-controller-manager, which may be binding one just
        // then, calls that a failure.
        space.bound(&source);
        space.apply(&[snapshot(&cut, &source)]);
        // Only then: a restore of a snapshot that is not ready fails and is tried again.
        space.snapshot_ready(&cut);
        space.apply(&[Claim::new(&restored)
            .class(class)
            .block()
            .from_snapshot(&cut)
            .object()]);
        space.bound(&restored);
    }
    for (index, order) in orders.iter().enumerate() {
        for thing in order {
            space.delete(&format!("{}-{index}", things[*thing]));
        }
    }
    space.finish();
}

#[test]
fn a_namespace_that_is_deleted_with_everything_in_flight_leaves_nothing() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "in-flight");
    with_app(&space, "node-1");
    let mut objects = Vec::new();
    for index in 0..4 {
        let (fresh, cut, copy) = (
            format!("fresh-{index}"),
            format!("cut-{index}"),
            format!("copy-{index}"),
        );
        objects.push(Claim::new(&fresh).class("vd-immediate").object());
        objects.push(snapshot(&cut, if index % 2 == 0 { "data" } else { "disk" }));
        objects.push(Claim::new(&copy).from_claim("data").object());
        objects.push(
            Claim::new(&format!("old-{index}"))
                .from_snapshot(&cut)
                .object(),
        );
        objects.push(Pod::new(&format!("user-{index}")).mount(&copy).object());
    }
    space.grow("data", "128Mi");
    space.grow("disk", "128Mi");
    space.apply(&objects);
    // Nothing is waited for: whatever has begun is now taken away.
    space.vanish();
}
