//! Paths and mount flags that would give a pod more than its volume.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and their folders are their own"
)]

use tests::client::{accepted, shown};
use tests::csi;
use tests::kubelet::Attachment;
use tests::requests::{block, filesystem, volume, with_flags};
use tests::scratch_fs::MIB;
use tests::siege::{Besieged, assert_code, bad_capabilities};
use tests::tree;
use tonic::Code;

const SIZE: u64 = 16 * MIB;

#[test]
fn stage_and_publish_with_a_bad_capability_are_refused() {
    let besieged = Besieged::new();
    let made = besieged.csi().made_volume(volume("volume", SIZE, block()));
    let good = besieged
        .fixture
        .attachment(&made.volume_id, "pod", &block());
    for (what, capabilities) in bad_capabilities() {
        // Publishing takes exactly one.
        if capabilities.len() > 1 {
            continue;
        }
        let stage = csi::NodeStageVolumeRequest {
            volume_capability: capabilities.first().cloned(),
            ..good.stage_request()
        };
        assert_code(
            what,
            besieged.csi().node_stage_volume(stage),
            Code::InvalidArgument,
        );
        let publish = csi::NodePublishVolumeRequest {
            volume_capability: capabilities.first().cloned(),
            ..good.publish_request()
        };
        assert_code(
            what,
            besieged.csi().node_publish_volume(publish),
            Code::InvalidArgument,
        );
    }
    assert_eq!(besieged.fixture.fs.loops(), []);
    accepted(besieged.csi().delete(&made.volume_id));
}

/// Flags that would give the pod, or whoever writes its manifest, more than a volume.
const BAD_FLAGS: &[&str] = &[
    "suid",
    "dev",
    "bind",
    "rbind",
    "remount",
    "move",
    "loop",
    "loop=/dev/loop0",
    "uid=0",
    "journal_dev=/dev/sda",
    "logdev=/dev/sda",
    "ro,suid",
    "noatime\nsuid",
    "noatime\0",
    "",
    "context=\"u:r:t:s0\",suid",
    "x-systemd.automount",
    "../../canary",
];

#[test]
fn mount_flags_that_are_not_on_the_list_are_refused() {
    let besieged = Besieged::new();
    let flags = BAD_FLAGS.iter().map(|flag| (*flag).to_owned());
    for flag in flags.chain(["x".repeat(5000)]) {
        let how = with_flags(filesystem("ext4"), &[&flag]);
        let result = besieged.csi().create_volume(volume("flags", SIZE, how));
        assert_code(&flag, result, Code::InvalidArgument);
    }
    besieged.assert_untouched();
    let plain = filesystem("ext4");
    let made = besieged
        .csi()
        .made_volume(volume("plain", SIZE, plain.clone()));
    let good = besieged.fixture.attachment(&made.volume_id, "pod", &plain);
    for flag in BAD_FLAGS {
        let volume_capability = Some(with_flags(plain.clone(), &[flag]));
        let stage = csi::NodeStageVolumeRequest {
            volume_capability: volume_capability.clone(),
            ..good.stage_request()
        };
        assert_code(
            flag,
            besieged.csi().node_stage_volume(stage),
            Code::InvalidArgument,
        );
        let publish = csi::NodePublishVolumeRequest {
            volume_capability,
            ..good.publish_request()
        };
        assert_code(
            flag,
            besieged.csi().node_publish_volume(publish),
            Code::InvalidArgument,
        );
    }
    assert_eq!(besieged.fixture.fs.loops(), []);
    accepted(besieged.csi().delete(&made.volume_id));
}

