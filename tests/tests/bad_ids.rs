//! Ids that name nothing, in every call that takes one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and their folders are their own"
)]

use tests::client::Client;
use tests::csi;
use tests::kubelet::Attachment;
use tests::requests::{block, expand, snapshot};
use tests::scratch_fs::MIB;
use tests::siege::{Besieged, hostile, over_long};
use tests::tree;
use tonic::{Code, Status};

const SIZE: u64 = 16 * MIB;

/// A call with the code it must have for an id that does not exist, and what it came to.
type Call = (&'static str, Code, Result<(), Status>);

/// Every call that takes the id of a volume or snapshot.
fn calls_with_id(besieged: &Besieged, id: &str) -> Vec<Call> {
    let csi = besieged.csi();
    let mut calls = controller_calls(csi, id);
    let attachment = Attachment {
        volume_id: id.to_owned(),
        ..besieged.fixture.attachment("unknown", "pod", &block())
    };
    let stats = attachment.stats(csi).map(drop);
    let expansion = attachment.expand(csi, SIZE).map(drop);
    calls.extend([
        ("NodeStageVolume", Code::NotFound, attachment.stage(csi)),
        ("NodePublishVolume", Code::NotFound, attachment.publish(csi)),
        ("NodeUnpublishVolume", Code::Ok, attachment.unpublish(csi)),
        ("NodeUnstageVolume", Code::Ok, attachment.unstage(csi)),
        ("NodeGetVolumeStats", Code::NotFound, stats),
        ("NodeExpandVolume", Code::NotFound, expansion),
    ]);
    calls
}

fn controller_calls(csi: &Client, id: &str) -> Vec<Call> {
    let volume_id = id.to_owned();
    let validate = csi.validate_volume_capabilities(csi::ValidateVolumeCapabilitiesRequest {
        volume_id: volume_id.clone(),
        volume_capabilities: vec![block()],
        ..Default::default()
    });
    let health = csi.controller_get_volume_health(csi::ControllerGetVolumeHealthRequest {
        volume_id: volume_id.clone(),
        ..Default::default()
    });
    let get = csi.controller_get_volume(csi::ControllerGetVolumeRequest { volume_id });
    let get_snapshot = csi.get_snapshot(csi::GetSnapshotRequest {
        snapshot_id: id.to_owned(),
        ..Default::default()
    });
    let by_source = csi.list_snapshots(csi::ListSnapshotsRequest {
        source_volume_id: id.to_owned(),
        ..Default::default()
    });
    let by_id = csi.list_snapshots(csi::ListSnapshotsRequest {
        snapshot_id: id.to_owned(),
        ..Default::default()
    });
    let expansion = csi.controller_expand_volume(expand(id, SIZE, block()));
    let cut = csi.create_snapshot(snapshot("cut", id));
    vec![
        ("DeleteVolume", Code::Ok, csi.delete(id)),
        ("DeleteSnapshot", Code::Ok, csi.delete_cut(id)),
        (
            "ControllerExpandVolume",
            Code::NotFound,
            expansion.map(drop),
        ),
        ("CreateSnapshot", Code::NotFound, cut.map(drop)),
        (
            "ValidateVolumeCapabilities",
            Code::NotFound,
            validate.map(drop),
        ),
        ("ControllerGetVolume", Code::NotFound, get.map(drop)),
        ("GetSnapshot", Code::NotFound, get_snapshot.map(drop)),
        (
            "ControllerGetVolumeHealth",
            Code::NotFound,
            health.map(drop),
        ),
        ("ListSnapshots by source", Code::Ok, by_source.map(drop)),
        ("ListSnapshots by id", Code::Ok, by_id.map(drop)),
    ]
}

#[track_caller]
fn assert_result(call: &str, id: &str, code: Code, result: &Result<(), Status>) {
    let id: String = id.chars().take(40).collect();
    let got = result.as_ref().err().map_or(Code::Ok, Status::code);
    assert!(
        got == code,
        "{call}({id:?}): must be {code:?}, is {result:?}"
    );
}

#[test]
fn an_id_that_names_nothing_names_nothing_whatever_it_looks_like() {
    let besieged = Besieged::new();
    // The folders of the pods are the test's own doing.
    let _made = calls_with_id(&besieged, "pvc-0b2bd8e1-6a3f-4a4a-9a53-2f1f1c2d3e4f");
    let before = besieged.list_outside();
    let ids = hostile().into_iter().chain(["a\0b".to_owned()]);
    for id in ids.chain([besieged.fixture.pool().display().to_string()]) {
        for (call, code, result) in calls_with_id(&besieged, &id) {
            assert_result(call, &id, code, &result);
        }
    }
    tree::unchanged("outside of the pool", &before, &besieged.list_outside());
    besieged.assert_pool_untouched();
}

#[test]
fn a_missing_id_is_refused() {
    let besieged = Besieged::new();
    for (call, _code, result) in calls_with_id(&besieged, "") {
        let code = if call.starts_with("List") {
            Code::Ok // no filter
        } else {
            Code::InvalidArgument
        };
        assert_result(call, "", code, &result);
    }
    assert_eq!(besieged.csi().volume_ids(), Vec::<String>::new());
}

#[test]
fn an_over_long_id_is_refused_or_names_nothing() {
    let besieged = Besieged::new();
    for id in over_long() {
        for (call, code, result) in calls_with_id(&besieged, &id) {
            // What is deleted or listed need not be a possible id.
            let code = if call.starts_with("Delete") || call.starts_with("List") {
                code
            } else {
                Code::InvalidArgument
            };
            assert_result(call, &id, code, &result);
        }
    }
    assert_eq!(besieged.csi().volume_ids(), Vec::<String>::new());
}
