//! The life of a volume under pods.

use std::time::Duration;

use serde_json::json;
use tests::kubernetes::{Claim, Namespace, Pod, storage_class};
use tests::{capabilities, wait};

use crate::{alone, standing};

/// How long a kubelet may take to find its pods again, or to let go of a volume.
const PATIENCE: Duration = Duration::from_secs(60);

/// The size of the device of a pod, in bytes.
fn device_bytes(space: &Namespace, pod: &str, claim: &str) -> u64 {
    let told = space.sh(pod, &format!("blockdev --getsize64 /dev/{claim}"));
    told.parse().unwrap()
}

/// The size of a filesystem of a pod, in KiB.
fn filesystem_kib(space: &Namespace, pod: &str, claim: &str) -> u64 {
    let told = space.sh(
        pod,
        &format!("df -k /{claim} | tail -1 | awk '{{print $2}}'"),
    );
    told.parse().unwrap()
}

/// Deletes a pod whose mounted ext4 may not grow, and waits until its node has let go of the volume: the next mount
/// does it.
fn take_down(space: &Namespace, pod: &str, claim: &str) {
    let waits = "jsonpath={.status.conditions[?(@.type=='FileSystemResizePending')].status}=True";
    space.wait(&format!("pvc/{claim}"), waits);
    let (volume, node) = (space.volume_of(claim), space.node_of(pod));
    space.delete(&format!("pod/{pod}"));
    let nodes = space.cluster.nodes();
    let node = nodes.iter().find(|one| one.name() == node).unwrap();
    wait::until("the volume is taken down", PATIENCE, || {
        let loops = node.loops();
        loops.iter().all(|one| !one.back_file.contains(&volume))
    });
}

#[test]
fn late_bound_volumes_of_every_kind_are_written_and_grow_under_the_pod() {
    let (_standing, cluster) = standing();
    let mut space = Namespace::new(cluster, "kinds");
    let xfs = space.name.clone();
    let pod = || {
        Pod::new("app")
            .mount("ext4")
            .mount("xfs")
            .device("disk")
            .object()
    };
    space.apply_beside(&storage_class(
        &xfs,
        &json!({"csi.storage.k8s.io/fstype": "xfs"}),
    ));
    space.apply(&[
        Claim::new("ext4").object(),
        Claim::new("xfs").class(&xfs).size("320Mi").object(),
        Claim::new("disk").block().object(),
        Pod::new("app")
            .mount("ext4")
            .mount("xfs")
            .device("disk")
            .object(),
    ]);
    space.ready("app");
    for (claim, kind) in [("ext4", "ext4"), ("xfs", "xfs")] {
        let mount = format!("grep ' /{claim} ' /proc/mounts | cut -d' ' -f3");
        assert_eq!(space.sh("app", &mount), kind);
        let _wrote = space.sh("app", &format!("echo {claim} >/{claim}/file && sync"));
    }
    let _wrote = space.sh("app", "echo on the disk | dd of=/dev/disk conv=fsync");
    let before = [
        filesystem_kib(&space, "app", "ext4"),
        filesystem_kib(&space, "app", "xfs"),
    ];

    for (claim, size) in [("ext4", "128Mi"), ("xfs", "640Mi"), ("disk", "128Mi")] {
        space.grow(claim, size);
    }
    let grown = |claim: &str, size: &str| {
        let grown = format!("jsonpath={{.status.capacity.storage}}={size}");
        space.wait(&format!("pvc/{claim}"), &grown);
    };
    grown("xfs", "640Mi");
    grown("disk", "128Mi");
    if !capabilities::may_grow_mounted_ext4() {
        take_down(&space, "app", "ext4");
        space.apply(&[pod()]);
        space.ready("app");
    }
    grown("ext4", "128Mi");
    // The status says so after the node has done it: no more waiting.
    assert_eq!(device_bytes(&space, "app", "disk"), 128 << 20);
    assert!(filesystem_kib(&space, "app", "ext4") > before[0] * 3 / 2);
    assert!(filesystem_kib(&space, "app", "xfs") > before[1] * 3 / 2);
    assert_eq!(space.sh("app", "cat /ext4/file /xfs/file"), "ext4\nxfs");
    assert_eq!(space.sh("app", "head -c 11 /dev/disk"), "on the disk");
    space.finish();
}

#[test]
fn a_claim_of_the_immediate_class_is_bound_without_a_pod_and_grows_without_one() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "immediate");
    space.apply(&[
        Claim::new("data").class("vd-immediate").object(),
        Claim::new("disk").class("vd-immediate").block().object(),
    ]);
    space.bound("data");
    space.bound("disk");
    // A device needs no node to grow; a filesystem grows when a pod comes.
    space.grow("data", "128Mi");
    space.grow("disk", "128Mi");
    space.apply(&[Pod::new("app").mount("data").object()]);
    space.apply(&[Pod::new("reads").device("disk").object()]);
    space.ready("app");
    space.ready("reads");
    for claim in ["data", "disk"] {
        let grown = "jsonpath={.status.capacity.storage}=128Mi";
        space.wait(&format!("pvc/{claim}"), grown);
    }
    assert!(filesystem_kib(&space, "app", "data") > 96 << 10);
    assert_eq!(device_bytes(&space, "reads", "disk"), 128 << 20);
    assert_eq!(space.node_of("app"), space.node_of_volume("data"));
    assert_eq!(space.node_of("reads"), space.node_of_volume("disk"));
    space.finish();
}

