//! Dependencies point one way, as ARCHITECTURE.md says; read from `cargo metadata`, so it holds for what is built.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use tests::{binaries, tools};

/// Our crates, lowest first: a crate may use those before it, never those after it.
const ORDER: &[&str] = &[
    "api",
    "proto",
    "telemetry",
    "pool",
    "snapshot-engine",
    "fuzz",
    "snapshotter",
    "csi-controller",
    "csi-node",
    "vdctl",
    "tests",
];

/// What a crate must not reach, directly or through others, in what is shipped.
const NEVER: &[(&str, &[&str])] = &[
    // Volumes on disk know nothing of the network.
    (
        "pool",
        &["kube", "tonic", "tokio", "prost", "hyper", "proto"],
    ),
    (
        "snapshot-engine",
        &["kube", "tonic", "tokio", "prost", "hyper", "proto"],
    ),
    // The controller runs where there is no disk of ours.
    (
        "csi-controller",
        &["pool", "snapshot-engine", "csi-node", "sys-mount"],
    ),
    // An agent of a node never asks for a second opinion.
    ("csi-node", &["qcow2-rs"]),
    // Snapshots of any driver: it knows the protocol, and nothing of what is behind it.
    (
        "snapshotter",
        &[
            "pool",
            "snapshot-engine",
            "csi-controller",
            "csi-node",
            "sys-mount",
        ],
    ),
    // The protocol is everybody's ground floor.
    (
        "proto",
        &[
            "pool",
            "snapshot-engine",
            "csi-controller",
            "csi-node",
            "vdctl",
            "kube",
        ],
    ),
    // What people see of a program says nothing of disks or of Kubernetes.
    (
        "telemetry",
        &[
            "api",
            "pool",
            "snapshot-engine",
            "csi-controller",
            "csi-node",
            "vdctl",
            "kube",
            "tonic",
        ],
    ),
    // The custom resources are types only. (`kube` is one package to cargo: with the clients that others ask of it, it reaches tokio.)
    (
        "api",
        &[
            "pool",
            "snapshot-engine",
            "csi-controller",
            "csi-node",
            "telemetry",
            "tonic",
        ],
    ),
];

/// Edges of normal and build dependencies between packages, by name.
struct Graph {
    edges: BTreeMap<String, BTreeSet<String>>,
    ours: BTreeSet<String>,
}

impl Graph {
    fn read() -> Self {
        let manifest = binaries::project().join("Cargo.toml");
        let arguments = ["metadata", "--format-version=1", "--locked"];
        let manifest = ["--manifest-path", manifest.to_str().unwrap()];
        let text = tools::run("cargo", &[&arguments[..], &manifest[..]].concat());
        Self::parse(&serde_json::from_str(&text).unwrap())
    }

    fn parse(metadata: &Value) -> Self {
        let packages = metadata["packages"].as_array().unwrap();
        let names: BTreeMap<&str, &str> = packages
            .iter()
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
        let edges = nodes
            .iter()
            .map(|node| (names[text(&node["id"])].to_owned(), shipped(node, &names)))
            .collect();
        let members = metadata["workspace_members"].as_array().unwrap();
        let ours = members
            .iter()
            .map(|id| names[text(id)].to_owned())
            .collect();
        Self { edges, ours }
    }

    /// Everything that `package` reaches.
    fn reach(&self, package: &str) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let mut open = vec![package.to_owned()];
        while let Some(next) = open.pop() {
            for one in self.edges.get(&next).into_iter().flatten() {
                if reached.insert(one.clone()) {
                    open.push(one.clone());
                }
            }
        }
        reached
    }
}

/// The packages that `node` uses in what is shipped: not only in its tests.
fn shipped(node: &Value, names: &BTreeMap<&str, &str>) -> BTreeSet<String> {
    let used = node["deps"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|dependency| {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            kinds.iter().any(|kind| kind["kind"] != "dev")
        });
    used.map(|dependency| names[text(&dependency["pkg"])].to_owned())
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn no_crate_reaches_what_it_must_not_know() {
    let graph = Graph::read();
    for (package, forbidden) in NEVER {
        assert!(graph.ours.contains(*package), "there is no crate {package}");
        let reached = graph.reach(package);
        for one in *forbidden {
            assert!(!reached.contains(*one), "{package} reaches {one}");
        }
    }
}

#[test]
fn our_crates_use_each_other_in_one_direction_only() {
    let graph = Graph::read();
    let place = |name: &str| ORDER.iter().position(|one| *one == name);
    for package in &graph.ours {
        let from = place(package).unwrap_or_else(|| panic!("{package} has no place in the order"));
        for used in graph.edges[package].intersection(&graph.ours) {
            assert!(place(used).unwrap() < from, "{package} uses {used}");
        }
    }
}

#[test]
fn unsafe_code_is_in_one_module_only() {
    let project = binaries::project();
    let mut found = Vec::new();
    for package in ORDER.iter().filter(|package| **package != "tests") {
        let folder = match *package {
            "snapshot-engine" => project.join("snapshotter/engine/src"),
            "snapshotter" => project.join("snapshotter/controller/src"),
            package => project.join(package).join("src"),
        };
        find_unsafe(&folder, &mut found);
    }
    let allowed = project.join("pool/src/sys");
    found.retain(|file| !Path::new(file).starts_with(&allowed));
    assert_eq!(found, Vec::<String>::new(), "only pool::sys may");
}

fn find_unsafe(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find_unsafe(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            if code
                .into_iter()
                .any(|line| line.contains("unsafe {") || line.contains("unsafe fn"))
            {
                found.push(path.display().to_string());
            }
        }
    }
}
