//! What CDI does with claims, persistent volumes and pods when it uploads, imports and clones disks, object by object.
//!
//! One event `ProvisioningFailed` on any of these claims is an upload that has failed: every test ends with
//! [`Namespace::finish`], which allows none.

use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use tests::cluster::Cluster;
use tests::kubernetes::{Claim, Namespace, Pod, snapshot};

use crate::standing;

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// A disk of 1 GiB.
const DISK: u64 = 1 << 30;
/// What CDI asks for so that a filesystem has room for it: 1.06 times as much, rounded up to a byte.
const INFLATED: &str = "1138166334";

/// The claim that a person wants: its content comes from one of CDI's own objects, which no provisioner knows.
fn target(name: &str, kind: &str, claim: Claim) -> Value {
    let mut object = claim.object();
    object["metadata"]["name"] = json!(name);
    object["spec"]["dataSourceRef"] =
        json!({"apiGroup": "cdi.kubevirt.io", "kind": kind, "name": name});
    object
}

/// Gives the volume of `from` to the claim `to`, as CDI does at the end of everything: `from` is Lost then, and deleted.
fn rebind(space: &Namespace, from: &str, to: &str) {
    rebind_across(space, from, space, to);
}

/// The same, from one namespace to another.
fn rebind_across(here: &Namespace, from: &str, there: &Namespace, to: &str) {
    let target = there.object(&format!("pvc/{to}"));
    let reference = json!({"spec": {"claimRef": {
        "namespace": there.name, "name": to, "uid": target["metadata"]["uid"],
        "resourceVersion": target["metadata"]["resourceVersion"],
    }}});
    let pv = format!("persistentvolume/{}", here.volume_of(from));
    let _patched = here.kubectl(&["patch", &pv, "-p", &reference.to_string()]);
    there.bound(to);
    here.wait(&format!("pvc/{from}"), "jsonpath={.status.phase}=Lost");
    here.delete(&format!("pvc/{from}"));
}

/// The node that a claim is to be made on; empty while nobody has chosen one.
fn selected_node(space: &Namespace, claim: &str) -> String {
    let field = "{.metadata.annotations.volume\\.kubernetes\\.io/selected-node}";
    space.field(&format!("pvc/{claim}"), field)
}

/// Waits until a claim is to be made on a node.
fn selected(space: &Namespace, claim: &str, node: &str) {
    let field = "{.metadata.annotations.volume\\.kubernetes\\.io/selected-node}";
    space.wait(&format!("pvc/{claim}"), &format!("jsonpath={field}={node}"));
}

fn succeeded(space: &Namespace, pod: &str) {
    let phase = "jsonpath={.status.phase}=Succeeded";
    space.wait(&format!("pod/{pod}"), phase);
}

/// An upload: a prime claim and a scratch claim, made at once for the node that the target's consumer was scheduled to,
/// and a pod that is nailed to it.
fn upload(space: &Namespace, name: &str, prime: Claim, pod_of: impl FnOnce(Pod, &str) -> Pod) {
    let node = "node-2";
    let uid = space.field(&format!("pvc/{name}"), "{.metadata.uid}");
    let prime_name = format!("prime-{uid}");
    let scratch = format!("{prime_name}-scratch");
    let mut prime = prime.annotation(SELECTED_NODE, node).object();
    prime["metadata"]["name"] = json!(prime_name);
    let scratch_claim = Claim::new(&scratch)
        .size(INFLATED)
        .annotation(SELECTED_NODE, node);
    let pod = Pod::new(&format!("upload-{name}"))
        .as_qemu()
        .nailed_to(node);
    space.apply(&[
        prime,
        scratch_claim.object(),
        pod_of(pod.mount(&scratch), &prime_name).object(),
    ]);
    succeeded(space, &format!("upload-{name}"));
    space.delete(&format!("pod/upload-{name}"));
    space.delete(&format!("pvc/{scratch}"));
    rebind(space, &prime_name, name);
}

#[test]
fn an_upload_to_a_block_volume() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "upload-block");
    let claim = || Claim::new("vm").block().size("1Gi");
    space.apply(&[target("vm", "VolumeUploadSource", claim())]);
    upload(&space, "vm", claim(), |pod, prime| {
        let script = format!(
            "[ $(blockdev --getsize64 /dev/{prime}) -ge {DISK} ]
             dd if=/dev/zero of=/{prime}-scratch/tmpimage bs=1M count=16
             echo the image >/{prime}-scratch/tmpimage && sync
             dd if=/{prime}-scratch/tmpimage of=/dev/{prime} conv=fsync,notrunc"
        );
        pod.device(prime).runs(&script)
    });
    space.apply(&[Pod::new("launcher").device("vm").as_qemu().object()]);
    space.ready("launcher");
    assert_eq!(space.node_of("launcher"), "node-2");
    assert_eq!(space.sh("launcher", "head -c 9 /dev/vm"), "the image");
    space.finish();
}

