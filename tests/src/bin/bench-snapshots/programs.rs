//! The programs of one side as processes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::manifests::api_server::program;
use tests::{binaries, memory, tools};

use crate::plane::Plane;

const OURS: &str = "ours";
const CONTROLLER: &str = "upstream-controller";
const SIDECAR: &str = "upstream-sidecar";
/// Whom the API server takes the programs for.
pub(crate) const USERS: [&str; 3] = [OURS, CONTROLLER, SIDECAR];

/// Whose programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// `snapshotter --mode=full`.
    Ours,
    /// snapshot-controller and csi-snapshotter.
    Upstream,
}

impl Side {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Upstream => "upstream",
        }
    }

    /// Whom its programs are taken for.
    pub(crate) fn users(self) -> &'static [&'static str] {
        match self {
            Self::Ours => &[OURS],
            Self::Upstream => &[CONTROLLER, SIDECAR],
        }
    }

    fn commands(self, plane: &Plane, socket: &Path) -> Vec<(&'static str, Command)> {
        let mine = |user: &str| format!("--kubeconfig={}", plane.kubeconfig(user).display());
        match self {
            Self::Ours => {
                let mut ours = Command::new(binaries::program("snapshotter"));
                let _ours = ours.args([
                    "--mode=full".to_owned(),
                    format!("--csi-address=unix://{}", socket.display()),
                    format!("--metrics-listen={}", plane.free_address(9811)),
                    "--leader-election-namespace=kube-system".to_owned(),
                    mine(OURS),
                ]);
                vec![(OURS, ours)]
            }
            Self::Upstream => {
                let lease = [
                    "--leader-election=true",
                    "--leader-election-namespace=kube-system",
                ];
                let mut controller = Command::new(program("snapshot-controller"));
                let _controller = controller.args(lease).arg(mine(CONTROLLER));
                let mut sidecar = Command::new(program("csi-snapshotter"));
                let _sidecar = sidecar
                    .args(lease)
                    .arg(mine(SIDECAR))
                    .arg(format!("--csi-address={}", socket.display()));
                vec![(CONTROLLER, controller), (SIDECAR, sidecar)]
            }
        }
    }
}

/// Programs that run. Killed when they go out of scope.
#[derive(Debug)]
pub(crate) struct Programs {
    children: Vec<Child>,
}

/// What processes need, all of a side together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Needs {
    /// Bytes.
    pub(crate) resident: u64,
    /// The most that ever was resident, in bytes.
    pub(crate) peak: u64,
    /// Time of processors, in clock ticks of 10 ms.
    pub(crate) ticks: u64,
}

impl Programs {
    /// Starts the programs of a side.
    pub(crate) fn start(side: Side, plane: &Plane, socket: &Path) -> Result<Self> {
        let mut children = Vec::new();
        for (name, mut command) in side.commands(plane, socket) {
            let log = plane.folder().join(name).with_extension("log");
            let log = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(log)?;
            let _command = command
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log);
            let child = tools::start(&mut command).with_context(|| format!("start {name}"))?;
            children.push(child);
        }
        Ok(Self { children })
    }

    /// Ends them as a pod is ended, and waits.
    pub(crate) fn stop(mut self) -> Result<()> {
        for child in &self.children {
            kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        }
        for child in &mut self.children {
            let _status = child.wait()?;
        }
        Ok(())
    }

    /// What they need now.
    pub(crate) fn needs(&mut self) -> Result<Needs> {
        let mut all = Needs::default();
        for child in &mut self.children {
            ensure!(child.try_wait()?.is_none(), "a program has ended by itself");
            let memory = memory::of(child.id());
            all.resident += memory.resident;
            all.peak += memory.peak;
            all.ticks += ticks(child.id())?;
        }
        Ok(all)
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name in parentheses: state is field 3, utime 14, stime 15.
    let (_name, fields) = stat.rsplit_once(')').context("a process without a name")?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next().context("no utime")?.parse()?;
    let system: u64 = fields.next().context("no stime")?.parse()?;
    Ok(user + system)
}

/// The part of a processor, in thousandths, that was used between two looks.
pub(crate) fn millicores(before: Needs, after: Needs, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "minutes of work at most")]
    let ms = after.ticks.saturating_sub(before.ticks) as f64 * 10.0;
    ms / time.as_secs_f64()
}
