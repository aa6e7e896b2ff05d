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
use tests::crash::campaign::Campaign;
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
fn every_step_and_every_scenario_is_in_the_document() {
    let path = tests::binaries::project().join("docs/crash-consistency.md");
    let text = std::fs::read_to_string(path).unwrap();
    // Lines may be broken within a name.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let steps = Step::ALL.iter().map(|step| step.name());
    let scenarios = crash::all();
    let missing: Vec<&str> = steps
        .chain(scenarios.iter().map(|scenario| scenario.name))
        .filter(|name| !text.contains(&format!("`{name}`")))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn a_kill_at_any_step_loses_nothing_that_was_acknowledged() {
    let mut campaign = Campaign::new("killed");
    campaign.crash_at_every_step(&crash::all(), Fault::Kill);
    campaign.end();
}

#[test]
fn a_power_loss_at_any_step_loses_nothing_that_was_acknowledged() {
    let mut campaign = Campaign::new("power lost");
    campaign.crash_at_every_step(&crash::all(), Fault::PowerLoss);
    campaign.end();
}

#[test]
fn a_second_crash_in_recovery_changes_nothing() {
    let mut campaign = Campaign::new("crashed twice");
    campaign.crash_twice_at_every_step(&crash::all());
    campaign.end();
}

#[test]
fn what_was_acknowledged_survives_a_power_loss_in_that_moment() {
    let mut campaign = Campaign::new("power lost when acknowledged");
    campaign.lose_power_when_acknowledged(&crash::all());
    campaign.end();
}

#[test]
fn a_step_that_fails_is_reported_and_the_same_call_succeeds_later() {
    let mut campaign = Campaign::new("steps that fail");
    campaign.fail_at_every_step(&crash::that_can_fail());
    campaign.end();
}
