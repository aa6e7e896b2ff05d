//! Commands whose failure is an error with what they said.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::tools::{self, Ran};

/// Runs `program`, which must succeed, and returns what it printed.
pub(super) fn run<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[A]) -> Result<String> {
    succeeded(tools::attempt(program, arguments))
}

/// The output of a command that must have succeeded.
pub(super) fn succeeded(ran: Ran) -> Result<String> {
    ensure!(ran.code == Some(0), "{ran}");
    Ok(ran.out)
}

/// Runs `command`, which must succeed, with the file `input` as its standard input.
pub(super) fn feed(mut command: Command, input: &Path) -> Result<()> {
    let file = File::open(input).with_context(|| input.display().to_string())?;
    let _command = command
        .stdin(file)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let output = tools::start(&mut command)?.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?} with {}: {}: {said}",
        input.display(),
        output.status
    );
    Ok(())
}

/// Writes a file of the cluster's own.
pub(super) fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// Makes a folder of the cluster's own and those above it.
pub(super) fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))
}
