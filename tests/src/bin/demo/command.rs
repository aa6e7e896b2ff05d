//! Runs programs of the system: with a bound on their time, killed when nobody waits for them any
//! more, and with what they complained about in the error.

use std::ffi::OsStr;
use std::ops::{Deref, DerefMut};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

/// A program that takes longer is taken for hung.
const LIMIT: Duration = Duration::from_secs(120);
/// A child that was killed is gone within this time, unless the kernel hangs.
const DEATH_LIMIT: Duration = Duration::from_secs(10);
/// How often a child that was killed is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Prepares `program` in a process group of its own: a Ctrl-C at the terminal is for the demo, which
/// then stops its children in the right order.
pub(crate) fn prepare(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let _ = command.process_group(0).stdin(Stdio::null());
    command
}

/// A child that is gone, and with it everything that it held open, once this is dropped.
pub(crate) struct Owned(Child);

impl Owned {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn spawn(mut command: Command) -> Result<Self> {
        let child = command.spawn();
        let program = command
            .as_std()
            .get_program()
            .to_string_lossy()
            .into_owned();
        child.map(Self).with_context(|| format!("start {program}"))
    }
}

impl Deref for Owned {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Owned {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let end = Instant::now() + DEATH_LIMIT;
        // An error says that it is gone already.
        while self.0.start_kill().is_ok() && matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() >= end {
                crate::tell::plain("a child of the demo does not die");
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Runs `program` to its end and returns what it printed.
///
/// # Errors
/// When it cannot be started, fails, or takes more than two minutes.
pub(crate) async fn run<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> Result<String> {
    let mut command = prepare(program);
    let _ = command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = Owned::spawn(command)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = async { tokio::try_join!(child.wait(), all_of(out), all_of(err)) };
    let (status, told, complaint) = tokio::time::timeout(LIMIT, ended)
        .await
        .with_context(|| format!("{program} did not end within {} s", LIMIT.as_secs()))?
        .with_context(|| program.to_owned())?;
    if !status.success() {
        bail!("{program} ended with {status}: {}", complaint.trim());
    }
    Ok(told)
}

async fn all_of(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _count = pipe.read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
