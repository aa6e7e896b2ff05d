use proto::csi::v1::volume_capability::{AccessMode, BlockVolume, MountVolume};
use proto::errors::Kind;

use super::*;

fn block(mode: Mode) -> v1::VolumeCapability {
    v1::VolumeCapability {
        access_type: Some(AccessType::Block(BlockVolume {})),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}

fn mount(fs: &str, flags: &[&str]) -> v1::VolumeCapability {
    v1::VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume {
            fs_type: fs.into(),
            mount_flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            ..Default::default()
        })),
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
    }
}

fn staging(capability: Option<v1::VolumeCapability>) -> v1::NodeStageVolumeRequest {
    v1::NodeStageVolumeRequest {
        volume_id: "v".into(),
        staging_target_path: "/s".into(),
        volume_capability: capability,
        ..Default::default()
    }
}

#[test]
fn each_access_mode_of_one_node_is_known_and_others_are_refused() {
    let table = [
        (Mode::SingleNodeReaderOnly, Some(Access::Reader)),
        (Mode::SingleNodeWriter, Some(Access::OneWriter)),
        (Mode::SingleNodeSingleWriter, Some(Access::OneWriter)),
        (Mode::SingleNodeMultiWriter, Some(Access::ManyWriters)),
        (Mode::MultiNodeReaderOnly, None),
        (Mode::MultiNodeSingleWriter, None),
        (Mode::MultiNodeMultiWriter, None),
        (Mode::Unknown, None),
    ];
    for (mode, expected) in table {
        let found = stage(staging(Some(block(mode)))).map(|stage| stage.used.access);
        assert_eq!(found.ok(), expected, "{mode:?}");
    }
}

#[test]
fn every_missing_part_is_named() {
    let good = || staging(Some(block(Mode::SingleNodeWriter)));
    let table: [(&str, v1::NodeStageVolumeRequest); 5] = [
        (
            "volume_id",
            v1::NodeStageVolumeRequest {
                volume_id: String::new(),
                ..good()
            },
        ),
        (
            "staging_target_path",
            v1::NodeStageVolumeRequest {
                staging_target_path: String::new(),
                ..good()
            },
        ),
        ("volume_capability", staging(None)),
        (
            "access type",
            staging(Some(v1::VolumeCapability {
                access_type: None,
                ..block(Mode::SingleNodeWriter)
            })),
        ),
        (
            "access mode",
            staging(Some(v1::VolumeCapability {
                access_mode: None,
                ..block(Mode::SingleNodeWriter)
            })),
        ),
    ];
    for (part, request) in table {
        let failure = stage(request).unwrap_err();
        assert_eq!(failure.kind, Kind::InvalidArgument);
        assert!(failure.message.contains(part), "{failure}");
    }
}

#[test]
fn filesystems_and_flags_are_checked() {
    for (capability, good) in [
        (mount("", &[]), true),
        (mount("ext4", &["noatime"]), true),
        (mount("xfs", &["discard", "nouuid"]), true),
        (mount("btrfs", &[]), false),
        (mount("EXT4", &[]), false),
        (mount("ext4", &["suid"]), false),
        (mount("ext4", &["noatime,dev"]), false),
    ] {
        let found = stage(staging(Some(capability.clone())));
        assert_eq!(found.is_ok(), good, "{capability:?}");
    }
}

#[test]
fn any_way_to_say_read_only_counts() {
    let publishing = |capability, readonly| {
        publish(v1::NodePublishVolumeRequest {
            volume_id: "v".into(),
            target_path: "/t".into(),
            volume_capability: Some(capability),
            readonly,
            ..Default::default()
        })
        .unwrap()
        .read_only
    };
    assert!(publishing(mount("", &[]), true));
    assert!(publishing(mount("", &["ro"]), false));
    assert!(publishing(block(Mode::SingleNodeReaderOnly), false));
    assert!(!publishing(mount("", &["ro", "rw"]), false));
}

#[test]
fn sizes_that_are_none_are_refused() {
    for (required, limit, good) in [
        (0, 0, true),
        (5, 5, true),
        (-1, 0, false),
        (0, -1, false),
        (i64::MIN, i64::MAX, false),
        (6, 5, false),
    ] {
        let request = v1::NodeExpandVolumeRequest {
            volume_id: "v".into(),
            volume_path: "/p".into(),
            capacity_range: Some(v1::CapacityRange {
                required_bytes: required,
                limit_bytes: limit,
            }),
            ..Default::default()
        };
        assert_eq!(expand(request).is_ok(), good, "{required} {limit}");
    }
}

#[test]
fn an_id_that_is_too_long_is_refused() {
    assert!(volume_id("x".repeat(128)).is_ok());
    assert!(volume_id("x".repeat(129)).is_err());
    assert!(volume_id(String::new()).is_err());
}
