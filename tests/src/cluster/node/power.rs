//! A node switched on and off, unplugged, and its disk exchanged.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::Node;
use crate::cluster::command::run;
use crate::cluster::process::{Process, tail};
use crate::cluster::{cgroups, kubectl};
use crate::{binaries, tools, wait};

/// How long a node may take to make its namespaces.
const START: Duration = Duration::from_secs(60);

impl Node {
    /// Switches the node on: disk, namespaces, network and containerd. Harmless when it is on.
    pub(super) fn boot(&self) -> Result<()> {
        self.disk().mount()?;
        if self.holder().is_none() {
            cgroups::make(&self.cgroup())?;
            let holder = self.make_namespaces()?;
            let nodes = self.site.options.disks.len();
            self.site.network.plug(self.number, nodes, holder.pid())?;
        }
        self.start_containerd()
    }

    fn make_namespaces(&self) -> Result<Process> {
        let mut command = Command::new("unshare");
        let _command = command
            .args([
                "--mount",
                "--pid",
                "--net",
                "--uts",
                "--ipc",
                "--fork",
                "--kill-child",
            ])
            .args(["--propagation", "private", "sh"])
            .arg(binaries::project().join("tests/cluster/node/boot.sh"))
            .args([self.folder(), self.name().into()])
            .arg(self.site.programs());
        let log = self.log("boot");
        let parent = self
            .site
            .processes
            .start(&self.record("unshare"), &command, &log)?;
        let mut holder = None;
        let _seen = wait::holds_within(START, || {
            holder = only_child(parent);
            let booted = holder.is_some_and(|one| inside(one, "run/node/booted").exists());
            booted || !parent.is_running()
        });
        match holder {
            Some(holder) if inside(holder, "run/node/booted").exists() => {
                self.site.processes.remember(&self.record("init"), holder)?;
                Ok(holder)
            }
            _not_booted => bail!("{} does not start: {}", self.name(), tail(&log)),
        }
    }

    /// Unplugs the node from the network: neither the API server nor other nodes can be reached. Pods and disks go on.
    ///
    /// # Errors
    /// When the node is down.
    pub fn unplug(&self) -> Result<()> {
        self.cable("down")
    }

    /// Whether there is a cable to the node at all.
    pub(in crate::cluster) fn is_plugged(&self) -> bool {
        let cable = self.site.network.cable(self.number);
        Path::new("/sys/class/net").join(cable).exists()
    }

    /// Plugs it in again.
    ///
    /// # Errors
    /// When the node is down.
    pub fn plug_in(&self) -> Result<()> {
        self.cable("up")
    }

    fn cable(&self, state: &str) -> Result<()> {
        let cable = self.site.network.cable(self.number);
        let _quiet = run("ip", &["link", "set", &cable, state])?;
        // With the interface the kernel has forgotten the way to the pods; it is the bridge's route and stays.
        Ok(())
    }

    /// Switches the node off, as by its power button: every process in it is killed, its mounts and loop devices are gone.
    /// What was written to its disk is there at the next start. Harmless when it is off.
    ///
    /// # Errors
    /// When something does not go.
    pub fn power_off(&self) -> Result<()> {
        if let Some(holder) = self.holder() {
            thaw(holder);
            // With the first process of a PID namespace the kernel ends all others, and waits for them.
            holder.kill()?;
        }
        for program in ["kubelet", "containerd", "unshare"] {
            self.site.processes.kill(&self.record(program))?;
        }
        self.disk().unmount()?;
        if self.site.network.belongs_to(self.site.folder()) {
            cgroups::remove(&self.cgroup())?;
            self.site.network.remove_cable(self.number)?;
        }
        Ok(())
    }

    /// Switches the node on again and waits until it is Ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn power_on(&self) -> Result<()> {
        self.boot()?;
        self.start_kubelet()?;
        self.wait_ready_again()
    }

    /// A reboot: [`Self::power_off`] and [`Self::power_on`].
    ///
    /// # Errors
    /// As for those.
    pub fn reboot(&self) -> Result<()> {
        self.power_off()?;
        self.power_on()
    }

    /// Takes the node's disk out and puts an empty one in. The node must be off.
    ///
    /// # Errors
    /// When it is on, or its disk was taken out already.
    pub fn replace_disk(&self) -> Result<()> {
        self.ensure_off()?;
        self.disk().take_out()?;
        self.disk().make()
    }

    /// Puts the disk that [`Self::replace_disk`] took out back in; the other one is gone. The node must be off.
    ///
    /// # Errors
    /// When it is on, or no disk was taken out.
    pub fn return_disk(&self) -> Result<()> {
        self.ensure_off()?;
        self.disk().put_back()
    }

    fn ensure_off(&self) -> Result<()> {
        ensure!(
            self.holder().is_none(),
            "{} is on: switch it off first",
            self.name()
        );
        Ok(())
    }

    /// Exchanges the disks of two nodes, which must be off and have disks of the same kind and size.
    ///
    /// # Errors
    /// When one is on.
    pub fn exchange_disks(&self, other: &Self) -> Result<()> {
        self.ensure_off()?;
        other.ensure_off()?;
        self.disk().exchange(&other.disk())
    }

    /// Waits for a report of the new kubelet: until then the API server shows what the old one said.
    fn wait_ready_again(&self) -> Result<()> {
        let boot = self.run(&["cat", "/proc/sys/kernel/random/boot_id"])?;
        let boot = boot.out.trim().to_owned();
        let object = format!("node/{}", self.name());
        let this_boot = format!("jsonpath={{.status.nodeInfo.bootID}}={boot}");
        kubectl::wait_for(&self.site, &object, &this_boot, &[])?;
        self.wait_ready()
    }
}

/// A file of the node whose first process is `holder`, as the host can open it.
fn inside(holder: Process, path: &str) -> PathBuf {
    Path::new("/proc")
        .join(holder.pid().to_string())
        .join("root")
        .join(path)
}

fn only_child(parent: Process) -> Option<Process> {
    let pid = parent.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Process::of(children.split_whitespace().next()?.parse().ok()?)
}

/// A process that waits for a frozen filesystem cannot be killed: lets go of all that are frozen.
fn thaw(holder: Process) {
    let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", holder.pid()));
    let mounts = mounts.unwrap_or_default();
    let of_loops = mounts.lines().filter(|line| line.contains(" /dev/loop"));
    for target in of_loops.filter_map(|line| line.split(' ').nth(4)) {
        let pid = holder.pid().to_string();
        let arguments = ["-t", &pid, "-m", "fsfreeze", "--unfreeze", target];
        let mut command = Command::new("nsenter");
        let _command = command
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Nearly always it was not frozen, which fsfreeze calls a failure.
        let _not_frozen = tools::start(&mut command).and_then(|mut child| child.wait());
    }
}
