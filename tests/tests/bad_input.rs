//! Every field of every request, missing and hostile: the right code, nothing made, nothing outside touched.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and their folders are their own"
)]

use std::collections::HashMap;

use tests::client::{accepted, refused};
use tests::csi;
use tests::requests::{
    between, block, filesystem, from_snapshot, from_volume, snapshot, volume, with_parameter,
};
use tests::scratch_fs::MIB;
use tests::siege::{Besieged, assert_code, bad_capabilities, hostile, over_long};
use tests::tree;
use tonic::Code;

const SIZE: u64 = 16 * MIB;

#[test]
fn any_name_within_the_limit_makes_a_volume_with_a_safe_id() {
    let besieged = Besieged::new();
    let before = besieged.list_outside();
    for name in hostile() {
        let made = besieged.csi().made_volume(volume(&name, SIZE, block()));
        let id = &made.volume_id;
        let hash = id.strip_prefix("vol-").unwrap_or_default();
        assert!(
            hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{name:?} became {id}"
        );
        assert!(besieged.fixture.image(id).is_file());
        let cut = besieged.csi().made_snapshot(snapshot(&name, id));
        assert!(besieged.fixture.snapshot_file(&cut.snapshot_id).is_file());
        accepted(besieged.csi().delete_cut(&cut.snapshot_id));
        accepted(besieged.csi().delete(id));
    }
    tree::unchanged("outside of the pool", &before, &besieged.list_outside());
}

#[test]
fn a_missing_over_long_or_binary_name_is_refused() {
    let besieged = Besieged::new();
    let source = "pvc-0b2bd8e1-6a3f-4a4a-9a53-2f1f1c2d3e4f";
    for name in over_long()
        .into_iter()
        .chain(["", "a\0b", "\u{1}"].map(str::to_owned))
    {
        let made = besieged.csi().create_volume(volume(&name, SIZE, block()));
        let _refused = refused(made, Code::InvalidArgument);
        let made = besieged.csi().create_snapshot(snapshot(&name, source));
        let _refused = refused(made, Code::InvalidArgument);
    }
    besieged.assert_untouched();
}

#[test]
fn a_size_that_is_no_size_is_refused() {
    let besieged = Besieged::new();
    let huge = u64::try_from(i64::MAX).unwrap();
    let range = |required_bytes, limit_bytes| {
        Some(csi::CapacityRange {
            required_bytes,
            limit_bytes,
        })
    };
    let cases = [
        ("negative", range(-1, 0), Code::InvalidArgument),
        ("most negative", range(i64::MIN, 0), Code::InvalidArgument),
        ("negative limit", range(0, -1), Code::InvalidArgument),
        (
            "limit below",
            between(2 * SIZE, SIZE),
            Code::InvalidArgument,
        ),
        ("2^63 - 1", between(huge, 0), Code::OutOfRange),
        ("2^63 - 1 exactly", between(huge, huge), Code::OutOfRange),
        (
            "as much as fits a number",
            between(huge - MIB, 0),
            Code::OutOfRange,
        ),
        (
            "more than the pool",
            between(1 << 40, 0),
            Code::ResourceExhausted,
        ),
        (
            "no multiple between",
            between(SIZE + 1, SIZE + 2),
            Code::OutOfRange,
        ),
        ("limit of one byte", between(0, 1), Code::OutOfRange),
    ];
    for (name, capacity_range, code) in cases {
        let request = csi::CreateVolumeRequest {
            capacity_range,
            ..volume(name, SIZE, block())
        };
        let result = besieged.csi().create_volume(request);
        assert_code(name, result, code);
    }
    let xfs = csi::CreateVolumeRequest {
        capacity_range: between(SIZE, 200 * MIB),
        ..volume("xfs", SIZE, filesystem("xfs"))
    };
    assert_code("xfs", besieged.csi().create_volume(xfs), Code::OutOfRange);
    besieged.assert_untouched();
}

#[test]
fn capabilities_that_no_volume_can_have_are_refused() {
    let besieged = Besieged::new();
    for (what, volume_capabilities) in bad_capabilities() {
        let request = csi::CreateVolumeRequest {
            volume_capabilities,
            ..volume(what, SIZE, block())
        };
        let result = besieged.csi().create_volume(request);
        assert_code(what, result, Code::InvalidArgument);
    }
    besieged.assert_untouched();
}

#[test]
fn unknown_parameters_are_refused_with_the_known_ones() {
    let besieged = Besieged::new();
    let plain = || volume("parameters", SIZE, block());
    let bad = [
        ("provisionning", "thin"),
        ("provisioning", "fat"),
        ("provisioning", ""),
        ("csi.storage.k8s.io/fstype", "ntfs"),
        ("compression", "zstd"),
        ("../canary", "x"),
        ("", ""),
    ];
    for (key, value) in bad {
        let request = with_parameter(plain(), key, value);
        let status = refused(besieged.csi().create_volume(request), Code::InvalidArgument);
        assert!(
            status.message().contains("thi") || status.message().contains("ext4"),
            "the known ones are missing: {}",
            status.message()
        );
    }
    let too_much = with_parameter(plain(), "csi.storage.k8s.io/x", &"x".repeat(5000));
    let _refused = refused(
        besieged.csi().create_volume(too_much),
        Code::InvalidArgument,
    );
    let mutable = csi::CreateVolumeRequest {
        mutable_parameters: HashMap::from([("iops".to_owned(), "1".to_owned())]),
        ..plain()
    };
    let _refused = refused(besieged.csi().create_volume(mutable), Code::InvalidArgument);
    besieged.assert_untouched();
    let made = besieged.csi().made_volume(plain());
    for (key, value) in [("compression", ""), ("compression", "lz4"), ("x", "y")] {
        let mut request = snapshot("cut", &made.volume_id);
        let _none = request.parameters.insert(key.to_owned(), value.to_owned());
        let status = refused(
            besieged.csi().create_snapshot(request),
            Code::InvalidArgument,
        );
        assert!(status.message().contains("none"), "{}", status.message());
    }
    assert_eq!(besieged.csi().snapshot_ids(), Vec::<String>::new());
    accepted(besieged.csi().delete(&made.volume_id));
}

