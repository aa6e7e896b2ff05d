//! Crashes at every step: scenarios, the faults that are done to them, and the loop over all of both.
//!
//! ```text
//! prepare ─> start with a fault ─> act, and die in it ─> (the power too) ─> (die again in recovery) ─> start
//!         ─> what was acknowledged is whole, the rest whole or absent ─> the same call again succeeds
//!         ─> bystanders are untouched, `vdctl pool check` is clean, nothing is left
//! ```
//! The steps come from `pool::fault::Step`: a scenario names the durable operations it goes through and is crashed at each
//! of their steps. One that is not reached fails the test, and so does one that no scenario goes through.

pub mod campaign;
pub mod case;
pub mod deletions;
pub mod errno;
pub mod growth;
pub mod integrity;
pub mod making;
pub mod node_calls;
pub mod repack;
pub mod scenario;
pub mod snapshots;
pub mod soak;
pub mod unshared;
pub mod world;

/// Every scenario.
#[must_use]
pub fn all() -> Vec<scenario::Scenario> {
    [
        making::scenarios(),
        deletions::scenarios(),
        growth::scenarios(),
        growth::attached(),
        snapshots::scenarios(),
        snapshots::attached(),
        repack::scenarios(),
        integrity::scenarios(),
        node_calls::scenarios(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Those whose steps are also made to fail: what writes new objects and larger ones.
#[must_use]
pub fn that_can_fail() -> Vec<scenario::Scenario> {
    [
        making::scenarios(),
        growth::scenarios(),
        snapshots::scenarios(),
        snapshots::attached(),
    ]
    .into_iter()
    .flatten()
    .filter(|scenario| !scenario.at_start)
    .collect()
}
