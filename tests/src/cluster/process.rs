//! Processes that outlive the program that started them: recorded by id and start time, found and ended by that record.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::command::{make_folder, write};
use crate::{tools, wait};

/// The environment variable that every process of a cluster has: its folder.
pub(super) const MARK: &str = "VD_CLUSTER_FOLDER";
/// How long a process may take to end after SIGTERM.
const POLITE: Duration = Duration::from_secs(15);
/// How long the kernel may take to start a program.
const STARTED: Duration = Duration::from_secs(60);
/// How long the kernel may take to end a process that was killed.
const KILLED: Duration = Duration::from_secs(60);

/// One process, told from a later one with the same id by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pid: i32,
    /// In clock ticks since the machine's start.
    started: u64,
}

impl Process {
    /// The process `pid`, if it runs.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let started = running_since(pid)?;
        Some(Self { pid, started })
    }

    pub(super) fn pid(self) -> i32 {
        self.pid
    }

    pub(super) fn is_running(self) -> bool {
        running_since(self.pid) == Some(self.started)
    }

    /// Sends `signal`; a process that is gone is no error.
    pub(super) fn signal(self, signal: Signal) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("{signal} to process {}", self.pid)),
        }
    }

    /// Kills it and waits until the kernel has ended it.
    pub(super) fn kill(self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        ensure!(
            self.is_gone_within(KILLED),
            "process {} does not end although it was killed",
            self.pid
        );
        Ok(())
    }

    /// Asks it to end, and kills it when it does not.
    pub(super) fn stop(self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        if self.is_gone_within(POLITE) {
            return Ok(());
        }
        self.kill()
    }

    /// Whether setsid has become what it was to start, for good: the name is the last thing to change but the environment.
    fn is_a_program(self) -> bool {
        let read = |what| std::fs::read(format!("/proc/{}/{what}", self.pid)).unwrap_or_default();
        read("comm") != b"setsid\n" && !read("environ").is_empty()
    }

    fn is_gone_within(self, limit: Duration) -> bool {
        let gone = wait::holds_within(limit, || !self.is_running());
        // A child of ours that has ended waits to be asked how.
        let _not_a_child = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
        gone
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} {}", self.pid, self.started)
    }
}

/// The start time of `pid`; nothing for one that has ended, also when its parent has not yet looked.
fn running_since(pid: i32) -> Option<u64> {
    still_running(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The start time of the process that `/proc/PID/stat` tells of, unless it has ended.
///
/// Of a process that is killed the first thread may be dead before the others are: as long as one is left, its files,
/// sockets and ports are in use.
fn still_running(stat: &str) -> Option<u64> {
    // The program's name is in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let threads: u64 = fields.nth(16)?.parse().ok()?;
    if state == "X" || state == "Z" && threads <= 1 {
        return None;
    }
    fields.nth(1)?.parse().ok()
}

/// The records of a cluster's processes, a file for each.
#[derive(Clone, Debug)]
pub(super) struct Processes {
    cluster: PathBuf,
}

impl Processes {
    pub(super) fn of(cluster: &Path) -> Self {
        Self {
            cluster: cluster.to_owned(),
        }
    }

    fn record(&self, name: &str) -> PathBuf {
        self.cluster.join("processes").join(name)
    }

    /// Starts `command` in a session of its own, its output appended to `log`, and records it as `name`.
    pub(super) fn start(&self, name: &str, command: &Command, log: &Path) -> Result<Process> {
        make_folder(&self.cluster.join("processes"))?;
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| log.display().to_string())?;
        // setsid(1) becomes the program: the id stays the same.
        let mut session = Command::new("setsid");
        let _session = session
            .arg(command.get_program())
            .args(command.get_args())
            .envs(
                command
                    .get_envs()
                    .filter_map(|(key, value)| Some((key, value?))),
            )
            .env(MARK, &self.cluster)
            .current_dir(&self.cluster)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = tools::start(&mut session).with_context(|| format!("start {name}"))?;
        let process = i32::try_from(child.id()).ok().and_then(Process::of);
        let process = process.with_context(|| format!("{name} ended at once: {}", tail(log)))?;
        // Until setsid has become the program, its environment and with it the mark can be missing.
        ensure!(
            wait::holds_within(STARTED, || !process.is_running() || process.is_a_program()),
            "{name} did not start"
        );
        self.remember(name, process)?;
        Ok(process)
    }

    /// Records `process` as `name`.
    pub(super) fn remember(&self, name: &str, process: Process) -> Result<()> {
        write(&self.record(name), process.to_string())
    }

    /// The process recorded as `name`, if it runs.
    pub(super) fn get(&self, name: &str) -> Option<Process> {
        let text = std::fs::read_to_string(self.record(name)).ok()?;
        let (pid, started) = text.split_once(' ')?;
        let process = Process {
            pid: pid.parse().ok()?,
            started: started.parse().ok()?,
        };
        process.is_running().then_some(process)
    }

    /// Asks `name` to end and waits for it; one that does not run is no error.
    pub(super) fn stop(&self, name: &str) -> Result<()> {
        self.get(name).map_or(Ok(()), Process::stop)
    }

    /// Kills `name` and waits for its end; one that does not run is no error.
    pub(super) fn kill(&self, name: &str) -> Result<()> {
        self.get(name).map_or(Ok(()), Process::kill)
    }

    /// Every process with this cluster's mark, recorded or not: a start may have failed between the two.
    pub(super) fn all(&self) -> Vec<Process> {
        let mark = format!("{MARK}={}", self.cluster.display());
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                let environment = std::fs::read(format!("/proc/{pid}/environ"));
                let environment = environment.unwrap_or_default();
                environment
                    .split(|byte| *byte == 0)
                    .any(|one| one == mark.as_bytes())
            })
            .filter_map(Process::of)
            .collect()
    }
}

/// The last lines of a log, for messages.
pub(super) fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.len().saturating_sub(15);
    format!("{}:\n{}", log.display(), lines[last..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_record_and_not_after_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let processes = Processes::of(folder.path());
        let mut command = Command::new("sleep");
        let _command = command.arg("600");
        let log = folder.path().join("log");
        let started = processes.start("sleeper", &command, &log).unwrap();
        assert_eq!(processes.get("sleeper"), Some(started));
        assert!(processes.all().contains(&started));
        processes.stop("sleeper").unwrap();
        assert_eq!(processes.get("sleeper"), None);
        assert!(processes.all().is_empty());
    }

    #[test]
    fn a_process_runs_until_its_last_thread_has_ended() {
        let stat = |state: &str, threads: u64| {
            format!("7 (a) b) {state} 1 7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 {threads} 0 12345 0 0")
        };
        assert_eq!(still_running(&stat("S", 1)), Some(12345));
        assert_eq!(still_running(&stat("Z", 3)), Some(12345));
        assert_eq!(still_running(&stat("Z", 1)), None);
        assert_eq!(still_running(&stat("X", 0)), None);
    }

    #[test]
    fn a_later_process_with_the_same_id_is_another_one() {
        let ours = i32::try_from(std::process::id()).unwrap();
        let process = Process::of(ours).unwrap();
        let earlier = Process {
            started: process.started - 1,
            ..process
        };
        assert!(process.is_running());
        assert!(!earlier.is_running());
    }
}
