//! Kill, power loss and failure at every step of what copies data where blocks cannot be shared.
#![allow(
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use tests::crash::campaign::Campaign;
use tests::crash::scenario::Fault;
use tests::crash::unshared;
use tests::scratch_fs::FsKind;

#[test]
fn a_kill_at_any_step_of_a_copy_loses_nothing_that_was_acknowledged() {
    let mut campaign = Campaign::on("killed on ext4", FsKind::Ext4);
    campaign.crash_at_every_step(&unshared::killed(), Fault::Kill);
    campaign.end();
}

#[test]
fn a_power_loss_at_any_step_of_a_copy_loses_nothing_that_was_acknowledged() {
    let mut campaign = Campaign::on("power lost on ext4", FsKind::Ext4);
    campaign.crash_at_every_step(&unshared::without_power(), Fault::PowerLoss);
    campaign.lose_power_when_acknowledged(&unshared::without_power());
    campaign.end();
}

#[test]
fn a_step_of_a_copy_that_fails_is_reported_and_the_same_call_succeeds_later() {
    let mut campaign = Campaign::on("steps that fail on ext4", FsKind::Ext4);
    campaign.fail_at_every_step(&unshared::that_can_fail());
    campaign.end();
}
