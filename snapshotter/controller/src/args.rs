//! The command line of snapshotter.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, ValueEnum};

/// The snapshot controller of vd-csi: VolumeSnapshots of one CSI driver. Copies agree by a Lease on which of them works.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// full: what the upstream snapshot-controller and csi-snapshotter do together. sidecar: what csi-snapshotter does, where the
    /// cluster has the upstream controller.
    #[arg(long, value_enum)]
    pub(crate) mode: Mode,
    /// The driver's socket: unix:///path
    #[arg(long, value_name = "unix://PATH", value_parser = address)]
    pub(crate) csi_address: String,
    /// Where to serve /metrics, /healthz and /readyz. On loopback or the pod network only: there is no authentication.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) metrics_listen: SocketAddr,
    /// The driver's name, which the driver has to say itself too.
    #[arg(long, value_name = "NAME", default_value = "vd.csi.io")]
    pub(crate) driver_name: String,
    /// How to reach the API server, outside of a pod. Without: the pod's ServiceAccount, or what kubectl would use.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// How long one call of the driver may take, in seconds. Its answer to CreateSnapshot means that the cut is made, and a guest
    /// may be frozen until then: better not too short.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// How long after the first failure a snapshot is tried again, in seconds; doubled after each.
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = fraction)]
    pub(crate) retry_interval_start: Duration,
    /// The longest such pause, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = fraction)]
    pub(crate) retry_interval_max: Duration,
    /// How long an abandoned call of the driver may still be at work, in seconds. Only tests know a driver that needs less.
    #[arg(long, value_name = "SECONDS", hide = true, value_parser = fraction)]
    pub(crate) settles: Option<Duration>,
    /// The longest such pause where the driver has refused for good, in seconds: each attempt costs writes.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = fraction)]
    pub(crate) refused_interval_max: Duration,
    /// Name the VolumeSnapshot and its content in the parameters of CreateSnapshot.
    #[arg(long)]
    pub(crate) extra_create_metadata: bool,
    /// Whether copies agree by a Lease. Off only where there is one copy.
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub(crate) leader_election: bool,
    /// The namespace of that Lease, which is csi-snapshotter's. Without: the pod's.
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) leader_election_namespace: Option<String>,
    /// The only namespace in which to look for the Lease of an upstream snapshot-controller. Without: in all.
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) upstream_lease_namespace: Option<String>,
    /// Log as JSON, one object per line.
    #[arg(long)]
    pub(crate) log_json: bool,
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Full,
    Sidecar,
}

fn address(text: &str) -> Result<String, String> {
    if text.starts_with("unix:///") && text.len() > "unix:///".len() {
        Ok(text.to_owned())
    } else {
        Err("give the socket as unix:///path".to_owned())
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds @ 1..=3600) => Ok(Duration::from_secs(seconds)),
        _ => Err("give a whole number of seconds from 1 to 3600".to_owned()),
    }
}

fn fraction(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give a number of seconds from 0.01 to 3600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Args, Mode};

    fn parse(more: &[&str]) -> Result<Args, clap::Error> {
        let line = [
            "snapshotter",
            "--mode=full",
            "--csi-address=unix:///s",
            "--metrics-listen=127.0.0.1:0",
        ];
        Args::try_parse_from(line.iter().chain(more))
    }

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
        let args = parse(&[]).unwrap();
        assert_eq!(args.mode, Mode::Full);
        assert!(args.leader_election);
        assert!(!parse(&["--leader-election=false"]).unwrap().leader_election);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for more in [
            "--timeout=0",
            "--timeout=5s",
            "--retry-interval-start=0",
            "--retry-interval-max=-1",
            "--retry-interval-max=NaN",
            "--refused-interval-max=0",
        ] {
            assert!(parse(&[more]).is_err(), "{more}");
        }
        for address in ["/run/csi.sock", "unix://", "tcp://1.2.3.4:5"] {
            let line = [
                "snapshotter",
                "--mode=full",
                "--metrics-listen=127.0.0.1:0",
                "--csi-address",
                address,
            ];
            assert!(Args::try_parse_from(line).is_err(), "{address}");
        }
    }
}
