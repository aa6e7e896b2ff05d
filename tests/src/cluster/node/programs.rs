//! containerd and kubelet of a node.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use super::Node;
use crate::cluster::command::feed;
use crate::cluster::kubectl;
use crate::cluster::process::tail;
use crate::wait;

/// How long containerd may take to answer, and a killed program to end.
const LIMIT: Duration = Duration::from_secs(60);

impl Node {
    fn start_program(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let record = self.record(program);
        if self.site.processes.get(&record).is_some() {
            return Ok(());
        }
        // The outer process is nsenter, which ends when the program ends; the program leaves its id inside.
        let script = format!("echo $$ >/run/node/{program}.pid; exec \"$0\" \"$@\"");
        let mut command = self.command("sh")?;
        let _command = command
            .args(["-c", &script, &format!("/opt/cluster/{program}")])
            .args(arguments)
            .env(
                "PATH",
                "/opt/cluster:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            );
        let _process = self
            .site
            .processes
            .start(&record, &command, &self.log(program))?;
        Ok(())
    }

    fn end_program(&self, program: &str, signal: Signal) -> Result<()> {
        let Some(outer) = self.site.processes.get(&self.record(program)) else {
            return Ok(());
        };
        let script = format!("kill -{} $(cat /run/node/{program}.pid)", signal as i32);
        let ran = self.run(&["sh", "-c", &script])?;
        ensure!(ran.code == Some(0) || !outer.is_running(), "{ran}");
        ensure!(
            wait::holds_within(LIMIT, || !outer.is_running()),
            "{program} of {} does not end",
            self.name()
        );
        Ok(())
    }

    /// Starts containerd unless it runs, and waits until it answers.
    ///
    /// # Errors
    /// When the node is down or containerd does not answer.
    pub fn start_containerd(&self) -> Result<()> {
        self.start_program("containerd", &["--config", "/etc/containerd/config.toml"])?;
        let mut last = None;
        let answers = wait::holds_within(LIMIT, || {
            last = self.run(&["/opt/cluster/ctr", "version"]).ok();
            last.as_ref().is_some_and(|ran| ran.code == Some(0))
        });
        ensure!(
            answers,
            "containerd does not answer: {last:?}: {}",
            tail(&self.log("containerd"))
        );
        Ok(())
    }

    /// Kills containerd; the containers go on.
    ///
    /// # Errors
    /// When the node is down.
    pub fn kill_containerd(&self) -> Result<()> {
        self.end_program("containerd", Signal::SIGKILL)
    }

    /// Starts kubelet unless it runs, and waits for nothing.
    ///
    /// # Errors
    /// When the node is down.
    pub fn start_kubelet(&self) -> Result<()> {
        let address = self.address();
        self.start_program(
            "kubelet",
            &[
                "--config=/etc/kubernetes/kubelet.yaml",
                "--kubeconfig=/etc/kubernetes/kubelet.kubeconfig",
                &format!("--node-ip={address}"),
                &format!("--hostname-override={}", self.name()),
            ],
        )
    }

    /// Kills kubelet; the pods go on.
    ///
    /// # Errors
    /// When the node is down.
    pub fn kill_kubelet(&self) -> Result<()> {
        self.end_program("kubelet", Signal::SIGKILL)
    }

    /// Waits until the API server has the node as Ready, by what the kubelet of now says.
    ///
    /// # Errors
    /// When that takes longer than two minutes.
    pub fn wait_ready(&self) -> Result<()> {
        let object = format!("node/{}", self.name());
        kubectl::wait_for(&self.site, &object, "create", &[])?;
        kubectl::wait_for(&self.site, &object, "condition=Ready", &[])
            .with_context(|| tail(&self.log("kubelet")))
    }

    /// Imports a container image from an archive.
    ///
    /// # Errors
    /// When containerd does not take it.
    pub fn import_image(&self, archive: &Path) -> Result<()> {
        let mut command = self.command("/opt/cluster/ctr")?;
        // Without --local each piece of the archive travels twice.
        let _command = command.args(["--namespace", "k8s.io", "images", "import", "--local", "-"]);
        feed(command, archive)
    }
}
