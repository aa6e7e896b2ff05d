//! Expansion, capacity and validation.

use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessType, BlockVolume};
use proto::csi::v1::{
    CapacityRange, ControllerExpandVolumeRequest, GetCapacityRequest,
    ValidateVolumeCapabilitiesRequest,
};
use proto::errors::Kind;

use super::{KEY, assert_invalid, block, capability, map, mount, place};
use crate::backend::CapacityQuery;
use crate::ids;
use crate::model::{FsType, Provisioning, Volume, VolumeMode};
use crate::request::capability::Usage;
use crate::request::volume;

const MIB: i64 = 1 << 20;

fn expansion(required_bytes: i64, limit_bytes: i64) -> ControllerExpandVolumeRequest {
    ControllerExpandVolumeRequest {
        volume_id: ids::volume_id("v"),
        capacity_range: Some(CapacityRange {
            required_bytes,
            limit_bytes,
        }),
        ..ControllerExpandVolumeRequest::default()
    }
}

#[test]
fn an_expansion_rounds_its_size_and_keeps_what_was_asked() {
    let request = ControllerExpandVolumeRequest {
        volume_capability: Some(mount("xfs")),
        ..expansion(MIB + 1, 2 * MIB)
    };
    let parsed = volume::parse_expansion(&request).expect("valid");
    assert_eq!(parsed.expand.id, ids::volume_id("v"));
    assert_eq!(
        (parsed.expand.requested_bytes, parsed.expand.capacity_bytes),
        (1048577, 2 << 20)
    );
    assert_eq!(parsed.usage, Some(Usage::Filesystem(Some(FsType::Xfs))));
}

#[test]
fn an_expansion_without_volume_or_size_is_refused() {
    let no_id = ControllerExpandVolumeRequest {
        volume_id: String::new(),
        ..expansion(MIB, 0)
    };
    assert_invalid(volume::parse_expansion(&no_id), "volume_id is missing");
    let long = ControllerExpandVolumeRequest {
        volume_id: "v".repeat(129),
        ..expansion(MIB, 0)
    };
    assert_invalid(volume::parse_expansion(&long), "CSI allows 128");
    let no_range = ControllerExpandVolumeRequest {
        capacity_range: None,
        ..expansion(0, 0)
    };
    assert_invalid(
        volume::parse_expansion(&no_range),
        "capacity_range is missing",
    );
    assert_invalid(
        volume::parse_expansion(&expansion(0, 0)),
        "capacity_range is missing",
    );
    assert_invalid(volume::parse_expansion(&expansion(-1, 0)), "negative");
    assert_invalid(volume::parse_expansion(&expansion(2, 1)), "less than");
    let failure = volume::parse_expansion(&expansion(i64::MAX, 0)).expect_err("too large");
    assert_eq!(failure.kind, Kind::OutOfRange);
}

#[test]
fn an_expansion_for_many_nodes_is_refused() {
    let many = capability(
        AccessType::Block(BlockVolume {}),
        Mode::MultiNodeMultiWriter,
    );
    let request = ControllerExpandVolumeRequest {
        volume_capability: Some(many),
        ..expansion(MIB, 0)
    };
    assert_invalid(volume::parse_expansion(&request), "MULTI_NODE_MULTI_WRITER");
}

#[test]
fn capacity_is_asked_for_as_external_provisioner_does() {
    let request = GetCapacityRequest {
        parameters: map(&[
            ("csi.storage.k8s.io/fstype", "xfs"),
            ("csi.storage.k8s.io/provisioner-secret-name", "s"),
            ("provisioning", "thick"),
        ]),
        accessible_topology: Some(place(&[(KEY, "edge-1")])),
        ..GetCapacityRequest::default()
    };
    let expected = CapacityQuery {
        mode: None,
        provisioning: Provisioning::Thick,
        node: Some("edge-1".to_owned()),
    };
    assert_eq!(volume::parse_capacity(&request, KEY), Ok(expected));
    let nothing = GetCapacityRequest::default();
    assert_eq!(
        volume::parse_capacity(&nothing, KEY),
        Ok(CapacityQuery::default())
    );
    let empty = GetCapacityRequest {
        accessible_topology: Some(place(&[])),
        ..nothing
    };
    assert_eq!(
        volume::parse_capacity(&empty, KEY),
        Ok(CapacityQuery::default())
    );
}

