//! The generated code against facts of CSI 1.13.0 that callers depend on.

use prost::Message as _;

use crate::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use crate::csi::v1::node_service_capability::rpc::Type as NodeRpc;
use crate::csi::v1::plugin_capability::service::Type as PluginService;
use crate::csi::v1::plugin_capability::volume_expansion::Type as Expansion;
use crate::csi::v1::volume_capability::access_mode::Mode;
use crate::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use crate::csi::v1::volume_usage::Unit;
use crate::csi::v1::{
    CreateVolumeRequest, NodeExpandVolumeRequest, NodePublishVolumeRequest, Snapshot, Volume,
    VolumeCapability, VolumeHealthErrorType,
};

#[test]
fn controller_capabilities_have_their_numbers() {
    for (number, capability) in [
        (1, ControllerRpc::CreateDeleteVolume),
        (2, ControllerRpc::PublishUnpublishVolume),
        (3, ControllerRpc::ListVolumes),
        (4, ControllerRpc::GetCapacity),
        (5, ControllerRpc::CreateDeleteSnapshot),
        (6, ControllerRpc::ListSnapshots),
        (7, ControllerRpc::CloneVolume),
        (8, ControllerRpc::PublishReadonly),
        (9, ControllerRpc::ExpandVolume),
        (10, ControllerRpc::ListVolumesPublishedNodes),
        (12, ControllerRpc::GetVolume),
        (13, ControllerRpc::SingleNodeMultiWriter),
        (14, ControllerRpc::ModifyVolume),
        (15, ControllerRpc::GetSnapshot),
        (16, ControllerRpc::GetVolumeHealth),
        (17, ControllerRpc::ListVolumeHealth),
    ] {
        assert_eq!(ControllerRpc::try_from(number), Ok(capability));
    }
    assert!(
        ControllerRpc::try_from(11).is_err(),
        "VOLUME_CONDITION is gone"
    );
}

#[test]
fn node_and_plugin_capabilities_have_their_numbers() {
    for (number, capability) in [
        (1, NodeRpc::StageUnstageVolume),
        (2, NodeRpc::GetVolumeStats),
        (3, NodeRpc::ExpandVolume),
        (5, NodeRpc::SingleNodeMultiWriter),
        (6, NodeRpc::VolumeMountGroup),
        (7, NodeRpc::GetVolumeHealth),
        (8, NodeRpc::GetStorageHealth),
    ] {
        assert_eq!(NodeRpc::try_from(number), Ok(capability));
    }
    assert!(NodeRpc::try_from(4).is_err(), "VOLUME_CONDITION is gone");
    assert_eq!(PluginService::ControllerService as i32, 1);
    assert_eq!(PluginService::VolumeAccessibilityConstraints as i32, 2);
    assert_eq!(PluginService::GroupControllerService as i32, 3);
    assert_eq!(PluginService::SnapshotMetadataService as i32, 4);
    assert_eq!(
        (Expansion::Online as i32, Expansion::Offline as i32),
        (1, 2)
    );
}

#[test]
fn access_modes_units_and_health_have_their_numbers() {
    for (number, mode) in [
        (1, Mode::SingleNodeWriter),
        (2, Mode::SingleNodeReaderOnly),
        (3, Mode::MultiNodeReaderOnly),
        (4, Mode::MultiNodeSingleWriter),
        (5, Mode::MultiNodeMultiWriter),
        (6, Mode::SingleNodeSingleWriter),
        (7, Mode::SingleNodeMultiWriter),
    ] {
        assert_eq!(Mode::try_from(number), Ok(mode));
    }
    assert_eq!((Unit::Bytes as i32, Unit::Inodes as i32), (1, 2));
    for (number, health) in [
        (1, VolumeHealthErrorType::Degraded),
        (2, VolumeHealthErrorType::Inaccessible),
        (3, VolumeHealthErrorType::DataLoss),
    ] {
        assert_eq!(VolumeHealthErrorType::try_from(number), Ok(health));
    }
}

#[test]
fn fields_have_their_numbers_on_the_wire() {
    // Key byte (field number and wire type), then the length or the value.
    let volume = Volume {
        capacity_bytes: 7,
        volume_id: "v".to_owned(),
        ..Volume::default()
    };
    assert_eq!(volume.encode_to_vec(), [0x08, 7, 0x12, 1, b'v']);
    let snapshot = Snapshot {
        size_bytes: 7,
        snapshot_id: "s".to_owned(),
        source_volume_id: "v".to_owned(),
        ready_to_use: true,
        ..Snapshot::default()
    };
    let expected = [0x08, 7, 0x12, 1, b's', 0x1a, 1, b'v', 0x28, 1];
    assert_eq!(snapshot.encode_to_vec(), expected);
    let publish = NodePublishVolumeRequest {
        volume_id: "v".to_owned(),
        staging_target_path: "s".to_owned(),
        target_path: "t".to_owned(),
        readonly: true,
        ..NodePublishVolumeRequest::default()
    };
    let expected = [0x0a, 1, b'v', 0x1a, 1, b's', 0x22, 1, b't', 0x30, 1];
    assert_eq!(publish.encode_to_vec(), expected);
    let expand = NodeExpandVolumeRequest {
        volume_path: "p".to_owned(),
        staging_target_path: "s".to_owned(),
        ..NodeExpandVolumeRequest::default()
    };
    assert_eq!(expand.encode_to_vec(), [0x12, 1, b'p', 0x22, 1, b's']);
}

#[test]
fn a_capability_is_what_other_implementations_send() {
    // As the Go implementation encodes {mount {fs_type "xfs"}, access_mode SINGLE_NODE_WRITER}.
    let wire = [
        0x12, 0x05, 0x0a, 0x03, b'x', b'f', b's', 0x1a, 0x02, 0x08, 0x01,
    ];
    let capability = VolumeCapability {
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter as i32,
        }),
        access_type: Some(AccessType::Mount(MountVolume {
            fs_type: "xfs".to_owned(),
            ..MountVolume::default()
        })),
    };
    let decoded = VolumeCapability::decode(wire.as_slice()).expect("decode");
    assert_eq!(decoded, capability);
}

#[test]
fn secrets_and_mount_flags_are_never_printed() {
    let secret = "hunter2";
    let capability = VolumeCapability {
        access_mode: None,
        access_type: Some(AccessType::Mount(MountVolume {
            mount_flags: vec![format!("password={secret}")],
            ..MountVolume::default()
        })),
    };
    let request = CreateVolumeRequest {
        name: "pvc-1".to_owned(),
        secrets: [("token".to_owned(), secret.to_owned())].into(),
        volume_capabilities: vec![capability.clone()],
        ..CreateVolumeRequest::default()
    };
    let publish = NodePublishVolumeRequest {
        secrets: [("token".to_owned(), secret.to_owned())].into(),
        volume_capability: Some(capability),
        ..NodePublishVolumeRequest::default()
    };
    for printed in [
        format!("{request:?}"),
        format!("{request:#?}"),
        format!("{:?}", tonic::Request::new(request.clone())),
        format!("{publish:?}"),
    ] {
        assert!(!printed.contains(secret), "{printed}");
        assert!(printed.contains("<1 redacted>"), "{printed}");
    }
    assert!(format!("{request:?}").contains("pvc-1"));
}
