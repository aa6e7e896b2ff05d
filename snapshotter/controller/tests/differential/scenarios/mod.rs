//! What users do and drivers answer. A scenario acts on the API server and on the driver, and knows nothing of the programs but where
//! it states what each of them makes of it.

mod away;
mod claims;
mod classes;
mod defaults;
mod deleting;
mod failing;
mod given;
mod leaks;
mod making;
mod readers;
mod refusals;
mod restarts;
mod restoring;
mod secrets;

use serde_json::Value;

use crate::play::Table;
use crate::table;

const SOURCE: &str = "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection";
const BOUND: &str = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection";
const CLAIM: &str = "snapshot.storage.kubernetes.io/pvc-as-source-protection";
const CONTENT: &str = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";

/// Each in a namespace of its own, with a class of its own.
pub const AT_ONCE: Table = table![
    making:
        a_snapshot_is_made_and_deleted
        what_a_user_writes_on_a_snapshot_stays
        a_snapshot_of_a_filesystem_says_so
        two_snapshots_of_one_claim_are_two
        a_snapshot_of_the_same_name_is_another_one
        a_driver_that_says_no_size_and_no_time;
    readers:
        cdi_finds_every_field_it_reads
        kubevirt_finds_every_field_it_reads;
    classes:
        a_class_that_comes_later_is_found
        a_class_of_another_driver
        a_class_that_is_deleted_after_the_snapshot_was_made
        a_class_that_is_deleted_while_the_snapshot_is_made
        a_class_that_is_changed_after_the_snapshot_was_made
        a_class_that_is_changed_while_the_snapshot_is_made
        a_snapshot_whose_class_never_came_is_deleted
        a_reserved_parameter_that_does_not_exist;
    secrets:
        a_secret_that_comes_later_is_sent
        a_secret_that_is_gone_when_it_is_deleted
        a_snapshot_whose_secret_never_came_is_deleted
        half_a_secret_is_told
        a_secret_named_after_what_does_not_exist_is_told
        a_secret_for_listing_is_sent;
    claims:
        a_claim_that_comes_later_is_found
        a_claim_that_is_bound_later_is_found
        a_claim_of_another_driver
        a_claim_that_is_lost
        a_claim_whose_volume_is_gone
        a_claim_whose_volume_is_of_another_claim
        a_claim_whose_volume_is_of_no_driver
        a_claim_that_is_being_deleted
        a_claim_is_protected_until_all_its_snapshots_are_ready
        a_snapshot_of_a_deleted_claim_is_still_made
        a_claims_finalizer_taken_off_by_hand;
    given:
        a_given_content_is_bound
        a_given_content_that_comes_later_is_bound
        a_given_handle_that_does_not_exist_is_told
        a_given_content_for_another_snapshot
        a_given_content_for_an_earlier_snapshot_of_that_name
        a_given_content_of_another_driver
        a_given_content_that_was_made_for_a_claim
        a_given_snapshot_is_deleted_if_that_is_its_policy
        a_given_content_gets_the_snapshots_class
        a_given_content_with_another_class
        a_given_snapshot_whose_class_does_not_exist
        a_given_content_that_nobody_asked_for_is_deleted
        a_given_snapshot_that_was_never_bound_is_deleted
        a_given_content_whose_snapshot_does_not_exist
        a_given_content_with_a_mode_and_leave_to_change_it
        a_driver_that_cannot_list_given_ones
        a_given_snapshot_that_could_not_be_listed_is_deleted
        what_was_retained_is_given_again;
    failing:
        a_driver_that_fails_is_asked_again
        a_driver_that_refuses_is_asked_again
        a_driver_that_is_busy_is_asked_again
        a_driver_that_has_no_room_is_asked_again
        a_driver_that_is_slow
        a_snapshot_that_is_not_ready_is_asked_for_until_it_is
        a_snapshot_that_is_not_ready_and_then_fails;
    refusals:
        a_content_that_a_policy_forbids_is_told;
    deleting:
        a_retained_snapshot_stays_at_the_driver
        a_policy_that_is_changed_later_counts
        a_deletion_that_the_driver_refuses_is_tried_again
        a_snapshot_is_kept_while_it_is_restored
        a_content_deleted_by_hand_stays_until_its_snapshot_goes
        a_content_that_is_gone_is_told
        a_snapshots_finalizers_taken_off_by_hand_come_back
        a_contents_finalizer_taken_off_by_hand_comes_back
        a_snapshot_is_deleted_while_its_claim_is_missing
        a_snapshot_is_deleted_while_the_driver_is_slow
        a_snapshot_is_deleted_before_it_is_ready
        a_snapshot_is_deleted_while_the_driver_fails
        a_retained_snapshot_is_deleted_while_the_driver_fails;
    leaks:
        no_room_for_ever_and_deleted
        pr_1392_issue_1388_deleted_while_creating_times_out
        made_though_the_driver_said_no
        made_while_the_driver_was_unavailable_for_ever
        a_call_that_never_ends;
];

/// They change what snapshots without a class get, or have a csi-provisioner: one after the other.
pub const ONE_BY_ONE: &[Table] = &[
    table![defaults: no_default_class;],
    table![defaults: one_default_class;],
    table![defaults: two_default_classes;],
    table![defaults: a_default_class_of_another_driver;],
    table![defaults: no_class_and_no_claim;],
    table![restoring: issue_1449_a_restore_whose_claim_and_snapshot_are_deleted;],
    table![restoring: issue_1449_and_the_provisioner_lets_go_of_the_snapshot;],
    table![restoring: issue_486_a_restore_whose_provisioner_is_lost;],
];

/// In the middle of each the programs of all sides are killed and started again.
pub const RESTARTED: Table = table![
    restarts:
        before_there_is_a_class
        before_there_is_a_claim
        before_the_claim_is_bound
        while_the_driver_does_not_answer
        while_the_driver_fails
        while_the_driver_has_no_room
        before_it_is_ready
        when_it_is_ready
        made_while_nobody_serves
        deleted_while_nobody_serves
        deleted_with_its_content_while_nobody_serves
        made_and_deleted_while_nobody_serves
        while_it_is_restored
        while_the_driver_refuses_to_delete
        before_a_given_content_is_there
        while_a_given_handle_does_not_exist
        a_retained_one_deleted_while_nobody_serves
        deleted_while_the_driver_fails
        bound_and_deleted_while_nobody_serves
        let_go_by_hand_while_nobody_serves
        let_go_by_hand_and_made_again_while_nobody_serves;
    leaks:
        pr_1446_contents_that_were_deleted_before_they_were_marked;
];

/// So many that others would wait for them.
pub const MANY: Table = table![making: a_hundred_at_once_are_all_made;];

/// The driver's process goes, which csi-snapshotter does not survive.
pub const ALONE: Table = table![away: a_driver_that_goes_and_comes_back;];

fn finalizers(object: &Value) -> Vec<&str> {
    let all = object["metadata"]["finalizers"].as_array();
    all.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn is_ready(object: &Value) -> bool {
    object["status"]["readyToUse"] == true
}
