//! The first process of the container: it starts the agent as its child and outlives it for as long as a filesystem may be
//! frozen.
//!
//! When the first process of a container ends, the kernel kills all others, the guards of freezes included, and a frozen
//! filesystem would stay frozen until the next start. So the first process does nothing that could fail: it starts the agent,
//! hands signals on, takes in orphans, and after the agent's end waits for the guards, which thaw at once.

use std::ffi::OsString;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pool::attach::freeze::LONGEST;

/// The hidden first argument of the child.
pub const CHILD_ARGUMENT: &str = "agent-child";
/// How much longer than a freeze is waited for the guards.
const MARGIN: Duration = Duration::from_secs(1);
/// Signals that are handed on.
const HANDED_ON: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Whether this process has to supervise one: it is the first of a container.
#[must_use]
pub fn is_first_process() -> bool {
    nix::unistd::getpid() == Pid::from_raw(1)
}

/// What the child does first: it hears signals again, which its supervisor keeps for itself, and ends when its supervisor
/// does, however that ends. No thread may have been started before.
pub fn follow_supervisor() {
    if let Err(error) = signals().thread_unblock() {
        tracing::warn!(%error, "the agent does not hear signals");
    }
    if let Err(error) = prctl::set_pdeathsig(Signal::SIGTERM) {
        tracing::debug!(%error, "the agent does not notice the end of its supervisor");
    }
}

/// Runs the agent as a child with `arguments`, and answers its exit status, 128 and the signal's number if one killed it. No
/// thread may have been started before.
///
/// # Errors
/// When no child can be started or waited for.
pub fn supervise(arguments: impl Iterator<Item = OsString>) -> anyhow::Result<u8> {
    let signals = signals();
    signals.thread_block().context("block signals")?;
    // Guards of an agent that died become our children, also where we are not the first process.
    prctl::set_child_subreaper(true).context("become the parent of orphans")?;
    let program = std::env::current_exe().context("find this program")?;
    let child = Command::new(program)
        .arg(CHILD_ARGUMENT)
        .args(arguments)
        .spawn()
        .context("start the agent")?;
    let status = wait_for(&child, &signals)?;
    wait_for_guards(Instant::now() + LONGEST + MARGIN);
    Ok(status)
}

fn signals() -> SigSet {
    let mut signals = SigSet::empty();
    for signal in HANDED_ON {
        signals.add(signal);
    }
    signals.add(Signal::SIGCHLD);
    signals
}

fn pid(child: &Child) -> anyhow::Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

fn wait_for(child: &Child, signals: &SigSet) -> anyhow::Result<u8> {
    let agent = pid(child)?;
    loop {
        match signals.wait().context("wait for signals")? {
            Signal::SIGCHLD => {
                if let Some(status) = reap(agent)? {
                    return Ok(status);
                }
            }
            signal => match kill(agent, signal) {
                // Its end is in the queue already.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno).context("hand a signal on"),
            },
        }
    }
}

/// Takes in all children that ended; answers the status of `agent` if it is among them.
fn reap(agent: Pid) -> anyhow::Result<Option<u8>> {
    let mut found = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(found),
            Ok(WaitStatus::Exited(pid, code)) if pid == agent => {
                found = Some(u8::try_from(code).unwrap_or(u8::MAX));
            }
            Ok(WaitStatus::Signaled(pid, signal, _core)) if pid == agent => {
                found = Some(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("wait for children"),
        }
    }
}

/// Waits until no process is left that may hold a freeze, at most until `end`: a guard ends within [`LONGEST`], and
/// whatever else the agent left (mkfs of an empty volume) is not waited for any longer than that.
fn wait_for_guards(end: Instant) {
    while Instant::now() < end {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return,
            Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_millis(5)),
            Ok(_ended) => {}
            Err(_interrupted) => {}
        }
    }
}
