//! A node whose disk is not the one it had, and two agents who want the same one.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tests::cluster::{Cluster, Node};
use tests::kubernetes::{DRIVER, Namespace};
use tests::wait;

use super::stage::{
    alone, condition, data, is_orphan, is_read_again, is_ready, rolled_out, standing, watch,
    written,
};

/// How long an agent may take to look at its pool and say what it found.
const LOOKS: Duration = Duration::from_secs(110);

/// Watches the node's pool until it is ready, or is not for `reason`.
#[track_caller]
fn pool_is(cluster: &Cluster, node: &Node, reason: &str) -> Value {
    watch(cluster, "localpool", &node.name(), reason, |pool| {
        let ready = condition(pool, "Ready");
        ready["reason"] == reason && (ready["status"] == "True") == (reason == "Open")
    })
}

/// Has the node go on with the disk it has now.
#[track_caller]
fn accept_disk(cluster: &Cluster, node: &Node) {
    let _deleted = cluster
        .kubectl(&["delete", "localpool", &node.name()])
        .unwrap();
    let _open = pool_is(cluster, node, "Open");
}

#[test]
fn a_wiped_disk_is_taken_only_when_an_administrator_says_so_and_the_right_one_is_welcome_back() {
    let (_alone, cluster) = alone();
    let space = Namespace::new(cluster, "wiped");
    let node = cluster.node(2).unwrap();
    let kept = written(&space, "kept", Some(&node));

    node.power_off().unwrap();
    node.replace_disk().unwrap();
    node.power_on().unwrap();
    let pool = pool_is(cluster, &node, "PoolMissing");
    assert_eq!(pool["status"]["availableBytes"], 0);
    assert_eq!(entries(&node.pool()), [] as [PathBuf; 0]);

    // With the other disk: what was on the first one is missing, and nothing is made in its place.
    accept_disk(cluster, &node);
    is_missing(cluster, &node, &kept);
    let new = written(&space, "new", Some(&node));

    node.power_off().unwrap();
    node.return_disk().unwrap();
    node.power_on().unwrap();
    let _wrong = pool_is(cluster, &node, "WrongPool");
    accept_disk(cluster, &node);
    let _ready = watch(cluster, "localvolume", &kept, "it is back", is_ready);
    is_read_again(&space, "kept");
    // Who gives up what the other disk had can do so without it.
    is_missing(cluster, &node, &new);
    space.delete("pod/new");
    space.delete("pvc/new");
    cluster
        .wait_for(&format!("localvolume/{new}"), "delete", &[])
        .unwrap();
    rolled_out(cluster);
    space.clear();
}

/// Watches until a volume says that its data is missing; nothing was made in its place.
#[track_caller]
fn is_missing(cluster: &Cluster, node: &Node, volume: &str) {
    let told = watch(cluster, "localvolume", volume, "it is told", |one| {
        one["status"]["state"] == "DataMissing"
    });
    assert_ne!(condition(&told, "Ready")["status"], "True", "{told:#}");
    assert!(!data(node, volume).exists());
}

#[test]
fn nodes_that_have_each_other_s_disks_touch_nothing_and_go_on_when_each_has_its_own() {
    let (_alone, cluster) = alone();
    let space = Namespace::new(cluster, "exchanged");
    let nodes = [cluster.node(1).unwrap(), cluster.node(2).unwrap()];
    let [one, two] = &nodes;
    let volumes = [
        written(&space, "one", Some(one)),
        written(&space, "two", Some(two)),
    ];
    off(&nodes);
    one.exchange_disks(two).unwrap();
    on(&nodes);
    for (node, others) in nodes.iter().zip(volumes.iter().rev()) {
        let pool = pool_is(cluster, node, "WrongPool");
        let message = condition(&pool, "Ready")["message"].as_str().unwrap();
        assert!(message.contains("another disk is mounted"), "{message}");
        assert_eq!(pool["status"]["availableBytes"], 0);
        // Neither is what lies there taken for the node's own, nor does what is not there go.
        assert!(data(node, others).is_dir());
        assert!(!is_orphan(&pool, others), "{pool:#}");
    }
    off(&nodes);
    one.exchange_disks(two).unwrap();
    on(&nodes);
    for node in &nodes {
        let _open = pool_is(cluster, node, "Open");
    }
    for (volume, name) in volumes.iter().zip(["one", "two"]) {
        let _ready = watch(cluster, "localvolume", volume, "it is back", is_ready);
        is_read_again(&space, name);
    }
    rolled_out(cluster);
    space.clear();
}

fn off(nodes: &[Node]) {
    for node in nodes {
        node.power_off().unwrap();
    }
}

/// Both at once: csi-controller may be waited for on either.
fn on(nodes: &[Node]) {
    std::thread::scope(|threads| {
        for node in nodes {
            let _started = threads.spawn(|| node.power_on().unwrap());
        }
    });
}

/// What lies in `folder`.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The pod of an agent, once more, with a socket and a driver's name of its own.
fn second_agent(cluster: &Cluster, node: &Node) -> Value {
    let told = cluster
        .kubectl(&["get", "daemonset", "csi-node", "-n", DRIVER, "-o", "json"])
        .unwrap();
    let set: Value = serde_json::from_str(&told).unwrap();
    let mut spec = set["spec"]["template"]["spec"].clone();
    spec["nodeName"] = json!(node.name());
    spec["restartPolicy"] = json!("Never");
    let container = &mut spec["containers"][0];
    for argument in container["args"].as_array_mut().unwrap() {
        let text = argument.as_str().unwrap();
        *argument = json!(text.replace("vd.csi.io", "second.csi.io"));
    }
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        container[probe] = Value::Null;
    }
    // kubelet need not know of it.
    for volume in spec["volumes"].as_array_mut().unwrap() {
        if volume["name"] == "registration" {
            *volume = json!({"name": "registration", "emptyDir": {}});
        }
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "second-agent", "namespace": DRIVER},
        "spec": spec,
    })
}

#[test]
fn a_second_agent_on_a_pool_is_refused_and_the_first_one_goes_on() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "second");
    let node = cluster.node(1).unwrap();
    let pod = second_agent(cluster, &node);
    cluster.apply(&pod.to_string()).unwrap();
    let here = ["-n", DRIVER];
    let running = "jsonpath={.status.phase}=Running";
    cluster
        .wait_for("pod/second-agent", running, &here)
        .unwrap();
    let address = ["-n", DRIVER, "pod/second-agent"];
    let address = tests::kubernetes::field(cluster, &address, "{.status.podIP}");
    let mut said = String::new();
    let refused = wait::holds_within(LOOKS, || {
        said = readiness(&address).unwrap_or_else(|error| error.to_string());
        said.contains("owned by another running process")
    });
    assert!(refused, "{said}");
    assert!(said.starts_with("HTTP/1.1 503"), "{said}");
    // The first one makes volumes beside it, and they do not contradict each other.
    let _volume = written(&space, "data", Some(&node));
    let pool = pool_is(cluster, &node, "Open");
    assert_eq!(condition(&pool, "Ready")["status"], "True");
    let _deleted = cluster
        .kubectl(&["delete", "pod", "second-agent", "-n", DRIVER])
        .unwrap();
    assert_eq!(space.sh("data", "cat /data/file"), "kept");
    space.finish();
}

/// What the agent in the pod with this address says to the question whether it is ready.
fn readiness(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((address, 9809))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    let _length = stream.read_to_string(&mut answer)?;
    Ok(answer)
}
