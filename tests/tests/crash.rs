//! Kill and power loss at every step of every operation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use pool::fault::Step;
use tests::crash;
use tests::crash::campaign::{Campaign, Crashes};
use tests::crash::scenario::Fault;

#[test]
fn every_step_belongs_to_a_scenario() {
    let reached: Vec<Step> = crash::all().iter().flat_map(|one| one.steps()).collect();
    let forgotten: Vec<&str> = Step::ALL
        .iter()
        .filter(|step| !reached.contains(step))
        .map(|step| step.name())
        .collect();
    assert_eq!(forgotten, Vec::<&str>::new());
}

#[test]
fn a_kill_at_any_step_loses_nothing_that_was_acknowledged() {
    let mut campaign = Campaign::new("killed once");
    campaign.crash_at_every_step(&crash::all(), Fault::Kill, Crashes::Once);
    campaign.end();
}

#[test]
fn a_second_kill_in_recovery_changes_nothing() {
    let mut campaign = Campaign::new("killed twice");
    campaign.crash_at_every_step(&crash::all(), Fault::Kill, Crashes::Twice);
    campaign.end();
}

#[test]
fn a_power_loss_at_any_step_loses_nothing_that_was_acknowledged() {
    let mut campaign = Campaign::new("power lost once");
    campaign.crash_at_every_step(&crash::all(), Fault::PowerLoss, Crashes::Once);
    campaign.end();
}

#[test]
fn a_second_power_loss_in_recovery_changes_nothing() {
    let mut campaign = Campaign::new("power lost twice");
    campaign.crash_at_every_step(&crash::all(), Fault::PowerLoss, Crashes::Twice);
    campaign.end();
}
