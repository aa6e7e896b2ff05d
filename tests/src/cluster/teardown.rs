//! The end of a cluster, from what its folder says: also after a start that failed, or a stop that was interrupted.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MntFlags, umount2};

use super::cgroups;
use super::control_plane::Component;
use super::node::Node;
use super::site::Site;
use crate::{loops, mounts};

/// Ends everything of the cluster in `folder` and removes the folder. Says whether there was a cluster.
pub(super) fn take_apart(folder: &Path) -> Result<bool> {
    let Some(site) = Site::read(folder)? else {
        ensure!(
            !folder.exists() || std::fs::remove_dir(folder).is_ok(),
            "{} has files but is no cluster's folder: remove it by hand",
            folder.display()
        );
        return Ok(false);
    };
    let mut failures = Vec::new();
    let mut note = |what: String, result: Result<()>| {
        if let Err(error) = result {
            failures.push(format!("{what}: {error:#}"));
        }
    };
    for number in 1..=site.options.disks.len() {
        let node = Node::of(&site, number);
        note(node.name(), node.power_off());
    }
    for component in Component::ALL.iter().rev() {
        note(
            component.name().to_owned(),
            site.processes.stop(component.name()),
        );
    }
    // A start that failed may have started what it had no time to write down.
    for process in site.processes.all() {
        note(format!("process {process}"), process.kill());
    }
    for mount in mounts::below(folder).into_iter().rev() {
        let result = umount2(&mount.target, MntFlags::MNT_DETACH);
        note(
            mount.target.display().to_string(),
            result.map_err(Into::into),
        );
    }
    note("network".to_owned(), site.network.remove(folder));
    if !failures.is_empty() {
        bail!(
            "not everything of the cluster in {} ends: {failures:#?}",
            folder.display()
        );
    }
    std::fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    Ok(true)
}

/// What is left of the cluster in `folder`, as sentences: nothing after a good stop.
pub(super) fn residue(site: &Site) -> Vec<String> {
    let folder = site.folder();
    let mut left = Vec::new();
    for process in site.processes.all() {
        left.push(format!("process {process}"));
    }
    for mount in mounts::below(folder) {
        left.push(format!("mount at {}", mount.target.display()));
    }
    for one in loops::below(folder) {
        left.push(format!("{} on {}", one.name.display(), one.back_file));
    }
    if site.network.belongs_to(folder) {
        left.push(format!("network bridge {}", site.network.bridge()));
    }
    if folder.exists() {
        left.push(format!("folder {}", folder.display()));
    }
    // Another cluster that has taken the index since has groups of the same names.
    if !site.network.is_claimed() {
        let nodes = (1..=site.options.disks.len()).map(|number| Node::of(site, number));
        let cables = nodes.clone().filter(Node::is_plugged);
        left.extend(cables.map(|node| format!("network cable to {}", node.name())));
        let groups = nodes.flat_map(|node| cgroups::existing(&node.cgroup()));
        left.extend(groups.map(|group| format!("control group {}", group.display())));
    }
    left
}
