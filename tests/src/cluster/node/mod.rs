//! One node: containerd and kubelet in namespaces of their own, with its own disk, root filesystem, processes and network.

mod files;
mod power;
mod programs;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::disk::NodeDisk;
use super::node_config::NodeConfig;
use super::process::Process;
use super::site::Site;
use crate::tools::{self, Ran};

/// One node of a running cluster.
#[derive(Clone, Debug)]
pub struct Node {
    site: Site,
    number: usize,
}

impl Node {
    pub(super) fn of(site: &Site, number: usize) -> Self {
        let site = site.clone();
        Self { site, number }
    }

    /// Its name in Kubernetes: `node-1`, `node-2`, ...
    #[must_use]
    pub fn name(&self) -> String {
        format!("node-{}", self.number)
    }

    /// Its address; the host can reach it, and the addresses of its pods.
    #[must_use]
    pub fn address(&self) -> String {
        self.site.network.node(self.number)
    }

    /// Its folder on the host.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.site.path(&self.name())
    }

    /// Its `/var/vd`, as the host sees it.
    #[must_use]
    pub fn pool(&self) -> PathBuf {
        self.disk().mount_point()
    }

    /// The log of `containerd` or `kubelet`.
    #[must_use]
    pub fn log(&self, program: &str) -> PathBuf {
        self.folder()
            .join("var/log")
            .join(program)
            .with_extension("log")
    }

    /// Loop devices on files of its disk, as long as that is mounted.
    #[must_use]
    pub fn loops(&self) -> Vec<crate::loops::Loop> {
        self.disk().users()
    }

    fn disk(&self) -> NodeDisk {
        NodeDisk::of(&self.folder(), self.site.options.disks[self.number - 1])
    }

    fn config(&self) -> NodeConfig {
        NodeConfig {
            network: self.site.network,
            number: self.number,
            name: self.name(),
        }
    }

    /// The control group below which all its pods are.
    #[must_use]
    pub fn cgroup(&self) -> String {
        self.config().cgroup()
    }

    /// Its root folder with all that is mounted there, as the host can open it.
    ///
    /// # Errors
    /// When the node is down.
    pub fn root(&self) -> Result<PathBuf> {
        let holder = self
            .holder()
            .with_context(|| format!("{} is down", self.name()))?;
        Ok(format!("/proc/{}/root", holder.pid()).into())
    }

    fn record(&self, what: &str) -> String {
        format!("{}-{what}", self.name())
    }

    /// The first process of the node, if it is up.
    fn holder(&self) -> Option<Process> {
        self.site.processes.get(&self.record("init"))
    }

    /// A command that runs in all namespaces of the node, as root.
    ///
    /// # Errors
    /// When the node is down.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let holder = self
            .holder()
            .with_context(|| format!("{} is down", self.name()))?;
        let mut command = Command::new("nsenter");
        let _command = command
            .args([
                "--mount", "--pid", "--net", "--uts", "--ipc", "--wd=/", "--target",
            ])
            .arg(holder.pid().to_string())
            .arg("--")
            .arg(program);
        Ok(command)
    }

    /// Runs `words` in the node and says how that ended.
    ///
    /// # Errors
    /// When the node is down.
    pub fn run(&self, words: &[&str]) -> Result<Ran> {
        let command = self.command(words[0])?;
        let arguments = command.get_args().chain(words[1..].iter().map(OsStr::new));
        let arguments: Vec<&OsStr> = arguments.collect();
        Ok(tools::attempt("nsenter", &arguments))
    }
}
