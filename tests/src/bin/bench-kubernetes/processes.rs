//! What the driver's processes on the nodes of a cluster need.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::cluster::Cluster;

/// One process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    program: String,
    resident_kib: u64,
    /// User and system time, in clock ticks of 10 ms.
    ticks: u64,
}

/// The driver's processes of this cluster by their ids. The supervisor of an agent is one of its own, and small.
pub(crate) fn of(cluster: &Cluster) -> Result<BTreeMap<u32, Process>> {
    let groups: Vec<String> = cluster
        .nodes()
        .iter()
        .map(tests::cluster::Node::cgroup)
        .collect();
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let is_ours = |text: String| {
            groups
                .iter()
                .any(|group| text.contains(&format!("/{group}/")))
        };
        if !fs::read_to_string(entry.path().join("cgroup")).is_ok_and(is_ours) {
            continue;
        }
        if let Some(process) = read(&entry.path()) {
            let _earlier = found.insert(pid, process);
        }
    }
    ensure!(!found.is_empty(), "no process of the driver was found");
    Ok(found)
}

/// `None` for a process of somebody else, or one that ended meanwhile.
fn read(folder: &Path) -> Option<Process> {
    let program = fs::read_to_string(folder.join("comm"))
        .ok()?
        .trim()
        .to_owned();
    if !["csi-node", "csi-controller"].contains(&program.as_str()) {
        return None;
    }
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // Behind the name in parentheses: state is field 3, utime 14, stime 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some(Process {
        program,
        resident_kib: resident.trim().trim_end_matches(" kB").parse().ok()?,
        ticks: fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?,
    })
}

/// The most that one process of `program` has in memory.
pub(crate) fn resident_kib(found: &BTreeMap<u32, Process>, program: &str) -> u64 {
    found
        .values()
        .filter(|process| process.program == program)
        .map(|process| process.resident_kib)
        .max()
        .unwrap_or_default()
}

/// The most processor time that one process of `program` took, in thousandths of a core.
pub(crate) fn millicores(
    before: &BTreeMap<u32, Process>,
    after: &BTreeMap<u32, Process>,
    program: &str,
    time: Duration,
) -> f64 {
    let ticks = after
        .iter()
        .filter(|(_, process)| process.program == program)
        .filter_map(|(pid, process)| Some(process.ticks.saturating_sub(before.get(pid)?.ticks)))
        .max()
        .unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "seconds of work at most")]
    let ms = ticks as f64 * 10.0;
    ms / time.as_secs_f64()
}
