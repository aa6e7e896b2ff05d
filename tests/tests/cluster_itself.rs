//! The Kubernetes that other tests stand on: that it is a real one, that its nodes are apart from each other, that its
//! parts can be killed and come back, and that nothing is left of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and their folders are their own"
)]

use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tests::cluster::{self, Cluster, Component, Disk, Node, Options, TEST_IMAGE};
use tests::scratch_fs::{FsKind, GIB};
use tests::{binaries, loops, mounts, tools};

const GUARD: &str = env!("CARGO_BIN_EXE_cluster");
const KUBECTL: &str = "registry.k8s.io/kubectl:v1.36.3";

/// Tests that only add pods run together; one that stops parts of the cluster runs alone.
static STANDING: RwLock<()> = RwLock::new(());

fn standing() -> (RwLockReadGuard<'static, ()>, &'static Cluster) {
    let guard = STANDING.read().unwrap_or_else(PoisonError::into_inner);
    (guard, cluster::shared(GUARD))
}

fn alone() -> (RwLockWriteGuard<'static, ()>, &'static Cluster) {
    let guard = STANDING.write().unwrap_or_else(PoisonError::into_inner);
    (guard, cluster::shared(GUARD))
}

/// A pod on `node` that sleeps, with the node's /var/vd.
fn pod(cluster: &Cluster, name: &str, node: &Node) {
    let manifest = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: {TEST_IMAGE}
    imagePullPolicy: IfNotPresent
    command: [sleep, \"1000000\"]
    securityContext: {{privileged: true}}
    volumeMounts:
    - {{name: pool, mountPath: /var/vd, mountPropagation: Bidirectional}}
  volumes:
  - {{name: pool, hostPath: {{path: /var/vd, type: Directory}}}}
",
        node = node.name()
    );
    cluster.apply(&manifest).unwrap();
    let pod = format!("pod/{name}");
    cluster.wait_for(&pod, "condition=Ready", &[]).unwrap();
}

fn in_pod(cluster: &Cluster, pod: &str, words: &[&str]) -> String {
    let exec = [&["exec", pod, "--"], words].concat();
    cluster.kubectl(&exec).unwrap()
}

fn question(cluster: &Cluster, object: &str, path: &str) -> String {
    let path = format!("jsonpath={path}");
    cluster.kubectl(&["get", object, "-o", &path]).unwrap()
}

fn gone(cluster: &Cluster, pod: &str) {
    let _deleted = cluster.kubectl(&["delete", "pod", pod]).unwrap();
}

