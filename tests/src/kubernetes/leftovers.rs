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

/// The names of the `LocalVolumes` that were made for claims of a namespace.
#[track_caller]
#[must_use]
pub fn volumes_of(cluster: &Cluster, namespace: &str) -> Vec<String> {
    let own = |object: &Value| object["spec"]["claim"]["namespace"] == namespace;
    named(cluster, "localvolume", own)
}

#[track_caller]
fn named(cluster: &Cluster, kind: &str, chosen: impl Fn(&Value) -> bool) -> Vec<String> {
    let told = cluster.kubectl(&["get", kind, "-o", "json"]).unwrap();
    let list: Value = serde_json::from_str(&told).expect("kubectl prints JSON");
    let entries = list["items"].as_array().cloned().unwrap_or_default();
    entries
        .iter()
        .filter(|object| chosen(object))
        .filter_map(|object| object["metadata"]["name"].as_str())
        .map(str::to_owned)
        .collect()
}

impl<'a> Leftovers<'a> {
    #[track_caller]
    pub(super) fn of(cluster: &'a Cluster, namespace: &str) -> Self {
        let mut objects = Vec::new();
        let mut add = |kind: &str, names: Vec<String>| {
            objects.extend(names.into_iter().map(|name| format!("{kind}/{name}")));
        };
        let volumes = volumes_of(cluster, namespace);
        let of_claims = |pv: &Value| {
            let name = pv["metadata"]["name"].as_str().unwrap_or_default();
            pv["spec"]["claimRef"]["namespace"] == namespace
                || volumes.iter().any(|one| one == name)
        };
        add(
            "persistentvolume",
            named(cluster, "persistentvolume", of_claims),
        );
        let of_snapshots =
            |content: &Value| content["spec"]["volumeSnapshotRef"]["namespace"] == namespace;
        let contents = named(cluster, "volumesnapshotcontent", of_snapshots);
        add("volumesnapshotcontent", contents);
        let cut_here = |snapshot: &Value| {
            let source = snapshot["spec"]["sourceVolume"].as_str();
            source.is_some_and(|source| volumes.iter().any(|one| one == source))
        };
        add("localsnapshot", named(cluster, "localsnapshot", cut_here));
        add("localvolume", volumes);
        Self { cluster, objects }
    }

    pub(super) fn and(mut self, other: Self) -> Self {
        self.objects.extend(other.objects);
        self.objects.sort();
        self.objects.dedup();
        self
    }

    /// Waits until the objects are gone, and sees that the nodes have nothing of them.
    #[track_caller]
    pub(super) fn are_gone(&self) {
        for object in &self.objects {
            self.cluster.wait_for(object, "delete", &[]).unwrap();
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
    let list = ["get", "pods", "-n", DRIVER, "-l", agents, "-o", "name"];
    let pods = cluster.kubectl(&list).unwrap();
    assert_eq!(pods.lines().count(), cluster.nodes().len(), "{pods}");
    for pod in pods.lines() {
        let check = ["exec", "-n", DRIVER, pod, "--", "vdctl", "pool", "check"];
        let ran = cluster.try_kubectl(&check);
        assert!(ran.code == Some(0), "{pod}: {ran}");
    }
}
