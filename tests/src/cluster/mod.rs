//! A real Kubernetes on this machine: etcd, the control plane, and nodes with containerd and kubelet.
//!
//! The control plane are processes of the host. Each node has namespaces of its own for mounts, processes and network, its
//! own `/var`, `/run` and `/etc`, and a disk of its own at `/var/vd`: a manifest with host paths and Bidirectional mounts
//! runs unchanged on all nodes. Everything of a cluster is in one folder; [`Cluster::stop`] works from what is written
//! there, so also another process, and after a start that failed.
//!
//! All calls block. Errors say what failed and show the end of the log that explains it.

mod cgroups;
mod command;
mod control_plane;
mod disk;
mod image;
mod images;
mod kubectl;
mod network;
mod node;
mod node_config;
mod options;
mod pki;
mod process;
mod shared;
mod site;
mod snapshots;
mod teardown;

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::tools::Ran;

pub use control_plane::Component;
pub use images::{TEST_IMAGE, make_image, own_archive};
pub use node::Node;
pub use options::{Disk, Options, filesystem};
pub use shared::{guard, guarded, shared, shared_with};

use control_plane::{copy_database, wait_ready};
use network::Network;
use site::Site;

/// A cluster that was started, here or by another process. It goes on when this value is dropped.
#[derive(Clone, Debug)]
pub struct Cluster {
    site: Site,
}

impl Cluster {
    /// Starts a cluster and waits until all its nodes are Ready. What an earlier one left in the folder is taken apart
    /// first. After a failure nothing is left, but the folder with its logs when `VD_KEEP_CLUSTER` is set.
    ///
    /// # Errors
    /// When one runs there already, and when something does not start.
    pub fn start(options: &Options) -> Result<Self> {
        let lock = lock_neighbours(&options.folder)?;
        if let Some(running) = Self::running(&options.folder)? {
            bail!(
                "a cluster runs already in {}: export KUBECONFIG={}",
                options.folder.display(),
                running.kubeconfig().display()
            );
        }
        let nodes = options.disks.len();
        ensure!(
            (1..=network::NODES).contains(&nodes),
            "a cluster has 1 to {} nodes, not {nodes}",
            network::NODES
        );
        let _was_there = Self::stop_locked(&options.folder)?;
        let site = Self::claim(options)?;
        drop(lock);
        ensure!(
            site.program("kubelet").is_file() && site.program("containerd").is_file(),
            "there are no programs in {}: run `make cluster-tools` first",
            site.programs().display()
        );
        let cluster = Self { site };
        match cluster.bring_up() {
            Ok(()) => Ok(cluster),
            Err(error) if std::env::var_os("VD_KEEP_CLUSTER").is_some() => Err(error),
            Err(error) => match Self::stop(&options.folder) {
                Ok(_stopped) => Err(error),
                Err(left) => Err(error.context(format!("{left:#}"))),
            },
        }
    }

    /// Takes an index and writes down where what will be.
    fn claim(options: &Options) -> Result<Site> {
        command::make_folder(&options.folder)?;
        let mut options = options.clone();
        options.folder = options.folder.canonicalize()?;
        let network = Network::claim(&options.folder)?;
        let site = Site::new(options, network);
        site.write()?;
        Ok(site)
    }

    fn bring_up(&self) -> Result<()> {
        let (site, nodes) = (&self.site, self.nodes());
        site.network.up()?;
        control_plane::prepare(site)?;
        control_plane::start(site, Component::Etcd)?;
        control_plane::start(site, Component::ApiServer)?;
        // The nodes start while the API server does.
        let images = images::test_images(site)?;
        on_all(&nodes, |node| node.first_start(&images))?;
        wait_ready(site)?;
        control_plane::start(site, Component::ControllerManager)?;
        control_plane::start(site, Component::Scheduler)?;
        for node in &nodes {
            node.start_kubelet()?;
        }
        if site.options.snapshots {
            snapshots::install_definitions(site)?;
            if site.options.snapshot_controller {
                control_plane::start(site, Component::SnapshotController)?;
            }
        }
        for node in &nodes {
            node.wait_ready()?;
        }
        // Pods can be created from here on.
        kubectl::wait_for(site, "serviceaccount/default", "create", &[])
    }

