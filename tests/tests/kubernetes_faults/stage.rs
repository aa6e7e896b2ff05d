//! What the tests here start from: a cluster of their own with the driver in it, mostly for one test at a time, since each
//! takes something away.

use std::io::{BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{RwLockReadGuard, RwLockWriteGuard};

use serde_json::{Deserializer, Value};
use tests::cluster::{self, Cluster, Node};
use tests::kubernetes::{self, Claim, DRIVER, Namespace, Pod, field};
use tests::tools;

/// How long something that is watched may take, in seconds.
const PATIENCE: &str = "110";

/// The cluster of all tests here. The driver alone serves its VolumeSnapshots: what is tested is what it does itself.
#[track_caller]
fn cluster() -> &'static Cluster {
    let guard = env!("CARGO_BIN_EXE_cluster");
    cluster::shared_with(guard, |options| options.snapshot_controller = false)
}

/// The cluster, for this test alone.
#[track_caller]
pub(crate) fn alone() -> (RwLockWriteGuard<'static, ()>, &'static Cluster) {
    (kubernetes::alone(cluster()), cluster())
}

/// The cluster, for a test that takes nothing away from others.
#[track_caller]
pub(crate) fn standing() -> (RwLockReadGuard<'static, ()>, &'static Cluster) {
    (kubernetes::standing(cluster()), cluster())
}

/// Watches the object `name` of `kind` (of the driver's namespace, if it has one) until `holds`, and returns it.
#[track_caller]
pub(crate) fn watch(
    cluster: &Cluster,
    kind: &str,
    name: &str,
    what: &str,
    mut holds: impl FnMut(&Value) -> bool,
) -> Value {
    let kubectl = cluster.command("kubectl");
    let mut command = Command::new("timeout");
    let _command = command
        .arg(PATIENCE)
        .arg(kubectl.get_program())
        .args(["get", kind, "-n", DRIVER, "--watch", "-o", "json"])
        .arg(format!("--field-selector=metadata.name={name}"))
        .env("KUBECONFIG", cluster.kubeconfig())
        .stdout(Stdio::piped());
    let mut child = tools::start(&mut command).expect("kubectl starts");
    let output = child.stdout.take().expect("it is piped");
    let seen = first(BufReader::new(output), &mut holds);
    // Also when it has ended by itself.
    let _asked_to_end = child.kill();
    let _ended = child.wait();
    seen.unwrap_or_else(|last| panic!("{kind}/{name}: {what}: did not happen; last seen: {last:#}"))
}

/// The first object of a stream for which `holds`; else the last one.
fn first(output: impl Read, holds: &mut dyn FnMut(&Value) -> bool) -> Result<Value, Value> {
    let mut last = Value::Null;
    for object in Deserializer::from_reader(output).into_iter::<Value>() {
        let Ok(object) = object else { break };
        if holds(&object) {
            return Ok(object);
        }
        last = object;
    }
    Err(last)
}

/// The pod of the driver's `component` on `node` that is not on its way out, with its uid.
#[track_caller]
pub(crate) fn driver_pod(cluster: &Cluster, component: &str, node: &Node) -> (String, String) {
    let label = format!("app.kubernetes.io/component={component}");
    let on = format!("spec.nodeName={}", node.name());
    let told = cluster
        .kubectl(&[
            "get",
            "pods",
            "-n",
            DRIVER,
            "-l",
            &label,
            "--field-selector",
            &on,
            "-o",
            "json",
        ])
        .unwrap();
    let list: Value = serde_json::from_str(&told).unwrap();
    let pods = list["items"].as_array().cloned().unwrap_or_default();
    let stays = pods
        .iter()
        .find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let pod = stays.unwrap_or_else(|| panic!("no {component} on {}", node.name()));
    let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
    (text("name"), text("uid"))
}

