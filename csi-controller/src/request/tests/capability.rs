//! Volume capabilities.

use proto::csi::v1::VolumeCapability;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{
    AccessMode as WireAccessMode, AccessType, BlockVolume, MountVolume,
};

use super::{HOSTILE, block, capability, mount};
use crate::model::{AccessMode, FsType, VolumeMode};
use crate::request::capability::{Refusal, Usage, parse_all};

fn unsupported(capabilities: &[VolumeCapability], text: &str) {
    match parse_all(capabilities) {
        Err(Refusal::Unsupported(message)) if message.contains(text) => {}
        other => panic!("should be refused for {text:?}: {other:?}"),
    }
}

#[test]
fn what_is_missing_is_malformed() {
    let no_type = VolumeCapability {
        access_type: None,
        ..block()
    };
    let no_mode = VolumeCapability {
        access_mode: None,
        ..block()
    };
    let with_mode = |mode| VolumeCapability {
        access_mode: Some(WireAccessMode { mode }),
        ..block()
    };
    for capabilities in [
        vec![],
        vec![no_type.clone()],
        vec![no_mode],
        vec![with_mode(0)],
        vec![with_mode(8)],
        vec![with_mode(-1)],
        // Also when another capability is not supported.
        vec![
            capability(
                AccessType::Block(BlockVolume {}),
                Mode::MultiNodeMultiWriter,
            ),
            no_type,
        ],
    ] {
        let refusal = parse_all(&capabilities).expect_err("malformed");
        assert!(matches!(refusal, Refusal::Malformed(_)), "{refusal:?}");
    }
}

#[test]
fn modes_of_many_nodes_are_not_supported() {
    for mode in [
        Mode::MultiNodeReaderOnly,
        Mode::MultiNodeSingleWriter,
        Mode::MultiNodeMultiWriter,
    ] {
        let many = capability(AccessType::Block(BlockVolume {}), mode);
        unsupported(&[many], mode.as_str_name());
    }
}

#[test]
fn all_modes_of_one_node_are_kept_sorted_and_once() {
    let with = |mode| capability(AccessType::Block(BlockVolume {}), mode);
    let parsed = parse_all(&[
        with(Mode::SingleNodeMultiWriter),
        with(Mode::SingleNodeReaderOnly),
        with(Mode::SingleNodeMultiWriter),
        with(Mode::SingleNodeSingleWriter),
        with(Mode::SingleNodeWriter),
    ])
    .expect("supported");
    assert_eq!(
        parsed.access_modes,
        [
            AccessMode::SingleNodeWriter,
            AccessMode::SingleNodeReaderOnly,
            AccessMode::SingleNodeSingleWriter,
            AccessMode::SingleNodeMultiWriter,
        ]
    );
    assert_eq!(parsed.usage, Usage::Block);
}

#[test]
fn a_volume_is_block_or_file_system_and_has_one_file_system() {
    unsupported(&[block(), mount("")], "is one of them");
    unsupported(&[mount("xfs"), block()], "is one of them");
    unsupported(&[mount("xfs"), mount("ext4")], "one file system");
    for (capabilities, expected) in [
        (vec![mount("")], None),
        (vec![mount("ext4")], Some(FsType::Ext4)),
        (vec![mount(""), mount("xfs")], Some(FsType::Xfs)),
        (
            vec![mount("xfs"), mount(""), mount("xfs")],
            Some(FsType::Xfs),
        ),
    ] {
        let parsed = parse_all(&capabilities).expect("supported");
        assert_eq!(parsed.usage, Usage::Filesystem(expected));
    }
}

#[test]
fn other_file_systems_are_refused() {
    for name in HOSTILE
        .into_iter()
        .chain(["btrfs", "EXT4", "ext4 ", "ext3"])
    {
        unsupported(&[mount(name)], "use ext4 or xfs");
    }
}

#[test]
fn mount_flags_and_groups_are_checked() {
    let with = |mount: MountVolume| [capability(AccessType::Mount(mount), Mode::SingleNodeWriter)];
    let flag = MountVolume {
        mount_flags: vec!["suid".to_owned()],
        ..MountVolume::default()
    };
    unsupported(&with(flag), "\"suid\"");
    let group = MountVolume {
        volume_mount_group: "1000".to_owned(),
        ..MountVolume::default()
    };
    unsupported(&with(group), "volume_mount_group");
    let good = MountVolume {
        mount_flags: vec!["noatime".to_owned()],
        ..MountVolume::default()
    };
    parse_all(&with(good)).expect("supported");
}

#[test]
fn a_usage_fits_the_modes_it_can_use() {
    let ext4 = VolumeMode::Filesystem(FsType::Ext4);
    assert!(Usage::Block.fits(VolumeMode::Block));
    assert!(!Usage::Block.fits(ext4));
    assert!(Usage::Filesystem(None).fits(ext4));
    assert!(Usage::Filesystem(Some(FsType::Ext4)).fits(ext4));
    assert!(!Usage::Filesystem(Some(FsType::Xfs)).fits(ext4));
    assert!(!Usage::Filesystem(None).fits(VolumeMode::Block));
}
