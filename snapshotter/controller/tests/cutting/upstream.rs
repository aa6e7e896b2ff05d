//! The two upstream programs, as they stand in a cluster.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::driver::Driver;
use crate::plane::{Plane, binaries};

/// Takes over sooner than usual.
const LEASE: [&str; 5] = [
    "--leader-election=true",
    "--leader-election-namespace=kube-system",
    "--leader-election-lease-duration=5s",
    "--leader-election-renew-deadline=4s",
    "--leader-election-retry-period=1s",
];

/// One of them.
pub struct Upstream {
    child: Child,
}

impl Upstream {
    /// What serves VolumeSnapshots of every driver, with its Lease where it usually is.
    pub fn controller(plane: &Plane) -> Self {
        Self::start("snapshot-controller", plane, &LEASE.map(str::to_owned))
    }

    /// What calls the driver.
    pub fn sidecar(plane: &Plane, driver: &Driver) -> Self {
        let address = format!("--csi-address={}", driver.socket.display());
        let more = [address, "--timeout=300s".to_owned()];
        Self::start("csi-snapshotter", plane, &more)
    }

    /// The same as it is deployed, with a Lease.
    pub fn leased_sidecar(plane: &Plane, driver: &Driver) -> Self {
        let address = format!("--csi-address={}", driver.socket.display());
        let lease = LEASE.map(str::to_owned);
        Self::start("csi-snapshotter", plane, &[&[address][..], &lease].concat())
    }

    fn start(name: &str, plane: &Plane, more: &[String]) -> Self {
        let log = if std::env::var_os("VD_TEST_LOG").is_some() {
            Stdio::inherit
        } else {
            Stdio::null
        };
        let child = Command::new(binaries().join(name))
            .arg(format!("--kubeconfig={}", plane.kubeconfig.display()))
            .args([
                "--retry-interval-start=100ms",
                "--retry-interval-max=1s",
                "--kube-api-qps=1000",
                "--kube-api-burst=1000",
            ])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child }
    }

    /// As a pod is stopped.
    pub async fn stop(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        ended.expect("it ends").unwrap();
    }
}
