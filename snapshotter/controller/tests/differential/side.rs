//! Who serves a control plane: the upstream programs, ours, or ours beside the upstream controller.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::driver::Driver;
use crate::plane::binaries;
use crate::program::{Program, Quiet};

/// Which programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// snapshot-controller and csi-snapshotter v8.6.0.
    Upstream,
    /// Ours, `--mode=full`.
    Full,
    /// Ours, `--mode=sidecar`, and the upstream snapshot-controller.
    Beside,
}

pub const SIDES: [Side; 3] = [Side::Upstream, Side::Full, Side::Beside];

/// The programs of a control plane.
pub struct Servers {
    side: Side,
    pub kubeconfig: PathBuf,
    driver: Driver,
    running: Mutex<Vec<Running>>,
}

enum Running {
    Upstream(Child),
    Ours(Quiet),
}

impl Servers {
    pub fn new(side: Side, kubeconfig: PathBuf, driver: Driver) -> Self {
        Self {
            side,
            kubeconfig,
            driver,
            running: Mutex::default(),
        }
    }

    pub async fn start(&self) {
        let mut running = self.running.lock().await;
        assert!(running.is_empty(), "{:?} runs already", self.side);
        if self.side != Side::Full {
            let more = ["--leader-election=false".to_owned()];
            running.push(self.upstream("snapshot-controller", &more));
        }
        let address = format!("--csi-address={}", self.driver.socket.display());
        match self.side {
            Side::Upstream => {
                // Where it sees its own write late it forgets to try again, until it looks at everything once more.
                let more = [
                    address,
                    "--extra-create-metadata".to_owned(),
                    "--resync-period=10s".to_owned(),
                ];
                running.push(self.upstream("csi-snapshotter", &more));
            }
            Side::Full => running.push(self.ours("--mode=full").await),
            Side::Beside => running.push(self.ours("--mode=sidecar").await),
        }
    }

    /// All at once, as a machine is lost.
    pub async fn kill(&self) {
        for one in self.running.lock().await.drain(..) {
            match one {
                Running::Upstream(mut child) => {
                    // It may have ended by itself, as csi-snapshotter does without a driver.
                    child.kill().await.ok();
                }
                Running::Ours(quiet) => quiet.kill().await,
            }
        }
    }

    /// As pods are stopped; gives what our program has measured.
    pub async fn stop(&self) -> Option<String> {
        let mut page = None;
        for one in self.running.lock().await.drain(..) {
            match one {
                Running::Upstream(mut child) => {
                    child.kill().await.ok();
                }
                Running::Ours(quiet) => {
                    page = Some(quiet.get("/metrics").await);
                    quiet.stop().await;
                }
            }
        }
        page
    }

    fn upstream(&self, name: &str, more: &[String]) -> Running {
        let mut command = self.command(name);
        command.args([
            "--retry-interval-start=300ms",
            "--retry-interval-max=1s",
            "--kube-api-qps=1000",
            "--kube-api-burst=1000",
            // A driver that does not answer holds one for a minute.
            "--worker-threads=40",
        ]);
        Running::Upstream(command.args(more).spawn().unwrap())
    }

    /// One of the Go programs, for this control plane.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(binaries().join(name));
        command
            .arg(format!("--kubeconfig={}", self.kubeconfig.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log(self.side, name))
            .kill_on_drop(true);
        command
    }

    async fn ours(&self, mode: &str) -> Running {
        let more = [
            mode,
            "--leader-election=false",
            "--extra-create-metadata",
            "--settles=5",
            "--upstream-lease-namespace=nobody",
        ];
        let program = Program::start(&self.kubeconfig, &self.driver.socket, &more).await;
        Running::Ours(program.quiet())
    }
}

/// Where a Go program's log goes: to the folder that `VD_TEST_LOG` names, if it names one.
fn log(side: Side, name: &str) -> Stdio {
    let folder = std::env::var_os("VD_TEST_LOG").map(PathBuf::from);
    let Some(folder) = folder.filter(|folder| folder.is_dir()) else {
        return Stdio::null();
    };
    let path = folder.join(format!("{side:?}-{name}.log"));
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path);
    Stdio::from(file.unwrap())
}