#[test]
fn capacity_knows_the_mode_from_the_capabilities() {
    for (capabilities, expected) in [
        (vec![block()], VolumeMode::Block),
        (vec![mount("")], VolumeMode::Filesystem(FsType::Xfs)),
        (vec![mount("ext4")], VolumeMode::Filesystem(FsType::Ext4)),
    ] {
        let request = GetCapacityRequest {
            volume_capabilities: capabilities,
            parameters: map(&[("csi.storage.k8s.io/fstype", "xfs")]),
            ..GetCapacityRequest::default()
        };
        let query = volume::parse_capacity(&request, KEY).expect("valid");
        assert_eq!(query.mode, Some(expected));
    }
}

#[test]
fn capacity_of_what_cannot_be_made_is_refused() {
    let parameters = map(&[("replicas", "3")]);
    let request = GetCapacityRequest {
        parameters,
        ..GetCapacityRequest::default()
    };
    assert_invalid(volume::parse_capacity(&request, KEY), "replicas");
    let accessible_topology = Some(place(&[("zone", "z")]));
    let request = GetCapacityRequest {
        accessible_topology,
        ..GetCapacityRequest::default()
    };
    assert_invalid(volume::parse_capacity(&request, KEY), KEY);
}

fn validation() -> ValidateVolumeCapabilitiesRequest {
    ValidateVolumeCapabilitiesRequest {
        volume_id: ids::volume_id("v"),
        volume_capabilities: vec![mount("ext4")],
        ..ValidateVolumeCapabilitiesRequest::default()
    }
}

#[test]
fn a_validation_that_is_malformed_is_refused() {
    let empty = ValidateVolumeCapabilitiesRequest::default();
    assert_invalid(volume::check_validation(&empty), "volume_id is missing");
    let none = ValidateVolumeCapabilitiesRequest {
        volume_capabilities: vec![],
        ..validation()
    };
    assert_invalid(
        volume::check_validation(&none),
        "volume_capabilities is missing",
    );
    let large = map(&[("k", &"v".repeat(5000))]);
    let context = ValidateVolumeCapabilitiesRequest {
        volume_context: large,
        ..validation()
    };
    assert_invalid(volume::check_validation(&context), "CSI allows 4096");
}

#[test]
fn a_validation_that_is_not_supported_gets_the_reason() {
    let volume = Volume {
        id: ids::volume_id("v"),
        requested_bytes: 1,
        capacity_bytes: 1 << 20,
        mode: VolumeMode::Filesystem(FsType::Ext4),
        provisioning: Provisioning::Thin,
        source: None,
        nodes: vec![],
    };
    assert_eq!(volume::objection(&validation(), &volume), None);
    let many = capability(AccessType::Block(BlockVolume {}), Mode::MultiNodeReaderOnly);
    for (capabilities, parameters, mutable, text) in [
        (vec![block()], map(&[]), map(&[]), "filesystem ext4"),
        (vec![mount("xfs")], map(&[]), map(&[]), "filesystem ext4"),
        (vec![many], map(&[]), map(&[]), "MULTI_NODE_READER_ONLY"),
        (
            vec![mount("")],
            map(&[("provisioning", "thick")]),
            map(&[]),
            "thin",
        ),
        (vec![mount("")], map(&[("x", "y")]), map(&[]), "not known"),
        (
            vec![mount("")],
            map(&[]),
            map(&[("x", "y")]),
            "mutable_parameters",
        ),
    ] {
        let request = ValidateVolumeCapabilitiesRequest {
            volume_capabilities: capabilities,
            parameters,
            mutable_parameters: mutable,
            ..validation()
        };
        volume::check_validation(&request).expect("well-formed");
        let objection = volume::objection(&request, &volume).expect("objection");
        assert!(objection.contains(text), "{objection:?} lacks {text:?}");
    }
}
