//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use csi_controller::DriverName;
use csi_node::agent::{PoolInit, Settings};
use csi_node::local_node::{Period, Rate, Scrub};
use pool::capacity::{Policy, Reserve};

/// The agent of one Kubernetes node: volumes and snapshots on its local disk
#[derive(Debug, Parser)]
#[command(name = "csi-node", version, about, max_term_width = 100)]
pub(crate) struct Args {
    /// The pool's folder
    #[arg(long, default_value = "/var/vd")]
    pool: PathBuf,
    /// The name of the Kubernetes node
    #[arg(long)]
    node_id: String,
    /// The driver's socket, by the path that kubelet sees: unix:///var/lib/kubelet/plugins/<driver>/csi.sock
    #[arg(
        long,
        default_value = "unix:///var/lib/kubelet/plugins/vd.csi.io/csi.sock"
    )]
    listen: String,
    /// kubelet's folder, by the path that kubelet has for it
    #[arg(long, default_value = "/var/lib/kubelet")]
    kubelet_dir: PathBuf,
    /// Where kubelet looks for plugins [default: <kubelet-dir>/plugins_registry]
    #[arg(long)]
    registration_dir: Option<PathBuf>,
    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, default_value = "127.0.0.1:9808")]
    metrics_listen: SocketAddr,
    /// How much may be promised for each byte there is; above 1.0 a guest can meet a full disk
    #[arg(long, default_value = "1.0", value_parser = overcommit)]
    overcommit: f64,
    /// What is kept back of the filesystem: a percentage (10%) or a size (5GiB)
    #[arg(long, default_value = "10%")]
    reserve: Reserve,
    /// How long after it was found sound a snapshot with a data digest is read again: 7d, 12h, 30m, 90s, or never
    #[arg(long, default_value = "7d")]
    scrub_period: Period,
    /// How much is read in a second for that, at most
    #[arg(long, default_value = "32MiB")]
    scrub_rate: Rate,
    /// Whether to make a pool where nothing of ours is and the API server knows of none of this node
    #[arg(long, value_enum, default_value_t = Init::Auto)]
    pool_init: Init,
    /// The driver's name
    #[arg(long, default_value = "vd.csi.io")]
    driver_name: String,
    /// How to reach the API server outside of a pod
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Log as JSON
    #[arg(long)]
    pub(crate) log_json: bool,
    /// Start the agent as a child and outlive it until nothing is frozen any more, as the first process of a container does
    #[arg(long)]
    pub(crate) supervise: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Init {
    /// If that is safe
    Auto,
    /// Never; `vdctl pool init` does
    Never,
}

impl Args {
    pub(crate) fn settings(self) -> anyhow::Result<Settings> {
        let registry = self
            .registration_dir
            .unwrap_or_else(|| self.kubelet_dir.join("plugins_registry"));
        Ok(Settings {
            pool: self.pool,
            node: self.node_id,
            driver: DriverName::new(self.driver_name)?,
            listen: self.listen,
            kubelet_dir: self.kubelet_dir,
            registry,
            metrics: self.metrics_listen,
            policy: Policy {
                overcommit: self.overcommit,
                reserve: self.reserve,
            },
            scrub: Scrub {
                period: self.scrub_period,
                rate: self.scrub_rate,
            },
            init: match self.pool_init {
                Init::Auto => PoolInit::Auto,
                Init::Never => PoolInit::Never,
            },
            kubeconfig: self.kubeconfig,
        })
    }
}

fn overcommit(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.1..=1000.0).contains(&ratio) => Ok(ratio),
        _ => Err("give a number from 0.1 to 1000".to_owned()),
    }
}
