//! What a test must not leave: mounts, loop devices, processes, half-made or half-deleted objects.

use std::path::Path;
use std::time::Duration;

use crate::scratch_fs::ScratchFs;
use crate::{loops, mounts, server, wait};

/// How long a loop device may take to go after it was detached.
const KERNEL_LIMIT: Duration = Duration::from_secs(2);
/// How long the emptying of the trash in the background may take.
const TRASH_LIMIT: Duration = Duration::from_secs(20);

/// What of the test's own is left while its server still runs (`server` is the id of that process).
#[must_use]
pub fn find(fs: &ScratchFs, server: Option<u32>) -> Vec<String> {
    // A device that another test happens to list goes only when that is done with it.
    let mut found = Vec::new();
    let _settled = wait::holds_within(KERNEL_LIMIT, || {
        found = left_in_kernel(fs);
        found.is_empty()
    });
    let server = server.and_then(|pid| i32::try_from(pid).ok());
    for pid in server::processes_of(fs.folder()) {
        if Some(pid) != server {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            found.push(format!("process {pid}: {line}"));
        }
    }
    if fs.is_mounted() {
        found.extend(left_in_pool(&fs.mount_point()));
    }
    found
}

fn left_in_kernel(fs: &ScratchFs) -> Vec<String> {
    let mounts = mounts::below(fs.folder())
        .into_iter()
        .filter(|mount| mount.target != fs.mount_point())
        .map(|mount| format!("mount at {}", mount.target.display()));
    let on_targets = loops::below(&fs.folder().join("kubelet"));
    let devices = fs.loops().into_iter().chain(on_targets);
    let devices = devices.map(|one| format!("{} on {}", one.name.display(), one.back_file));
    mounts.chain(devices).collect()
}

fn left_in_pool(pool: &Path) -> Vec<String> {
    let entries = |name: &str| -> Vec<String> {
        let folder = std::fs::read_dir(pool.join(name));
        folder
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| format!("in the pool: {}", entry.path().display()))
            .collect()
    };
    let _emptied = wait::holds_within(TRASH_LIMIT, || entries("trash").is_empty());
    [entries("tmp"), entries("trash")].concat()
}

/// Nothing of the test's own may be left.
#[track_caller]
pub fn none(fs: &ScratchFs, server: Option<u32>) {
    let found = find(fs, server);
    assert!(found.is_empty(), "left behind: {found:#?}");
}
