//! The YAML of `deploy/`, as it lies there.

use std::path::{Path, PathBuf};
use std::sync::Once;

use serde_json::Value;

use crate::binaries;
use crate::tools::{self, Ran};

/// A folder or file of `deploy/`.
#[must_use]
pub fn deploy(path: &str) -> PathBuf {
    binaries::project().join("deploy").join(path)
}

/// The text of a file of the project.
#[must_use]
pub fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Writes `text` to a new file `name` in `folder`.
#[must_use]
pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

/// Every document of a YAML text, without empty ones.
#[must_use]
pub fn parse(text: &str) -> Vec<Value> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}"));
    documents
        .into_iter()
        .filter(|document| !document.is_null())
        .collect()
}

/// Every object of `deploy/vd-csi.yaml`.
#[must_use]
pub fn shipped() -> Vec<Value> {
    parse(&text(&deploy("vd-csi.yaml")))
}

/// Files below `folder` with the ending `ending`, sorted.
#[must_use]
pub fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.expect("a folder's entry").path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path
            .extension()
            .is_some_and(|extension| extension == ending)
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// `Kind/name`, for messages.
#[must_use]
pub fn title(object: &Value) -> String {
    let part = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!(
        "{}/{}",
        part(&object["kind"]),
        part(&object["metadata"]["name"])
    )
}

/// The script of `make manifests`, which writes to standard output.
#[must_use]
pub fn render() -> String {
    tools::run(
        binaries::project().join("tools/render-manifests.sh"),
        &["-"],
    )
}

/// The chart with other values, each `key=value`, for the namespace `storage`.
#[must_use]
pub fn render_with(values: &[&str]) -> Ran {
    render_into("storage", values)
}

/// The same for another namespace.
#[must_use]
pub fn render_into(namespace: &str, values: &[&str]) -> Ran {
    let chart = deploy("chart/vd-csi").display().to_string();
    let mut arguments = vec![
        "template",
        "vd-csi",
        &chart,
        "--namespace",
        namespace,
        "--kube-version",
        "1.32.0",
    ];
    for value in values {
        arguments.extend(["--set", value]);
    }
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| drop(render()));
    let built =
        [".cache/cluster/bin/helm", ".cache/bin/helm"].map(|path| binaries::project().join(path));
    let helm = built
        .iter()
        .find(|path| path.is_file())
        .expect("helm was installed");
    tools::attempt(helm, &arguments)
}
