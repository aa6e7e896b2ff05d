//! What may not be left of a namespace: in the API server, in the pools and in the nodes' kernels.

use std::path::Path;

use serde_json::Value;

use super::DRIVER;
use super::namespace::SETTLES;
use crate::cluster::{Cluster, Node};
use crate::wait;

/// What a namespace has outside of itself.
#[derive(Debug)]
pub(super) struct Leftovers<'a> {
    cluster: &'a Cluster,
    /// `kind/name`.
    objects: Vec<String>,
}

/// The kinds of objects outside of namespaces that the driver and its sidecars make.
const KINDS: &str = "persistentvolume,volumesnapshotcontent,localsnapshot,localvolume";

/// The names of the `LocalVolumes` that were made for claims of a namespace.
#[track_caller]
#[must_use]
pub fn volumes_of(cluster: &Cluster, namespace: &str) -> Vec<String> {
    let mut names = Vec::new();
    for volume in list(cluster, "localvolume") {
        if volume["spec"]["claim"]["namespace"] == namespace {
            names.push(text(&volume["metadata"]["name"]));
        }
    }
    names
}

#[track_caller]
fn list(cluster: &Cluster, kinds: &str) -> Vec<Value> {
    let told = cluster.kubectl(&["get", kinds, "-o", "json"]).unwrap();
    let list: Value = serde_json::from_str(&told).expect("kubectl prints JSON");
    list["items"].as_array().cloned().unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// `kind/name`.
fn title(object: &Value) -> String {
    let kind = text(&object["kind"]).to_lowercase();
    format!("{kind}/{}", text(&object["metadata"]["name"]))
}

impl<'a> Leftovers<'a> {
    #[track_caller]
    pub(super) fn of(cluster: &'a Cluster, namespace: &str) -> Self {
        let all = list(cluster, KINDS);
        let volumes: Vec<&Value> = all
            .iter()
            .filter(|object| {
                object["kind"] == "LocalVolume" && object["spec"]["claim"]["namespace"] == namespace
            })
            .map(|volume| &volume["metadata"]["name"])
            .collect();
        let belongs = |object: &&Value| {
            let (spec, name) = (&object["spec"], &object["metadata"]["name"]);
            match object["kind"].as_str().unwrap_or_default() {
                "PersistentVolume" => {
                    spec["claimRef"]["namespace"] == namespace || volumes.contains(&name)
                }
                "VolumeSnapshotContent" => spec["volumeSnapshotRef"]["namespace"] == namespace,
                "LocalSnapshot" => volumes.contains(&&spec["sourceVolume"]),
                _ => volumes.contains(&name),
            }
        };
        let objects = all.iter().filter(belongs).map(title).collect();
        Self { cluster, objects }
    }

    pub(super) fn and(mut self, other: Self) -> Self {
        self.objects.extend(other.objects);
        self.objects.sort();
        self.objects.dedup();
        self
    }

    #[track_caller]
    fn still_there(&self) -> Option<String> {
        let now = list(self.cluster, KINDS);
        now.iter().map(title).find(|one| self.objects.contains(one))
    }

    /// Waits until the objects are gone, and sees that the nodes have nothing of them.
    #[track_caller]
    pub(super) fn are_gone(&self) {
        while let Some(object) = self.still_there() {
            self.cluster.wait_for(&object, "delete", &[]).unwrap();
        }
        let ids: Vec<&str> = self
            .objects
            .iter()
            .filter_map(|object| object.split_once('/'))
            .map(|(_kind, name)| name)
            .collect();
        for node in self.cluster.nodes() {
            let mut left = Vec::new();
            let _settled = wait::holds_within(SETTLES, || {
                left = on(&node, &ids);
                left.is_empty()
            });
            assert!(left.is_empty(), "{}: {left:#?}", node.name());
        }
        pools_are_clean(self.cluster);
    }
}

/// Loop devices, mounts and files of a node with one of `ids` in their names.
fn on(node: &Node, ids: &[&str]) -> Vec<String> {
    let names = |text: &str| ids.iter().any(|id| text.contains(id));
    let mut found = Vec::new();
    for one in node.loops() {
        if names(&one.back_file) {
            found.push(format!("{} on {}", one.name.display(), one.back_file));
        }
    }
    let mounts = node.run(&["cat", "/proc/self/mountinfo"]).unwrap().ok();
    found.extend(mounts.lines().filter(|line| names(line)).map(str::to_owned));
    files(&node.pool(), &mut |path| {
        if names(&path.to_string_lossy()) {
            found.push(path.display().to_string());
        }
    });
    found
}

/// Everything below `folder`; what goes away meanwhile is passed over.
fn files(folder: &Path, see: &mut dyn FnMut(&Path)) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        see(&entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(&entry.path(), see);
        }
    }
}

/// Every node's pool proves its invariants, from inside its agent.
#[track_caller]
pub fn pools_are_clean(cluster: &Cluster) {
    let agents = "app.kubernetes.io/component=node";
    let list = ["get", "pods", "-n", DRIVER, "-l", agents, "-o", "json"];
    let told = cluster.kubectl(&list).unwrap();
    let list: Value = serde_json::from_str(&told).expect("kubectl prints JSON");
    let pods = list["items"].as_array().cloned().unwrap_or_default();
    assert_eq!(pods.len(), cluster.nodes().len(), "{told}");
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let arguments = pod["spec"]["containers"][0]["args"].as_array();
        let mut arguments = arguments.into_iter().flatten().filter_map(Value::as_str);
        let pool = arguments.find(|argument| argument.starts_with("--pool="));
        let pool = pool.unwrap_or_else(|| panic!("{name} has no pool"));
        let check = ["exec", "-n", DRIVER, name, "--", "vdctl", "pool", "check"];
        let ran = cluster.try_kubectl(&[&check[..], &[pool]].concat());
        assert!(ran.code == Some(0), "{name}: {ran}");
    }
}
