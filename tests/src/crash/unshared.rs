//! The scenarios in which data is copied where blocks cannot be shared (ext4). The operations and their steps are the same, what
//! happens between them is not. Each kind of fault meets a snapshot and a new volume, not all of them in every form: that is done on
//! XFS.

use super::scenario::Scenario;
use super::{making, repack, snapshots};

/// To be killed.
#[must_use]
pub fn killed() -> Vec<Scenario> {
    called(&["snapshot of an idle volume", "clone", "compress a snapshot"])
}

/// To lose the power.
#[must_use]
pub fn without_power() -> Vec<Scenario> {
    called(&["snapshot of a published block volume", "restore"])
}

/// To fail.
#[must_use]
pub fn that_can_fail() -> Vec<Scenario> {
    called(&["snapshot of an idle volume", "restore"])
}

fn called(names: &[&str]) -> Vec<Scenario> {
    let all = [
        snapshots::scenarios(),
        snapshots::attached(),
        making::scenarios(),
        repack::scenarios(),
    ];
    let mut found: Vec<Scenario> = all.into_iter().flatten().collect();
    found.retain(|scenario| names.contains(&scenario.name));
    assert_eq!(found.len(), names.len(), "{names:?}");
    found
}
