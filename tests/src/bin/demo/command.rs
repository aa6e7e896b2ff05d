//! Runs programs of the system: with a bound on their time, killed when nobody waits for them any
//! more, and with what they complained about in the error.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

/// A program that takes longer is taken for hung.
const LIMIT: Duration = Duration::from_secs(120);

/// Prepares `program` in a process group of its own: a Ctrl-C at the terminal is for the demo, which
/// then stops its children in the right order.
pub(crate) fn prepare(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let _ = command
        .process_group(0)
        .kill_on_drop(true)
        .stdin(Stdio::null());
    command
}

/// Runs `program` to its end and returns what it printed.
///
/// # Errors
/// When it cannot be started, fails, or takes more than two minutes.
pub(crate) async fn run<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> Result<String> {
    let output = prepare(program).args(arguments).output();
    let output = tokio::time::timeout(LIMIT, output)
        .await
        .with_context(|| format!("{program} did not end within {} s", LIMIT.as_secs()))?
        .with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} ended with {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