    /// The cluster that was started in `folder`, if its API server runs.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn running(folder: &Path) -> Result<Option<Self>> {
        let Ok(folder) = folder.canonicalize() else {
            return Ok(None);
        };
        let site = Site::read(&folder)?;
        let runs = |site: &Site| site.processes.get(Component::ApiServer.name()).is_some();
        Ok(site.filter(runs).map(|site| Self { site }))
    }

    /// Ends everything of the cluster in `folder`, waits for it, and removes the folder. Also after a start that failed.
    /// Says whether there was a cluster.
    ///
    /// # Errors
    /// When something does not go; what does, is gone, and the call can be repeated.
    pub fn stop(folder: &Path) -> Result<bool> {
        let _lock = lock_neighbours(folder)?;
        Self::stop_locked(folder)
    }

    fn stop_locked(folder: &Path) -> Result<bool> {
        match folder.canonicalize() {
            Ok(folder) => teardown::take_apart(&folder),
            Err(_there_is_none) => Ok(false),
        }
    }

    /// What is left of this cluster, as sentences: nothing after a good stop.
    #[must_use]
    pub fn residue(&self) -> Vec<String> {
        teardown::residue(&self.site)
    }

    /// The folder of the cluster.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.site.folder()
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.site.kubeconfig()
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        let numbers = 1..=self.site.options.disks.len();
        numbers.map(|number| Node::of(&self.site, number)).collect()
    }

    /// `node-1` is number 1.
    ///
    /// # Errors
    /// When there is no node of that number.
    pub fn node(&self, number: usize) -> Result<Node> {
        let nodes = self.nodes();
        let found = number.checked_sub(1).and_then(|index| nodes.get(index));
        let none = || format!("there is no node {number} among {}", nodes.len());
        found.cloned().with_context(none)
    }

    /// A command of the programs that were built for clusters (`kubectl`, `helm`, ...), with `KUBECONFIG` set.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.site.program(program));
        let _command = command.env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// Runs `kubectl` as administrator and says how that ended; killed after two minutes.
    #[must_use]
    pub fn try_kubectl(&self, arguments: &[&str]) -> Ran {
        kubectl::attempt(&self.site, arguments)
    }

    /// Runs `kubectl` as administrator, which must succeed, and returns what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        kubectl::run(&self.site, arguments)
    }

    /// Applies the objects in `manifest` (YAML or JSON).
    ///
    /// # Errors
    /// When the API server refuses one.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new()?;
        std::io::Write::write_all(&mut file, manifest.as_bytes())?;
        let path = file
            .path()
            .to_str()
            .context("the file's name is not text")?;
        let _quiet = self.kubectl(&["apply", "-f", path])?;
        Ok(())
    }

    /// Watches `object` (`kind/name`) until `what` holds, as `kubectl wait --for` takes it. `more` are further arguments, for
    /// example `-n` and a namespace.
    ///
    /// # Errors
    /// When it does not hold within two minutes.
    pub fn wait_for(&self, object: &str, what: &str, more: &[&str]) -> Result<()> {
        kubectl::wait_for(&self.site, object, what, more)
    }

    /// Imports a container image from an archive into all nodes.
    ///
    /// # Errors
    /// When a node is down or does not take it.
    pub fn import_image(&self, archive: &Path) -> Result<()> {
        on_all(&self.nodes(), |node| node.import_image(archive))
    }

    /// Imports an image called `name` that is nothing but `program`, one of those that were built for clusters.
    ///
    /// # Errors
    /// When there is no such program, or a node does not take the image.
    pub fn import_program(&self, program: &str, name: &str) -> Result<()> {
        self.import_image(&images::program_image(&self.site, program, name)?)
    }

    /// Starts a program of the control plane unless it runs. Returns at once, but waits for the API server to be ready.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_component(&self, component: Component) -> Result<()> {
        control_plane::start(&self.site, component)?;
        if component == Component::ApiServer {
            wait_ready(&self.site)?;
        }
        Ok(())
    }

    /// Stops a program of the control plane, as a person would, and waits for its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop_component(&self, component: Component) -> Result<()> {
        self.site.processes.stop(component.name())
    }

    /// `kill -9` of a program of the control plane.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill_component(&self, component: Component) -> Result<()> {
        self.site.processes.kill(component.name())
    }

    /// The log of a program of the control plane.
    #[must_use]
    pub fn log(&self, component: Component) -> PathBuf {
        self.site.log(component.name())
    }

    /// Keeps a copy of everything that the API server knows now under `name`. etcd stands still meanwhile.
    ///
    /// # Errors
    /// When etcd does not stop or start.
    pub fn keep_database(&self, name: &str) -> Result<()> {
        self.stop_component(Component::Etcd)?;
        let copied = copy_database(&self.site.path("etcd"), &self.kept(name));
        self.start_component(Component::Etcd)?;
        wait_ready(&self.site)?;
        copied
    }

    /// Brings back what [`Self::keep_database`] kept, as after a disaster: the control plane starts anew with the older state,
    /// and so do the kubelets, as the guide to Kubernetes asks for.
    ///
    /// # Errors
    /// When there is no such copy, and when a program does not stop or start.
    pub fn restore_database(&self, name: &str) -> Result<()> {
        let kept = self.kept(name);
        ensure!(kept.is_dir(), "there is no kept database {name}");
        let running: Vec<Component> = Component::ALL
            .into_iter()
            .filter(|one| self.site.processes.get(one.name()).is_some())
            .collect();
        for component in running.iter().rev() {
            self.stop_component(*component)?;
        }
        copy_database(&kept, &self.site.path("etcd"))?;
        for component in running {
            self.start_component(component)?;
        }
        for node in self.nodes() {
            node.kill_kubelet()?;
            node.start_kubelet()?;
        }
        Ok(())
    }

    fn kept(&self, name: &str) -> PathBuf {
        self.site.path("kept").join(OsStr::new(name))
    }
}

/// Does something on all nodes at once; the error is that of the first node that has one.
fn on_all(nodes: &[Node], act: impl Fn(&Node) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|threads| {
        let act = &act;
        let running: Vec<_> = nodes
            .iter()
            .map(|node| threads.spawn(move || act(node)))
            .collect();
        for (node, one) in nodes.iter().zip(running) {
            let ended = one.join().unwrap_or_else(|_| bail!("it panicked"));
            ended.with_context(|| node.name())?;
        }
        Ok(())
    })
}

/// Holds off those who would start or stop a cluster beside this one until the returned file is dropped: two stops of one
/// cluster would take the ground from under each other.
fn lock_neighbours(folder: &Path) -> Result<File> {
    let neighbours = folder
        .parent()
        .context("a cluster's folder lies in another")?;
    command::make_folder(neighbours)?;
    let file = File::open(neighbours)?;
    let locked = file.lock();
    locked.with_context(|| format!("lock {}", neighbours.display()))?;
    Ok(file)
}