#[test]
fn a_source_that_is_none_is_refused() {
    let besieged = Besieged::new();
    let plain = || volume("copy", SIZE, block());
    let nothing = csi::CreateVolumeRequest {
        volume_content_source: Some(csi::VolumeContentSource { r#type: None }),
        ..plain()
    };
    let _refused = refused(besieged.csi().create_volume(nothing), Code::InvalidArgument);
    for id in over_long().into_iter().chain([String::new()]) {
        for request in [from_snapshot(plain(), &id), from_volume(plain(), &id)] {
            let _refused = refused(besieged.csi().create_volume(request), Code::InvalidArgument);
        }
    }
    for id in hostile() {
        for request in [from_snapshot(plain(), &id), from_volume(plain(), &id)] {
            let _refused = refused(besieged.csi().create_volume(request), Code::NotFound);
        }
    }
    besieged.assert_untouched();
}

#[test]
fn a_place_that_is_not_here_is_refused() {
    let besieged = Besieged::new();
    let topology = |key: &str, value: &str| csi::Topology {
        segments: HashMap::from([(key.to_owned(), value.to_owned())]),
    };
    let ours = "topology.vd.csi.io/node";
    let cases = [
        (
            "another node",
            topology(ours, "elsewhere"),
            Code::ResourceExhausted,
        ),
        ("another key", topology("zone", "a"), Code::InvalidArgument),
        ("no node", topology(ours, ""), Code::InvalidArgument),
        ("nothing", csi::Topology::default(), Code::InvalidArgument),
    ];
    for (what, place, code) in cases {
        let request = csi::CreateVolumeRequest {
            accessibility_requirements: Some(csi::TopologyRequirement {
                requisite: vec![place],
                preferred: vec![],
            }),
            ..volume(what, SIZE, block())
        };
        assert_code(what, besieged.csi().create_volume(request), code);
    }
    besieged.assert_untouched();
}

#[test]
fn lists_refuse_tokens_and_numbers_that_are_none() {
    let besieged = Besieged::new();
    let csi = besieged.csi();
    let tokens = hostile().into_iter().chain(over_long());
    for starting_token in tokens {
        let volumes = csi::ListVolumesRequest {
            starting_token: starting_token.clone(),
            ..Default::default()
        };
        assert_code(&starting_token, csi.list_volumes(volumes), Code::Aborted);
        let snapshots = csi::ListSnapshotsRequest {
            starting_token: starting_token.clone(),
            ..Default::default()
        };
        assert_code(
            &starting_token,
            csi.list_snapshots(snapshots),
            Code::Aborted,
        );
    }
    for max_entries in [-1, i32::MIN] {
        let volumes = csi::ListVolumesRequest {
            max_entries,
            ..Default::default()
        };
        assert_code("negative", csi.list_volumes(volumes), Code::InvalidArgument);
    }
    besieged.assert_untouched();
}

#[test]
fn what_the_driver_does_not_do_is_unimplemented() {
    let besieged = Besieged::new();
    let csi = besieged.csi();
    let publish = csi.controller_publish_volume(csi::ControllerPublishVolumeRequest::default());
    assert_code("publish", publish, Code::Unimplemented);
    let unpublish =
        csi.controller_unpublish_volume(csi::ControllerUnpublishVolumeRequest::default());
    assert_code("unpublish", unpublish, Code::Unimplemented);
    let modify = csi.controller_modify_volume(csi::ControllerModifyVolumeRequest::default());
    assert_code("modify", modify, Code::Unimplemented);
}

#[test]
fn secrets_and_contexts_are_never_logged() {
    let besieged = Besieged::new();
    let secret = || HashMap::from([("password".to_owned(), "hunter2-of-the-test".to_owned())]);
    let csi = besieged.csi();
    let request = csi::CreateVolumeRequest {
        secrets: secret(),
        ..volume("with-secret", SIZE, block())
    };
    let made = csi.made_volume(request);
    let refused_one = csi::CreateVolumeRequest {
        secrets: secret(),
        ..volume("", SIZE, block())
    };
    let _refused = refused(csi.create_volume(refused_one), Code::InvalidArgument);
    let attachment = besieged
        .fixture
        .attachment(&made.volume_id, "pod", &block());
    let stage = csi::NodeStageVolumeRequest {
        secrets: secret(),
        volume_context: secret(),
        publish_context: secret(),
        ..attachment.stage_request()
    };
    let _staged = accepted(csi.node_stage_volume(stage));
    let publish = csi::NodePublishVolumeRequest {
        secrets: secret(),
        volume_context: secret(),
        ..attachment.publish_request()
    };
    let _published = accepted(csi.node_publish_volume(publish));
    attachment.down(csi);
    let delete = csi::DeleteVolumeRequest {
        volume_id: made.volume_id.clone(),
        secrets: secret(),
    };
    let _deleted = accepted(csi.delete_volume(delete));
    assert!(!besieged.fixture.server.log_text().contains("hunter2"));
}
