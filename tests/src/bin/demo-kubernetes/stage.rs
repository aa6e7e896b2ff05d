//! Where the story plays: a namespace of a cluster with the driver in it, and what the person at the terminal sees.

use std::fmt::Display;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tests::cluster::Cluster;

use crate::objects;

/// The namespace of the story.
const NAMESPACE: &str = "vd-demo";
/// The namespace of the driver.
const DRIVER: &str = "vd-csi";

/// A cluster with the driver.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    cluster: &'a Cluster,
}

/// Starts a chapter.
pub(crate) fn chapter(title: impl Display) {
    line(format!("\n{title}"));
}

/// One step and its outcome.
pub(crate) fn fact(label: &str, text: impl Display) {
    line(format!("  {label:<17}{text}"));
}

/// A line of a table that a command printed.
pub(crate) fn shown(text: &str) {
    for row in text.lines().filter(|row| !row.trim().is_empty()) {
        line(format!("  |  {row}"));
    }
}

/// A line. A reader that went away must not stop the demo half-way: it still has to clean up.
pub(crate) fn line(text: impl Display) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

impl<'a> Stage<'a> {
    pub(crate) fn new(cluster: &'a Cluster) -> Self {
        Self { cluster }
    }

    /// Applies the shipped manifest with the shipped image and waits until the driver serves.
    pub(crate) fn install(&self, archive: &Path) -> Result<()> {
        chapter("1. One manifest");
        self.cluster.import_image(archive)?;
        let manifest = tests::binaries::project().join("deploy/vd-csi.yaml");
        let started = Instant::now();
        let _applied = self.cluster.kubectl(&[
            "apply",
            "-f",
            manifest
                .to_str()
                .context("the path of the manifest is not text")?,
        ])?;
        for workload in ["daemonset/csi-node", "deployment/csi-controller"] {
            let status = [
                "rollout",
                "status",
                "-n",
                DRIVER,
                workload,
                "--timeout=110s",
            ];
            let _rolled_out = self.cluster.kubectl(&status)?;
        }
        fact(
            "kubectl apply",
            format!(
                "deploy/vd-csi.yaml; everything is ready after {}",
                seconds(started)
            ),
        );
        shown(&self.cluster.kubectl(&["get", "localpools"])?);
        self.cluster
            .wait_for("volumesnapshotclass/vd", "create", &[])?;
        let namespace =
            format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n");
        self.cluster.apply(&namespace)?;
        self.cluster.apply(objects::CLASS)?;
        self.cluster
            .wait_for("serviceaccount/default", "create", &["-n", NAMESPACE])
    }

    /// Applies objects in the namespace.
    pub(crate) fn apply(&self, manifest: &str) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(manifest.as_bytes())?;
        let path = file
            .path()
            .to_str()
            .context("the file's name is not text")?;
        self.kubectl(&["apply", "-f", path]).map(drop)
    }

    /// `kubectl` in the namespace.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let all = [&["-n", NAMESPACE][..], arguments].concat();
        self.cluster.kubectl(&all)
    }

    /// Watches an object of the namespace until `what` holds.
    pub(crate) fn wait(&self, object: &str, what: &str) -> Result<()> {
        self.cluster.wait_for(object, what, &["-n", NAMESPACE])
    }

    /// Runs a shell line in a pod.
    pub(crate) fn run(&self, pod: &str, line: &str) -> Result<String> {
        let told = self.kubectl(&["exec", pod, "--", "sh", "-c", line])?;
        Ok(told.trim().to_owned())
    }

    /// Deletes everything of the story and waits until nothing of it is left, on the nodes' disks too.
    pub(crate) fn clear(&self, tell: bool) -> Result<()> {
        let started = Instant::now();
        // Waits until the pods, claims and snapshots in it are gone.
        let deleted = self.cluster.kubectl(&["delete", "namespace", NAMESPACE]);
        let class = self
            .cluster
            .kubectl(&["delete", "storageclass", "demo-xfs"]);
        let _deleted = deleted.and(class)?;
        for kind in ["persistentvolume", "localvolume", "localsnapshot"] {
            // `--all` of nothing is an error for `wait`, and just what is wanted.
            let left = self.cluster.kubectl(&["get", kind, "-o", "name"])?;
            for object in left.lines() {
                self.cluster.wait_for(object, "delete", &[])?;
            }
        }
        if !tell {
            return Ok(());
        }
        fact(
            "kubectl delete",
            format!(
                "the namespace, and with it pods, claims and snapshots: {}",
                seconds(started)
            ),
        );
        self.check_pools()
    }

    /// Has every node's pool prove its invariants, from inside its agent.
    fn check_pools(&self) -> Result<()> {
        let pods = self.cluster.kubectl(&[
            "get",
            "pods",
            "-n",
            DRIVER,
            "-l",
            "app.kubernetes.io/component=node",
            "-o",
            "name",
        ])?;
        ensure!(!pods.is_empty(), "there are no agents");
        for pod in pods.lines() {
            let arguments = ["exec", "-n", DRIVER, pod, "--", "vdctl", "pool", "check"];
            let told = self.cluster.kubectl(&arguments)?;
            fact(
                "vdctl pool check",
                told.lines().last().unwrap_or_default().trim(),
            );
        }
        Ok(())
    }
}

/// The time since `started`, for people.
pub(crate) fn seconds(started: Instant) -> String {
    format!("{:.1} s", started.elapsed().as_secs_f64())
}