#[test]
fn the_group_of_files_read_only_mounts_and_parts_of_a_volume_are_as_the_pods_say() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "mounts");
    space.apply(&[
        Claim::new("data").object(),
        Pod::new("writes").mount("data").as_qemu().object(),
    ]);
    space.ready("writes");
    assert_eq!(space.sh("writes", "id -u; stat -c %g /data"), "107\n107");
    let _wrote = space.sh(
        "writes",
        "mkdir /data/part && echo in it >/data/part/file && sync",
    );
    let mut source_read_only = Pod::new("source-reads").mount("data").object();
    source_read_only["spec"]["volumes"][0]["persistentVolumeClaim"]["readOnly"] = json!(true);
    space.apply(&[
        Pod::new("reads")
            .mount_with("data", &json!({"readOnly": true}))
            .object(),
        Pod::new("part")
            .mount_with("data", &json!({"subPath": "part"}))
            .object(),
        source_read_only,
    ]);
    for pod in ["reads", "source-reads"] {
        space.ready(pod);
        assert_eq!(space.sh(pod, "cat /data/part/file"), "in it");
        assert!(!space.sh_succeeds(pod, "touch /data/new"), "{pod} writes");
    }
    space.ready("part");
    assert_eq!(space.sh("part", "cat /data/file"), "in it");
    let _wrote = space.sh("part", "echo more >>/data/file");
    assert_eq!(space.sh("reads", "cat /data/part/file"), "in it\nmore");
    space.finish();
}

#[test]
fn a_raw_device_belongs_to_the_user_of_its_pod() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "owner");
    space.apply(&[
        Claim::new("disk").block().object(),
        Pod::new("qemu").device("disk").as_qemu().object(),
    ]);
    space.ready("qemu");
    assert_eq!(space.sh("qemu", "stat -c %u:%g /dev/disk"), "107:107");
    let _wrote = space.sh("qemu", "echo mine | dd of=/dev/disk conv=fsync,notrunc");
    assert_eq!(space.sh("qemu", "head -c 4 /dev/disk"), "mine");
    // A second pod of another user has the same device at the same time: KubeVirt hotplugs disks so.
    space.apply(&[Pod::new("root").device("disk").object()]);
    space.ready("root");
    assert_eq!(
        space.sh("root", "stat -c %u /dev/disk; head -c 4 /dev/disk"),
        "0\nmine"
    );
    let device = "stat -c %t:%T /dev/disk";
    assert_eq!(space.sh("root", device), space.sh("qemu", device));
    space.delete("pod/root");
    assert_eq!(space.sh("qemu", "head -c 4 /dev/disk"), "mine");
    space.finish();
}

#[test]
fn an_ephemeral_volume_goes_with_its_pod() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "ephemeral");
    let template = json!({"spec": Claim::new("unused").spec()});
    let source = json!({"ephemeral": {"volumeClaimTemplate": template}});
    space.apply(&[Pod::new("app").volume("scratch", &source).object()]);
    space.ready("app");
    let _wrote = space.sh("app", "echo x >/scratch/file");
    let volume = space.volume_of("app-scratch");
    space.delete("pod/app");
    cluster
        .wait_for(&format!("localvolume/{volume}"), "delete", &[])
        .unwrap();
    space.finish();
}

#[test]
fn a_stateful_set_keeps_each_replica_s_volume_on_two_nodes() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "stateful");
    let mut pod = Pod::new("db").spec();
    pod["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    pod["topologySpreadConstraints"] = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "db"}},
    }]);
    space.apply(&[json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
        "spec": {
            "replicas": 3, "serviceName": "db", "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": pod},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": Claim::new("unused").spec()}],
        },
    })]);
    let replicas = ["db-0", "db-1", "db-2"];
    let all_ready = "jsonpath={.status.readyReplicas}=3";
    space.wait("statefulset/db", all_ready);
    for pod in replicas {
        let _wrote = space.sh(pod, "hostname >/data/whose && sync");
    }
    let places = replicas.map(|pod| space.node_of(pod));
    assert!(
        places.contains(&"node-1".into()) && places.contains(&"node-2".into()),
        "{places:?}"
    );
    // Also by force, which does not wait for the node.
    let _deleted = space.kubectl(&["delete", "pod", "-l", "app=db", "--force"]);
    for pod in replicas {
        space.wait(&format!("pod/{pod}"), "create");
        space.ready(pod);
        assert_eq!(space.sh(pod, "cat /data/whose"), pod);
    }
    assert_eq!(replicas.map(|pod| space.node_of(pod)), places);
    space.finish();
}