#[test]
fn every_mount_flag_on_the_list_can_really_be_mounted() {
    let besieged = Besieged::new();
    let flags = [
        "ro",
        "rw",
        "noatime",
        "nodiratime",
        "relatime",
        "strictatime",
        "lazytime",
        "sync",
        "async",
        "dirsync",
        "discard",
        "nodiscard",
        "nosuid",
        "nodev",
        "noexec",
        "exec",
    ];
    for (fs_type, bytes) in [("ext4", SIZE), ("xfs", 300 * MIB)] {
        // Formatted once; a first mount of a fresh volume cannot be read-only.
        let plain = filesystem(fs_type);
        let attachment = besieged.fixture.published(fs_type, bytes, &plain);
        attachment.down(besieged.csi());
        for flag in flags {
            let how = with_flags(plain.clone(), &[flag]);
            let flagged = besieged
                .fixture
                .attachment(&attachment.volume_id, flag, &how);
            for result in [
                flagged.stage(besieged.csi()),
                flagged.publish(besieged.csi()),
            ] {
                result.unwrap_or_else(|status| panic!("{fs_type} {flag}: {}", shown(&status)));
            }
            flagged.down(besieged.csi());
        }
        accepted(besieged.csi().delete(&attachment.volume_id));
    }
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let besieged = Besieged::new();
    let made = besieged
        .csi()
        .made_volume(volume("volume", SIZE, filesystem("ext4")));
    let good = besieged
        .fixture
        .attachment(&made.volume_id, "pod", &filesystem("ext4"));
    let canary = besieged
        .fixture
        .fs
        .folder()
        .join("canary")
        .display()
        .to_string();
    let before = besieged.list_outside();
    let long = format!("/{}", "a/".repeat(5000));
    let paths = [
        String::new(),
        "relative/path".to_owned(),
        "../canary/folder".to_owned(),
        format!("{canary}/folder/../folder"),
        format!("{canary}/a\0b"),
        long,
    ];
    for path in paths {
        refuse_path(&besieged, &good, &path);
        tree::unchanged("outside of the pool", &before, &besieged.list_outside());
        assert_eq!(besieged.fixture.fs.loops(), []);
    }
    accepted(besieged.csi().delete(&made.volume_id));
}

/// Each call that takes a path refuses this one.
#[track_caller]
fn refuse_path(besieged: &Besieged, good: &Attachment, path: &str) {
    let csi = besieged.csi();
    let path = path.to_owned();
    let stage = csi.node_stage_volume(csi::NodeStageVolumeRequest {
        staging_target_path: path.clone(),
        ..good.stage_request()
    });
    let publish = csi.node_publish_volume(csi::NodePublishVolumeRequest {
        target_path: path.clone(),
        ..good.publish_request()
    });
    let unstage = csi.node_unstage_volume(csi::NodeUnstageVolumeRequest {
        volume_id: good.volume_id.clone(),
        staging_target_path: path.clone(),
    });
    let unpublish = csi.node_unpublish_volume(csi::NodeUnpublishVolumeRequest {
        volume_id: good.volume_id.clone(),
        target_path: path,
    });
    assert_code("stage", stage, Code::InvalidArgument);
    assert_code("publish", publish, Code::InvalidArgument);
    assert_code("unstage", unstage, Code::InvalidArgument);
    assert_code("unpublish", unpublish, Code::InvalidArgument);
}

#[test]
fn a_symbolic_link_planted_at_the_staging_path_is_not_followed() {
    let besieged = Besieged::new();
    let canary = besieged.fixture.fs.folder().join("canary");
    for how in [block(), filesystem("ext4")] {
        let made = besieged
            .csi()
            .made_volume(volume("volume", SIZE, how.clone()));
        let attachment = besieged.fixture.attachment(&made.volume_id, "pod", &how);
        std::fs::remove_dir(&attachment.staging).unwrap();
        std::os::unix::fs::symlink(canary.join("folder"), &attachment.staging).unwrap();
        let before = besieged.list_outside();
        if tests::requests::is_block(&how) {
            // Nothing is ever put at the staging path of a device.
            let _either = attachment.stage(besieged.csi());
        } else {
            let status = attachment.stage(besieged.csi()).expect_err("it is a link");
            assert_eq!(status.code(), Code::AlreadyExists, "{}", shown(&status));
            let _refused = attachment
                .publish(besieged.csi())
                .expect_err("nothing is staged");
        }
        assert_eq!(tests::mounts::below(&canary), []);
        tree::unchanged("outside of the pool", &before, &besieged.list_outside());
        let _either = attachment.unstage(besieged.csi());
        tree::unchanged("outside of the pool", &before, &besieged.list_outside());
        accepted(besieged.csi().delete(&made.volume_id));
    }
}
