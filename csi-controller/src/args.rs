//! The command line of csi-controller.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// The CSI Controller service of vd-csi on Kubernetes: places volumes, records what is wanted in custom resources and waits
/// for the nodes' agents. Two copies may run.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// The socket to serve CSI on, for the sidecars: unix:///path
    #[arg(long, value_name = "unix://PATH")]
    pub(crate) listen: String,
    /// Where to serve /metrics, /healthz and /readyz. On loopback or the pod network only: there is no authentication.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) metrics_listen: SocketAddr,
    /// The driver's name, as in its CSIDriver object and its StorageClasses.
    #[arg(long, value_name = "NAME", default_value = "vd.csi.io")]
    pub(crate) driver_name: String,
    /// How to reach the API server, outside of a pod. Without: the pod's ServiceAccount, or what kubectl would use.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// How long one call waits for a node's agent, in seconds. A little less than the sidecars' --timeout, so that they are
    /// told why.
    #[arg(long, value_name = "SECONDS", default_value = "285", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// The VolumeSnapshotClass to keep, once the cluster knows the kind; empty: none.
    #[arg(long, value_name = "NAME", default_value = "vd")]
    pub(crate) snapshot_class: String,
    /// Log as JSON, one object per line.
    #[arg(long)]
    pub(crate) log_json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds @ 1..=3600) => Ok(Duration::from_secs(seconds)),
        _ => Err("give a whole number of seconds from 1 to 3600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::Args;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_time_without_sense_is_refused() {
        for timeout in ["0", "-1", "5s", "100000", ""] {
            let timeout = format!("--timeout={timeout}");
            let line = [
                "csi-controller",
                "--listen=unix:///s",
                "--metrics-listen=127.0.0.1:0",
                &timeout,
            ];
            assert!(Args::try_parse_from(line).is_err(), "{timeout}");
        }
    }
}
