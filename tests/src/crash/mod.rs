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
pub mod growth;
pub mod making;
pub mod scenario;
pub mod snapshots;

/// Every scenario.
#[must_use]
pub fn all() -> Vec<scenario::Scenario> {
    [
        making::scenarios(),
        deletions::scenarios(),
        growth::scenarios(),
        snapshots::scenarios(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