#[test]
fn an_upload_to_a_filesystem_has_room_for_the_whole_disk() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "upload-fs");
    let claim = || Claim::new("vm").size(INFLATED);
    space.apply(&[target("vm", "VolumeUploadSource", claim())]);
    upload(&space, "vm", claim(), |pod, prime| {
        let script = format!(
            "[ $(( $(stat -f -c '%a * %S' /{prime}) )) -ge {DISK} ]
             truncate -s {DISK} /{prime}/disk.img
             echo the image | dd of=/{prime}/disk.img conv=fsync,notrunc
             chmod 0660 /{prime}/disk.img"
        );
        pod.mount(prime).runs(&script)
    });
    space.apply(&[Pod::new("launcher").mount("vm").as_qemu().object()]);
    space.ready("launcher");
    assert_eq!(space.sh("launcher", "head -c 9 /vm/disk.img"), "the image");
    assert_eq!(space.sh("launcher", "stat -c %g /vm/disk.img"), "107");
    space.finish();
}

#[test]
fn the_ten_mebibytes_of_a_virtual_tpm_are_a_filesystem_that_can_be_written() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "tpm");
    space.apply(&[
        Claim::new("persistent-state-for-vm").size("10Mi").object(),
        Pod::new("launcher")
            .mount_with("persistent-state-for-vm", &json!({"subPath": "swtpm"}))
            .as_qemu()
            .object(),
    ]);
    space.ready("launcher");
    let folder = "/persistent-state-for-vm";
    let script = format!("dd if=/dev/urandom of={folder}/state bs=64k count=4 && sync");
    let _wrote = space.sh("launcher", &script);
    assert_eq!(
        space.sh("launcher", &format!("stat -c %s {folder}/state")),
        "262144"
    );
    space.finish();
}

/// A source with content, which nobody uses any more when it is cloned.
fn source(space: &Namespace, name: &str) {
    space.apply(&[
        Claim::new(name).block().size(INFLATED).object(),
        Pod::new("fills")
            .device(name)
            .as_qemu()
            .runs(&format!(
                "echo golden | dd of=/dev/{name} conv=fsync,notrunc"
            ))
            .object(),
    ]);
    succeeded(space, "fills");
    space.delete("pod/fills");
}

/// What makes a claim of a late-binding class bound, and larger where that is wanted: CDI's prep pod, which goes past the
/// scheduler to the node that the claim names when the pod is made, if it names one.
fn prepare(space: &Namespace, claim: &str, larger: Option<&str>) {
    if let Some(size) = larger {
        space.grow(claim, size);
    }
    let mut pod = Pod::new("prep").device(claim).as_qemu();
    let node = selected_node(space, claim);
    if !node.is_empty() {
        pod = pod.nailed_to(&node);
    }
    space.apply(&[pod.object()]);
    space.ready("prep");
    if let Some(size) = larger {
        let grown = format!("jsonpath={{.status.capacity.storage}}={size}");
        space.wait(&format!("pvc/{claim}"), &grown);
    }
    space.delete("pod/prep");
}

fn cloned(space: &Namespace, name: &str, bytes: u64) {
    space.apply(&[Pod::new("launcher").device(name).as_qemu().object()]);
    space.ready("launcher");
    assert_eq!(
        space.sh("launcher", &format!("head -c 6 /dev/{name}")),
        "golden"
    );
    let size: u64 = space
        .sh("launcher", &format!("blockdev --getsize64 /dev/{name}"))
        .parse()
        .unwrap();
    assert!(size >= bytes, "{size} of {bytes}");
}

#[test]
fn a_clone_by_claim_whose_source_is_deleted_right_after() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "csi-clone");
    source(&space, "golden");
    space.apply(&[target(
        "vm",
        "VolumeCloneSource",
        Claim::new("vm").block().size("2Gi"),
    )]);
    let capacity = space.field("pvc/golden", "{.status.capacity.storage}");
    space.apply(&[Claim::new("tmp-pvc")
        .block()
        .size(&capacity)
        .from_claim("golden")
        .object()]);
    space.bound("tmp-pvc");
    prepare(&space, "tmp-pvc", Some("2Gi"));
    rebind(&space, "tmp-pvc", "vm");
    space.delete("pvc/golden");
    cloned(&space, "vm", 2 << 30);
    space.finish();
}

#[test]
fn a_clone_by_snapshot_whose_source_and_snapshot_are_deleted_right_after() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "snap-clone");
    source(&space, "golden");
    space.apply(&[
        target(
            "vm",
            "VolumeCloneSource",
            Claim::new("vm").block().size(INFLATED),
        ),
        snapshot("tmp-snapshot", "golden"),
    ]);
    space.wait(
        "volumesnapshot/tmp-snapshot",
        "jsonpath={.status.creationTime}",
    );
    // A golden image's claim is deleted when its snapshot is ready.
    space.snapshot_ready("tmp-snapshot");
    space.delete("pvc/golden");
    let size = space.field("volumesnapshot/tmp-snapshot", "{.status.restoreSize}");
    space.apply(&[Claim::new("tmp-pvc")
        .block()
        .size(&size)
        .from_snapshot("tmp-snapshot")
        .object()]);
    prepare(&space, "tmp-pvc", None);
    rebind(&space, "tmp-pvc", "vm");
    space.delete("volumesnapshot/tmp-snapshot");
    cloned(&space, "vm", 1_138_166_334);
    space.finish();
}

