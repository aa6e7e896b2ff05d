//! Every YAML of the examples and of the guides is one that a cluster takes.
//!
//! Objects of Kubernetes, VolumeSnapshots and ours go to a real API server, strictly. Objects of KubeVirt and CDI are decoded
//! into those projects' own Go types, strictly too: their definitions come with their operators and are no part of a Go module,
//! so what their webhooks would say is not known here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::path::PathBuf;

use serde_json::Value;
use tests::binaries;
use tests::manifests::api_server::{ApiServer, User, snapshot_definitions};
use tests::manifests::documents::{self, deploy, files, parse, text, title};
use tests::tools;

/// Where YAML for people stands, and the text of it.
fn everything() -> Vec<(PathBuf, String)> {
    let examples = files(&deploy("examples"), "yaml");
    assert!(examples.len() > 15, "{examples:?}");
    let examples = examples.into_iter().map(|path| {
        let yaml = text(&path);
        (path, yaml)
    });
    let guides = files(&binaries::project().join("docs"), "md").into_iter();
    let blocks = guides.flat_map(|path| {
        let blocks = fenced(&text(&path));
        blocks.into_iter().map(move |block| (path.clone(), block))
    });
    examples.chain(blocks).collect()
}

/// The blocks between ```` ```yaml ```` and ```` ``` ```` that are objects.
fn fenced(markdown: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in markdown.lines() {
        block = match (block, line.trim()) {
            (None, "```yaml") => Some(String::new()),
            (None, _) => None,
            (Some(done), "```") => {
                blocks.push(done);
                None
            }
            (Some(open), _) => Some(open + line + "\n"),
        };
    }
    blocks.retain(|block| block.contains("apiVersion:"));
    blocks
}

/// Whether an object is of KubeVirt or CDI.
fn is_kubevirt(object: &Value) -> bool {
    let version = object["apiVersion"].as_str().expect("an apiVersion");
    let group = version
        .split_once('/')
        .map_or("", |(group, _version)| group);
    group == "kubevirt.io" || group.ends_with(".kubevirt.io")
}

#[test]
fn the_api_server_takes_every_example() {
    let server = ApiServer::with_driver();
    let definitions = snapshot_definitions().display().to_string();
    let _output = server
        .kubectl(&User::Admin, &["apply", "-f", &definitions])
        .ok();
    server.wait_established();
    let mut taken = 0;
    for (path, yaml) in everything() {
        for object in parse(&yaml) {
            assert!(object["kind"].is_string(), "{}: {object}", path.display());
            if is_kubevirt(&object) {
                continue;
            }
            let strict = ["apply", "--dry-run=server", "--validate=strict"];
            let ran = server.send(&User::Admin, &strict, &object);
            assert!(
                ran.code == Some(0),
                "{}, {}: {ran}",
                path.display(),
                title(&object)
            );
            taken += 1;
        }
    }
    assert!(taken >= 15, "only {taken}");
}

#[test]
fn the_types_of_kubevirt_and_cdi_take_every_example() {
    let program = binaries::kubevirt_check();
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, yaml: &str| documents::write(folder.path(), name, yaml);
    let mut checked = 0;
    for (index, (path, yaml)) in everything().into_iter().enumerate() {
        let objects = parse(&yaml);
        let wanted = objects.iter().filter(|object| is_kubevirt(object)).count();
        let ran = tools::attempt(&program, &[write(&format!("{index}.yaml"), &yaml)]);
        assert!(ran.code == Some(0), "{}: {ran}", path.display());
        assert!(
            ran.out.starts_with(&format!("{wanted} ")),
            "{}: {ran}",
            path.display()
        );
        checked += wanted;
    }
    assert!(checked > 10, "only {checked}");
    // It does see what is wrong.
    let vm = text(&deploy("examples/kubevirt/vm.yaml"));
    let misspelt = write("misspelt.yaml", &vm.replace("runStrategy", "runStrategie"));
    let ran = tools::attempt(&program, &[misspelt]);
    assert!(
        ran.code == Some(1) && ran.err.contains("runStrategie"),
        "{ran}"
    );
}

#[test]
fn examples_ask_for_classes_that_are_shipped_and_access_that_is_possible() {
    let classes = ["vd", "vd-immediate", "vd-database"];
    for (path, yaml) in everything() {
        for line in yaml.lines().map(str::trim) {
            if let Some(class) = line.strip_prefix("storageClassName:") {
                let class = class.trim().trim_matches('"');
                // A PersistentVolume that is made by hand has none.
                assert!(
                    class.is_empty() || classes.contains(&class),
                    "{}: {line}",
                    path.display()
                );
            }
            assert!(
                !line.contains("ReadWriteMany"),
                "{}: {line}",
                path.display()
            );
        }
    }
}