/// The node that `localvolume` is on.
#[track_caller]
pub(crate) fn node_of(cluster: &Cluster, localvolume: &str) -> Node {
    let object = format!("localvolume/{localvolume}");
    let name = field(cluster, &[&object], "{.spec.nodeName}");
    let nodes = cluster.nodes();
    let found = nodes.into_iter().find(|node| node.name() == name);
    found.unwrap_or_else(|| panic!("there is no node {name}"))
}

/// The condition `type_` of an object of ours.
pub(crate) fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions
        .find(|condition| condition["type"] == type_)
        .unwrap_or(&Value::Null)
}

/// Whether a volume can be used.
pub(crate) fn is_ready(volume: &Value) -> bool {
    volume["metadata"]["deletionTimestamp"].is_null()
        && volume["status"]["state"] == "Ready"
        && condition(volume, "Ready")["status"] == "True"
}

/// Whether a pool reports that it has data of this id and no object for it.
pub(crate) fn is_orphan(pool: &Value, id: &str) -> bool {
    let orphans = pool["status"]["orphans"].as_array();
    orphans.into_iter().flatten().any(|one| one["id"] == id)
}

/// A claim and a pod of the same name, on `node` if one is given, that has written a file; returns the volume's name.
#[track_caller]
pub(crate) fn written(space: &Namespace, name: &str, node: Option<&Node>) -> String {
    let mut pod = Pod::new(name).mount(name);
    if let Some(node) = node {
        pod = pod.on(&node.name());
    }
    space.apply(&[Claim::new(name).object(), pod.object()]);
    space.ready(name);
    let _wrote = space.sh(name, &format!("echo kept >/{name}/file && sync"));
    space.volume_of(name)
}

/// A new pod reads what the pod of [`written`] wrote, which goes.
#[track_caller]
pub(crate) fn is_read_again(space: &Namespace, name: &str) {
    let _gone = space.kubectl(&["delete", "pod", name, "--ignore-not-found"]);
    let again = format!("{name}-again");
    space.apply(&[Pod::new(&again).mount(name).object()]);
    space.ready(&again);
    assert_eq!(space.sh(&again, &format!("cat /{name}/file")), "kept");
}

/// Gives all data of a node that has no object one, as an administrator asks for it, and waits until `volume` is ready.
#[track_caller]
pub(crate) fn adopt(cluster: &Cluster, node: &Node, what: &str, volume: &str) {
    let adopt = format!("vd.csi.io/adopt={what}");
    let _asked = cluster
        .kubectl(&["annotate", "localpool", &node.name(), &adopt])
        .unwrap();
    let _adopted = watch(cluster, "localvolume", volume, "it is adopted", is_ready);
}

/// Removes a volume with its data, as an administrator who means it.
#[track_caller]
pub(crate) fn destroy(cluster: &Cluster, node: &Node, volume: &str) {
    let patch = r#"{"spec":{"delete":true}}"#;
    let _asked = cluster
        .kubectl(&["patch", "localvolume", volume, "--type=merge", "-p", patch])
        .unwrap();
    cluster
        .wait_for(&format!("localvolume/{volume}"), "delete", &[])
        .unwrap();
    assert!(!data(node, volume).exists(), "its data is still there");
}

/// Where the data of a volume lies.
pub(crate) fn data(node: &Node, volume: &str) -> PathBuf {
    node.pool().join("volumes").join(volume)
}

/// Waits until all programs of the driver run and say that they are ready.
#[track_caller]
pub(crate) fn rolled_out(cluster: &Cluster) {
    for workload in ["daemonset/csi-node", "deployment/csi-controller"] {
        let status = ["rollout", "status", "-n", DRIVER, workload];
        let status = [&status[..], &["--timeout=110s"]].concat();
        // One node after the other, and each pod may take half a minute to end.
        let first = cluster.try_kubectl(&status);
        if first.code != Some(0) {
            let _rolled_out = cluster.kubectl(&status).unwrap();
        }
    }
}