/// The kind that says what CDI has to clone. Only what CDI's own definition says of its name; what is in it is of no matter to
/// the API server.
fn volume_clone_source() -> Value {
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "volumeclonesources.cdi.kubevirt.io"},
        "spec": {
            "group": "cdi.kubevirt.io",
            "names": {
                "kind": "VolumeCloneSource", "listKind": "VolumeCloneSourceList",
                "plural": "volumeclonesources", "singular": "volumeclonesource",
            },
            "scope": "Namespaced",
            "versions": [{
                "name": "v1beta1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": anything},
            }],
        },
    })
}

/// Whoever installs that definition takes it away again: one test after the other.
static ONE_DEFINITION: Mutex<()> = Mutex::new(());

/// What says which claim CDI has to clone, beside that claim.
fn clone_source(name: &str, golden: &str) -> Value {
    json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1",
        "kind": "VolumeCloneSource",
        "metadata": {"name": name},
        "spec": {"source": {"kind": "PersistentVolumeClaim", "name": golden}},
    })
}

/// A golden image in a namespace of its own, a namespace for its clone, and the node that the image is on.
fn golden_and_clone(cluster: &'static Cluster) -> (Namespace, Namespace, String) {
    let golden = Namespace::new(cluster, "golden");
    let mut space = Namespace::new(cluster, "cloned-to");
    let definition = volume_clone_source();
    space.apply_beside(&definition);
    let name = definition["metadata"]["name"].as_str().unwrap();
    space.wait(&format!("crd/{name}"), "condition=Established");
    source(&golden, "golden");
    let node = golden.node_of_volume("golden");
    (golden, space, node)
}

/// The claim of a virtual machine whose disk is cloned from another namespace.
fn cloned_target(golden: &Namespace) -> Value {
    let claim = Claim::new("vm")
        .block()
        .size(INFLATED)
        .annotation("cdi.kubevirt.io/dataSourceNamespace", &golden.name);
    target("vm", "VolumeCloneSource", claim)
}

/// What CDI does once the target of a clone has a node: it copies that to a claim of its own beside the source.
fn clone_across(golden: &Namespace, space: &Namespace) {
    let capacity = golden.field("pvc/golden", "{.status.capacity.storage}");
    golden.apply(&[Claim::new("tmp-pvc")
        .block()
        .size(&capacity)
        .from_claim("golden")
        .annotation(SELECTED_NODE, &selected_node(space, "vm"))
        .object()]);
    prepare(golden, "tmp-pvc", None);
    rebind_across(golden, "tmp-pvc", space, "vm");
    golden.delete("pvc/golden");
}

#[test]
fn the_target_of_a_clone_from_another_namespace_goes_to_its_source_s_node() {
    let (_standing, cluster) = standing();
    let _alone = ONE_DEFINITION
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let (golden, space, node) = golden_and_clone(cluster);
    // In this order: the target is there before what names its source.
    space.apply(&[cloned_target(&golden)]);
    golden.apply(&[clone_source("vm", "golden")]);
    selected(&space, "vm", &node);
    clone_across(&golden, &space);
    cloned(&space, "vm", 1_138_166_334);
    assert_eq!(space.node_of("launcher"), node);
    // The volume is the virtual machine's by now, and it was made for a claim beside the source.
    space.finish();
    golden.finish();
}

#[test]
fn a_scheduler_that_chose_another_node_for_a_clone_before_its_source_was_known_is_overruled() {
    let (_standing, cluster) = standing();
    let _alone = ONE_DEFINITION
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let (golden, space, node) = golden_and_clone(cluster);
    let other = if node == "node-1" { "node-2" } else { "node-1" };
    // A pod that must run on the other node is scheduled while nobody knows where the machine's disk comes from.
    let first = Pod::new("first").device("vm").on(other).object();
    space.apply(&[cloned_target(&golden), first]);
    selected(&space, "vm", other);
    space.delete("pod/first");
    golden.apply(&[clone_source("vm", "golden")]);
    selected(&space, "vm", &node);
    let told = space.event("vm", "BoundToSourceNode", &node);
    assert!(told.contains("pinned to another"), "{told}");
    space.apply(&[Pod::new("launcher").device("vm").as_qemu().object()]);
    clone_across(&golden, &space);
    space.ready("launcher");
    assert_eq!(space.node_of("launcher"), node);
    assert_eq!(space.sh("launcher", "head -c 6 /dev/vm"), "golden");
    space.finish();
    golden.finish();
}
