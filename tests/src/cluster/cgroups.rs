//! The control groups of a node's pods, in whichever version the machine has.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::command::{make_folder, write};
use crate::wait;

const ROOT: &str = "/sys/fs/cgroup";
/// How long the kernel may take to forget the last process of a group.
const EMPTY: Duration = Duration::from_secs(10);

/// The roots in which a group has to exist: one, or with version 1 one for each controller.
fn roots() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

/// Makes the group `name` everywhere: kubelet wants the root it is given to exist.
pub(super) fn make(name: &str) -> Result<()> {
    for root in roots() {
        let group = root.join(name);
        make_folder(&group)?;
        // A cpuset of version 1 is empty until somebody fills it, and takes no process before.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if root.join("cpuset.sched_load_balance").exists() {
                let all = std::fs::read(root.join(file)).with_context(|| file.to_owned())?;
                write(&group.join(file), all)?;
            }
        }
    }
    Ok(())
}

/// Removes the group `name` and those below it; no process may be left in them.
pub(super) fn remove(name: &str) -> Result<()> {
    for root in roots() {
        remove_tree(&root.join(name))?;
    }
    Ok(())
}

fn remove_tree(group: &Path) -> Result<()> {
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten();
    for entry in entries {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    let mut result = Ok(());
    let gone = wait::holds_within(EMPTY, || {
        result = std::fs::remove_dir(group);
        result.is_ok() || !group.exists()
    });
    match result {
        Err(error) if !gone => bail!("remove the control group {}: {error}", group.display()),
        _gone => Ok(()),
    }
}

/// The groups of `name` that exist.
pub(super) fn existing(name: &str) -> Vec<PathBuf> {
    let groups = roots().into_iter().map(|root| root.join(name));
    groups.filter(|group| group.exists()).collect()
}