#[test]
fn a_retained_volume_outlives_its_claim_and_is_taken_over_by_hand() {
    let (_standing, cluster) = standing();
    let mut space = Namespace::new(cluster, "retain");
    let class = space.name.clone();
    let mut retained = storage_class(&class, &json!({}));
    retained["reclaimPolicy"] = json!("Retain");
    space.apply_beside(&retained);
    space.apply(&[
        Claim::new("data").class(&class).object(),
        Pod::new("app").mount("data").object(),
    ]);
    space.ready("app");
    let _wrote = space.sh("app", "echo kept >/data/file && sync");
    let volume = space.volume_of("data");
    let pv = format!("persistentvolume/{volume}");
    space.delete("pod/app");
    space.delete("pvc/data");
    space.wait(&pv, "jsonpath={.status.phase}=Released");

    // Released and taken again.
    let free = r#"[{"op": "remove", "path": "/spec/claimRef"}]"#;
    let _freed = space.kubectl(&["patch", &pv, "--type=json", "-p", free]);
    space.apply(&[
        Claim::new("again").class(&class).volume(&volume).object(),
        Pod::new("second").mount("again").object(),
    ]);
    space.ready("second");
    assert_eq!(space.sh("second", "cat /again/file"), "kept");
    space.delete("pod/second");
    space.delete("pvc/again");

    // The persistent volume lost, and written anew by hand: a static volume.
    let old = space.object(&pv);
    space.delete(&pv);
    let name = format!("by-hand-{class}");
    let mut spec = old["spec"].clone();
    let _old_claim = spec.as_object_mut().unwrap().remove("claimRef");
    spec["storageClassName"] = json!("");
    let mut by_hand = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec,
    });
    // A provisioner deletes only what it says it has provisioned.
    by_hand["metadata"]["annotations"] = json!({"pv.kubernetes.io/provisioned-by": "vd.csi.io"});
    space.apply_beside(&by_hand);
    space.apply(&[
        Claim::new("static").class("").volume(&name).object(),
        Pod::new("third").mount("static").object(),
    ]);
    space.ready("third");
    assert_eq!(space.sh("third", "cat /static/file"), "kept");

    let delete = r#"{"spec": {"persistentVolumeReclaimPolicy": "Delete"}}"#;
    let _patched = space.kubectl(&["patch", &format!("persistentvolume/{name}"), "-p", delete]);
    space.finish();
}

#[test]
fn data_is_there_after_a_pod_was_restarted_forced_away_and_its_kubelet_killed() {
    let (_alone, cluster) = alone();
    let space = Namespace::new(cluster, "restarts");
    // A first process ends by no signal that it has not asked for.
    let until_told = "trap 'exit 0' TERM; sleep 1000000 & wait";
    let pod = || {
        Pod::new("app")
            .mount("data")
            .device("disk")
            .runs(until_told)
            .restarts()
            .object()
    };
    space.apply(&[
        Claim::new("data").object(),
        Claim::new("disk").block().object(),
        pod(),
    ]);
    space.ready("app");
    let script =
        "echo in the file >/data/file; echo on the disk | dd of=/dev/disk conv=fsync; sync";
    let _wrote = space.sh("app", script);
    let intact = |when: &str| {
        let told = space.sh("app", "cat /data/file; head -c 11 /dev/disk");
        assert_eq!(told, "in the file\non the disk", "after {when}");
    };
    // The container alone.
    let _killed = space.sh_succeeds("app", "kill -TERM 1");
    space.wait(
        "pod/app",
        "jsonpath={.status.containerStatuses[0].restartCount}=1",
    );
    space.ready("app");
    intact("its container's end");
    // The pod, and the pod by force: the next one comes while the node still takes the first down.
    for how in [&["--wait=true"][..], &["--force", "--grace-period=0"]] {
        let _deleted = space.kubectl(&[&["delete", "pod", "app"], how].concat());
        space.apply(&[pod()]);
        space.ready("app");
        intact(how[0]);
    }
    // kubelet, under a pod that goes on.
    let number = if space.node_of("app") == "node-1" {
        1
    } else {
        2
    };
    let node = cluster.node(number).unwrap();
    node.kill_kubelet().unwrap();
    node.start_kubelet().unwrap();
    node.wait_ready().unwrap();
    // It is ready before it has found all of its pods again.
    wait::until("kubelet knows its pods again", PATIENCE, || {
        space.sh_succeeds("app", "true")
    });
    intact("kubelet's end");
    // And one that finds its pod deleted when it starts.
    node.kill_kubelet().unwrap();
    let _deleted = space.kubectl(&["delete", "pod", "app", "--force", "--grace-period=0"]);
    node.start_kubelet().unwrap();
    node.wait_ready().unwrap();
    space.apply(&[pod()]);
    space.ready("app");
    intact("kubelet's end under a deleted pod");
    space.finish();
}
