//! One cluster for all tests of a test program, ended when the program has ended, however that ended.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result};

use super::{Cluster, Options};
use crate::{binaries, tools};

/// The variable that names the folder of a running cluster to be used instead of one of the test's own.
const RUNNING: &str = "VD_CLUSTER";

/// The cluster that all tests of this program share: two nodes on XFS, started by the first call. `guard` is the program
/// `cluster` (`env!("CARGO_BIN_EXE_cluster")`), which takes the cluster apart when this process has ended.
///
/// With `VD_CLUSTER=folder` in the environment it is the cluster that already runs in that folder, and stays.
#[track_caller]
#[must_use]
pub fn shared(guard: &str) -> &'static Cluster {
    shared_with(guard, |_usual| {})
}

/// The same, started as `change` says. All tests of a program have to ask for the same.
#[track_caller]
#[must_use]
pub fn shared_with(guard: &str, change: impl FnOnce(&mut Options)) -> &'static Cluster {
    static SHARED: OnceLock<(Cluster, Option<Child>)> = OnceLock::new();
    let open = || open(guard, change).unwrap_or_else(|error| panic!("no cluster: {error:#}"));
    &SHARED.get_or_init(open).0
}

fn open(guard: &str, change: impl FnOnce(&mut Options)) -> Result<(Cluster, Option<Child>)> {
    if let Some(folder) = std::env::var_os(RUNNING) {
        let folder = Path::new(&folder);
        let none = || format!("{RUNNING}: no cluster runs in {}", folder.display());
        return Ok((Cluster::running(folder)?.with_context(none)?, None));
    }
    let folder = binaries::project().join(format!(".cache/cluster/test-{}", std::process::id()));
    // Guarded before it starts: also a start may be interrupted.
    let guard = guarded(guard, &folder)?;
    let mut options = Options::new(folder);
    change(&mut options);
    Ok((Cluster::start(&options)?, Some(guard)))
}

/// Starts the program `cluster` as guard of the cluster in `folder`: it takes it apart when this process, or whoever keeps
/// the returned child's input open, has ended.
///
/// # Errors
/// When it does not start.
pub fn guarded(program: &str, folder: &Path) -> Result<Child> {
    let mut command = Command::new(program);
    // Not reached by the Ctrl-C that ends the tests.
    let _command = command
        .args(["guard", "--folder"])
        .arg(folder)
        .stdin(Stdio::piped())
        .process_group(0);
    tools::start(&mut command).with_context(|| format!("start {program}"))
}

/// Waits until nobody keeps the standard input open, and takes the cluster in `folder` apart, unless `VD_KEEP_CLUSTER` is
/// set.
///
/// # Errors
/// When something of the cluster does not go.
pub fn guard(folder: &Path) -> Result<()> {
    let _nothing = std::io::stdin().read_to_end(&mut Vec::new())?;
    if std::env::var_os("VD_KEEP_CLUSTER").is_some() {
        return Ok(());
    }
    Cluster::stop(folder).map(drop)
}
