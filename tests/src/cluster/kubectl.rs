//! What is asked of the API server through kubectl.

use anyhow::{Context as _, Result};

use super::command::succeeded;
use super::site::Site;
use crate::tools::{self, Ran};

/// How long `kubectl wait` watches.
const PATIENCE: &str = "--timeout=110s";

/// Runs `kubectl` with `arguments` as administrator.
pub(super) fn attempt(site: &Site, arguments: &[&str]) -> Ran {
    let command = site.kubectl();
    let own = command.get_args();
    let all: Vec<_> = own
        .chain(arguments.iter().map(std::ffi::OsStr::new))
        .collect();
    tools::attempt(command.get_program(), &all)
}

/// The same, which must succeed; returns what it printed.
pub(super) fn run(site: &Site, arguments: &[&str]) -> Result<String> {
    succeeded(attempt(site, arguments))
}

/// Watches `object` (`kind/name`) until `what` holds: `create`, `delete`, `condition=...` or `jsonpath=...`.
pub(super) fn wait_for(site: &Site, object: &str, what: &str, more: &[&str]) -> Result<()> {
    let condition = format!("--for={what}");
    let arguments = [&["wait", object, &condition, PATIENCE], more].concat();
    let _quiet = run(site, &arguments).with_context(|| format!("wait for {what} of {object}"))?;
    Ok(())
}
