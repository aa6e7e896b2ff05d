//! Runs csi-sanity, the conformance test of the CSI project, and reads its report.

pub mod conformance;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::cluster::Node;
use crate::{binaries, tools, wait};

/// Longest time for one run.
const LIMIT: Duration = Duration::from_secs(300);

/// One run to be made.
#[derive(Clone, Debug)]
pub struct Run {
    /// The server's socket; the node's if there are two.
    pub socket: PathBuf,
    /// The controller's socket, if it has one of its own.
    pub controller: Option<PathBuf>,
    /// A folder of this run's own: paths, report and output lie there.
    pub folder: PathBuf,
    /// `mount` or `block`.
    pub access: &'static str,
    /// Class parameters of the volumes.
    pub parameters: Vec<(&'static str, &'static str)>,
    /// Size of the volumes.
    pub bytes: u64,
    /// Specs to leave out: the end of their names.
    pub without: &'static [&'static str],
}

/// What one run found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Specs that passed.
    pub passed: usize,
    /// Specs that failed, with the reason.
    pub failed: Vec<String>,
    /// Specs that were skipped for a missing capability, by name.
    pub skipped: BTreeSet<String>,
    /// The end of its output, for messages.
    pub output: String,
}

/// A run that was started.
#[derive(Debug)]
pub struct Running {
    run: Run,
    child: Child,
}

impl Run {
    /// Starts it.
    #[track_caller]
    #[must_use]
    pub fn start(self) -> Running {
        let command = Command::new(binaries::csi_sanity());
        let inside = self.folder.clone();
        self.start_as(command, &inside)
    }

    /// Starts it in a node of a cluster: the sockets are paths there, and `inside` is the run's folder as the node sees it.
    #[track_caller]
    #[must_use]
    pub fn start_in(self, node: &Node, inside: &Path) -> Running {
        std::fs::create_dir_all(&self.folder).expect("make the run's folder");
        // A node does not see the project.
        let program = self.folder.join("csi-sanity");
        let _bytes = std::fs::copy(binaries::csi_sanity(), program).expect("copy csi-sanity");
        let mut command = node.command("sh").expect("the node is up");
        // The working folder of whoever enters a node is outside of it.
        let _command = command
            .args(["-c", "cd / && exec \"$@\"", "sh"])
            .arg(inside.join("csi-sanity"));
        self.start_as(command, inside)
    }

    #[track_caller]
    fn start_as(self, mut command: Command, inside: &Path) -> Running {
        std::fs::create_dir_all(&self.folder).expect("make the run's folder");
        let parameters: Vec<String> = self
            .parameters
            .iter()
            .map(|(key, value)| format!("{key}: \"{value}\"\n"))
            .collect();
        std::fs::write(self.folder.join("parameters.yaml"), parameters.concat())
            .expect("write the class parameters");
        let output = std::fs::File::create(self.folder.join("output")).expect("create its output");
        let _command = command
            .args(self.arguments(inside))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("share its output"))
            .stderr(output);
        let child = tools::start(&mut command).expect("start csi-sanity");
        Running { run: self, child }
    }

    fn arguments(&self, inside: &Path) -> Vec<String> {
        let at = |name: &str| inside.join(name).display().to_string();
        let mut arguments = vec![
            format!("--csi.endpoint=unix://{}", self.socket.display()),
            format!("--csi.mountdir={}", at("mount")),
            format!("--csi.stagingdir={}", at("staging")),
            format!("--csi.testvolumesize={}", self.bytes),
            format!("--csi.testvolumeexpandsize={}", 2 * self.bytes),
            format!("--csi.testvolumeaccesstype={}", self.access),
            format!("--ginkgo.json-report={}", at("report.json")),
            "--ginkgo.no-color".to_owned(),
        ];
        if let Some(controller) = &self.controller {
            arguments.push(format!(
                "--csi.controllerendpoint=unix://{}",
                controller.display()
            ));
        }
        if !self.parameters.is_empty() {
            arguments.push(format!(
                "--csi.testvolumeparameters={}",
                at("parameters.yaml")
            ));
        }
        let skips = self.without.iter();
        arguments.extend(skips.map(|name| format!("--ginkgo.skip={name}$")));
        arguments
    }
}

impl Running {
    /// Waits for the end and reads the report.
    #[track_caller]
    #[must_use]
    pub fn finish(mut self) -> Report {
        let output = || std::fs::read_to_string(self.run.folder.join("output")).unwrap_or_default();
        let ended = wait::holds_within(LIMIT, || {
            self.child.try_wait().expect("look at csi-sanity").is_some()
        });
        assert!(ended, "csi-sanity does not end\n{}", tail(&output()));
        let report = self.run.folder.join("report.json");
        let output = tail(&output());
        let text = std::fs::read_to_string(&report)
            .unwrap_or_else(|error| panic!("{}: {error}\n{output}", report.display()));
        let json: Value = serde_json::from_str(&text).expect("the report is JSON");
        read_report(&json, self.run.without, output)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            let _already_gone = self.child.kill();
            let _status = self.child.wait();
        }
    }
}

fn read_report(json: &Value, without: &[&str], output: String) -> Report {
    let mut report = Report {
        passed: 0,
        failed: Vec::new(),
        skipped: BTreeSet::new(),
        output,
    };
    let suites = json.as_array().cloned().unwrap_or_default();
    let specs = suites
        .iter()
        .flat_map(|suite| suite["SpecReports"].as_array().cloned().unwrap_or_default());
    for spec in specs.filter(|spec| spec["LeafNodeType"] == "It") {
        let name = name_of(&spec);
        match spec["State"].as_str().unwrap_or_default() {
            "passed" => report.passed += 1,
            // Upstream has one spec that it has disabled itself.
            "pending" => {}
            "skipped" if without.iter().any(|end| name.ends_with(end)) => {}
            "skipped" => {
                let _new = report.skipped.insert(name);
            }
            state => {
                let why = spec["Failure"]["Message"].as_str().unwrap_or_default();
                report.failed.push(format!("{name}: {state}: {why}"));
            }
        }
    }
    report
}

fn name_of(spec: &Value) -> String {
    let above = spec["ContainerHierarchyTexts"].as_array().cloned();
    let mut parts: Vec<String> = above
        .unwrap_or_default()
        .iter()
        .map(|part| part.as_str().unwrap_or_default().to_owned())
        .collect();
    parts.push(spec["LeafNodeText"].as_str().unwrap_or_default().to_owned());
    parts.join(" / ")
}

fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// A folder for one run below a test's own.
#[must_use]
pub fn folder(test: &Path, run: &str) -> PathBuf {
    // Below `kubelet`, so that what is left mounted there counts as residue.
    test.join("kubelet").join("sanity").join(run)
}