#[test]
fn a_pod_reaches_the_api_server_with_its_own_token() {
    let (_standing, cluster) = standing();
    cluster.import_program("kubectl", KUBECTL).unwrap();
    for node in cluster.nodes() {
        let name = format!("asks-{}", node.name());
        let manifest = format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {node}
  restartPolicy: Never
  securityContext: {{runAsUser: 107, runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
  - {{name: main, image: \"{KUBECTL}\", args: [auth, whoami, -o, \"jsonpath={{.status.userInfo}}\"]}}
",
            node = node.name()
        );
        cluster.apply(&manifest).unwrap();
        let succeeded = "jsonpath={.status.phase}=Succeeded";
        cluster
            .wait_for(&format!("pod/{name}"), succeeded, &[])
            .unwrap();
        let answer = cluster.kubectl(&["logs", &name]).unwrap();
        assert!(
            answer.contains("system:serviceaccount:default:default"),
            "{answer}"
        );
        // The claim by which an agent is tied to its node.
        let claim = format!(
            "\"authentication.kubernetes.io/node-name\":[\"{}\"]",
            node.name()
        );
        assert!(answer.contains(&claim), "{answer}");
        gone(cluster, &name);
    }
}

#[test]
fn each_node_has_a_disk_and_mounts_of_its_own() {
    let (_standing, cluster) = standing();
    let (one, two) = (cluster.node(1).unwrap(), cluster.node(2).unwrap());
    pod(cluster, "own-1", &one);
    pod(cluster, "own-2", &two);
    for (name, text) in [("own-1", "first"), ("own-2", "second")] {
        let script = format!(
            "echo {text} >/var/vd/whose; mkdir /var/vd/inner; mount -t tmpfs {text} /var/vd/inner"
        );
        let _quiet = in_pod(cluster, name, &["sh", "-c", &script]);
    }
    // The file is on the node's disk, and the mount has come through to the node, but not to the other or the host.
    for (node, text) in [(&one, "first"), (&two, "second")] {
        let whose = std::fs::read_to_string(node.pool().join("whose")).unwrap();
        assert_eq!(whose.trim(), text);
        let seen = node.run(&["cat", "/proc/self/mountinfo"]).unwrap().ok();
        let inner: Vec<&str> = seen
            .lines()
            .filter(|line| line.contains("/var/vd/inner"))
            .collect();
        assert!(
            matches!(inner[..], [only] if only.contains(text)),
            "{inner:#?}"
        );
        assert_eq!(mounts::below(&node.pool()).len(), 1);
    }
    for name in ["own-1", "own-2"] {
        let _quiet = in_pod(cluster, name, &["umount", "/var/vd/inner"]);
        let _quiet = in_pod(cluster, name, &["rmdir", "/var/vd/inner"]);
        gone(cluster, name);
    }
}

#[test]
fn pods_go_on_while_kubelet_containerd_and_the_api_server_are_killed() {
    let (_alone, cluster) = alone();
    let node = cluster.node(1).unwrap();
    pod(cluster, "goes-on", &node);
    node.kill_kubelet().unwrap();
    node.kill_containerd().unwrap();
    for component in Component::ALL {
        cluster.kill_component(component).unwrap();
    }
    let processes = node.run(&["ps", "ax"]).unwrap().ok();
    assert!(processes.contains("sleep 1000000"), "{processes}");
    for component in Component::ALL {
        cluster.start_component(component).unwrap();
    }
    node.start_containerd().unwrap();
    node.start_kubelet().unwrap();
    node.wait_ready().unwrap();
    pod(cluster, "comes-after", &node);
    let restarts = question(
        cluster,
        "pod/goes-on",
        "{.status.containerStatuses[0].restartCount}",
    );
    assert_eq!(restarts, "0");
    gone(cluster, "goes-on");
    gone(cluster, "comes-after");
}

#[test]
fn a_reboot_ends_every_process_and_mount_and_keeps_the_disk() {
    let (_alone, cluster) = alone();
    let node = cluster.node(2).unwrap();
    pod(cluster, "survivor", &node);
    let script = "truncate -s 64M /var/vd/file && losetup -f /var/vd/file && sync && echo kept >/var/vd/kept";
    let _quiet = in_pod(cluster, "survivor", &["sh", "-c", script]);
    assert_eq!(node.loops().len(), 1);
    let boot = question(cluster, "node/node-2", "{.status.nodeInfo.bootID}");

    node.power_off().unwrap();
    // Other clusters on this machine have loop devices below a /var/vd of theirs.
    assert_eq!(loops::below(Path::new("/var/vd/file")), []);
    assert!(
        !node.pool().join("kept").exists(),
        "the disk is still mounted"
    );
    node.power_on().unwrap();

    assert_ne!(
        question(cluster, "node/node-2", "{.status.nodeInfo.bootID}"),
        boot
    );
    let restarted = "jsonpath={.status.containerStatuses[0].restartCount}=1";
    cluster.wait_for("pod/survivor", restarted, &[]).unwrap();
    cluster
        .wait_for("pod/survivor", "condition=Ready", &[])
        .unwrap();
    assert_eq!(
        in_pod(cluster, "survivor", &["cat", "/var/vd/kept"]),
        "kept\n"
    );
    assert_eq!(node.loops(), []);
    let _quiet = in_pod(cluster, "survivor", &["rm", "/var/vd/file", "/var/vd/kept"]);
    gone(cluster, "survivor");
}

#[test]
fn an_older_database_brings_back_what_it_knew() {
    let (_alone, cluster) = alone();
    let make = |name: &str| cluster.kubectl(&["create", "configmap", name]).unwrap();
    let _quiet = make("deleted-later");
    cluster.keep_database("before").unwrap();
    let _quiet = cluster
        .kubectl(&["delete", "configmap", "deleted-later"])
        .unwrap();
    let _quiet = make("made-later");
    cluster.restore_database("before").unwrap();
    let known = cluster
        .kubectl(&["get", "configmap", "-o", "name"])
        .unwrap();
    assert!(
        known.contains("deleted-later") && !known.contains("made-later"),
        "{known}"
    );
    for node in cluster.nodes() {
        node.wait_ready().unwrap();
    }
}

#[test]
fn nothing_is_left_of_a_cluster_whose_program_has_ended() {
    let (_standing, _other_cluster_at_the_same_time) = standing();
    let folder = binaries::project().join(format!(".cache/cluster/ended-{}", std::process::id()));
    let mut guard = cluster::guarded(GUARD, &folder).unwrap();
    let mut options = Options::new(folder.clone());
    options.snapshots = false;
    options.disks = vec![Disk {
        kind: FsKind::Btrfs,
        bytes: GIB,
    }];
    let cluster = Cluster::start(&options).unwrap();
    let running = Cluster::running(&folder).unwrap();
    assert_eq!(
        running.map(|one| one.kubeconfig()),
        Some(cluster.kubeconfig())
    );
    assert!(
        Cluster::start(&options)
            .unwrap_err()
            .to_string()
            .contains("runs already")
    );
    let node = cluster.node(1).unwrap();
    pod(&cluster, "left-alone", &node);
    // A filesystem that an agent had frozen, and a process that waits for it and cannot be killed.
    let volume = node.pool().join("volume");
    std::fs::File::create(&volume)
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    let _quiet = tools::run("mkfs.ext4", &[Path::new("-q"), &volume]);
    let script = "mkdir /var/vd/inner && mount -o loop /var/vd/volume /var/vd/inner && \
                  fsfreeze --freeze /var/vd/inner && (touch /var/vd/inner/file >/dev/null 2>&1 &)";
    let _quiet = in_pod(&cluster, "left-alone", &["sh", "-c", script]);
    assert_eq!(node.loops().len(), 1);
    assert!(cluster.residue().len() > 10, "{:#?}", cluster.residue());

    // What happens to the guard's input when this process ends.
    drop(guard.stdin.take());
    assert!(guard.wait().unwrap().success());
    assert_eq!(cluster.residue(), Vec::<String>::new());
    assert!(!Cluster::stop(&folder).unwrap());
}

#[test]
fn nothing_is_left_of_a_start_that_failed() {
    let folder = binaries::project().join(format!(".cache/cluster/failed-{}", std::process::id()));
    let mut options = Options::new(folder.clone());
    options.apiserver = vec!["--no-such-flag".to_owned()];
    let error = format!("{:#}", Cluster::start(&options).unwrap_err());
    assert!(error.contains("unknown flag: --no-such-flag"), "{error}");
    assert!(!folder.exists());
    assert_eq!(mounts::below(&folder), []);
    assert_eq!(loops::below(&folder), []);
}
