//! What the agent is started with.

use std::net::SocketAddr;
use std::path::PathBuf;

use csi_controller::DriverName;
use pool::capacity::Policy;

use crate::local_node::Scrub;

/// Whether the agent may make a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolInit {
    /// If nothing of ours is there, and the API server knows of no pool of this node.
    Auto,
    /// Never: `vdctl pool init` does.
    Never,
}

/// What the agent is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The pool's folder.
    pub pool: PathBuf,
    /// The Kubernetes node.
    pub node: String,
    /// The driver's name.
    pub driver: DriverName,
    /// The driver's socket: `unix://` and a path, the same that kubelet sees.
    pub listen: String,
    /// kubelet's folder, by the same path that kubelet has for it.
    pub kubelet_dir: PathBuf,
    /// Where kubelet looks for plugins.
    pub registry: PathBuf,
    /// Where metrics and probes are served.
    pub metrics: SocketAddr,
    /// How much may be promised.
    pub policy: Policy,
    /// How snapshots are looked after.
    pub scrub: Scrub,
    /// Whether the agent may make a pool.
    pub init: PoolInit,
    /// The API server, outside of a pod.
    pub kubeconfig: Option<PathBuf>,
}
