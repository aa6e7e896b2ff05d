//! What kubelet really does: it repeats, it forgets, it comes back after a reboot, and it never looks first.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and their folders are their own"
)]

use std::fs::File;

use tests::client::{accepted, refused};
use tests::csi;
use tests::fixture::Fixture;
use tests::kubelet::{Attachment, text};
use tests::requests::{block, filesystem, is_block, uses, volume};
use tests::scratch_fs::{FsKind, MIB};
use tests::{content, loops, mounts, tree};
use tonic::Code;

/// The smallest that serves xfs too.
const SIZE: u64 = 320 * MIB;

/// One mount at the target, at most one at the staging path, one loop device.
#[track_caller]
fn assert_attached_once(fixture: &Fixture, attachment: &Attachment) -> loops::Loop {
    assert_eq!(
        mounts::at(&attachment.target).len(),
        1,
        "mounts at the target"
    );
    let staged = mounts::at(&attachment.staging).len();
    assert!(
        staged == usize::from(!is_block(&attachment.capability)),
        "{staged} mounts at the staging path"
    );
    let devices = fixture.fs.loops();
    assert_eq!(devices.len(), 1, "{devices:?}");
    devices[0].clone()
}

#[test]
fn repeated_stage_and_publish_stack_nothing() {
    for kind in FsKind::ALL {
        let mut fixture = Fixture::on(kind);
        for (name, how) in uses() {
            let attachment = fixture.published(name, SIZE, &how);
            let bytes = attachment.write_data();
            let device = assert_attached_once(&fixture, &attachment);
            for restart in [false, true, false] {
                if restart {
                    fixture.crash_and_restart();
                }
                attachment.up(&fixture.csi);
                accepted(attachment.publish(&fixture.csi));
                let same = assert_attached_once(&fixture, &attachment);
                assert_eq!(same.name, device.name, "the device stays the same");
                attachment.assert_data(&bytes);
            }
            attachment.down(&fixture.csi);
            attachment.down(&fixture.csi);
            assert_eq!(fixture.fs.loops(), []);
            accepted(fixture.csi.delete(&attachment.volume_id));
        }
    }
}

#[test]
fn a_loop_device_has_direct_io_and_small_sectors() {
    let fixture = Fixture::on(FsKind::Xfs);
    let attachment = fixture.published("direct", SIZE, &block());
    let device = assert_attached_once(&fixture, &attachment);
    assert!(device.direct && !device.read_only, "{device:?}");
    assert_eq!(device.sector_bytes, 512);
    attachment.down_and_delete(&fixture.csi);
}

#[test]
fn filesystems_are_mounted_without_setuid_programs_and_device_nodes() {
    let fixture = Fixture::on(FsKind::Xfs);
    for (name, how) in uses().into_iter().filter(|(_, how)| !is_block(how)) {
        let how = tests::requests::with_flags(how, &["noatime"]);
        let attachment = fixture.published(name, SIZE, &how);
        for path in [&attachment.staging, &attachment.target] {
            let mount = &mounts::at(path)[0];
            assert_eq!(mount.fs_type, name);
            for option in ["nosuid", "nodev", "noatime"] {
                assert!(mount.has(option), "{option} is missing: {mount:?}");
            }
        }
        attachment.down_and_delete(&fixture.csi);
    }
}

#[test]
fn publish_after_a_reboot_without_stage_serves_the_same_data() {
    for kind in FsKind::ALL {
        let mut fixture = Fixture::on(kind);
        for (name, how) in uses() {
            let attachment = fixture.published(name, SIZE, &how);
            let bytes = attachment.write_data();
            fixture.reboot();
            assert_eq!(mounts::at(&attachment.target), []);
            accepted(attachment.publish(&fixture.csi));
            let _device = assert_attached_once(&fixture, &attachment);
            attachment.assert_data(&bytes);
            attachment.down_and_delete(&fixture.csi);
        }
    }
}

#[test]
fn stage_and_publish_after_a_reboot_serve_the_same_data() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    for (name, how) in uses() {
        let attachment = fixture.published(name, SIZE, &how);
        let bytes = attachment.write_data();
        fixture.reboot();
        attachment.up(&fixture.csi);
        let _device = assert_attached_once(&fixture, &attachment);
        attachment.assert_data(&bytes);
        attachment.down_and_delete(&fixture.csi);
    }
}

#[test]
fn a_pod_deleted_during_a_reboot_is_cleaned_up() {
    let mut fixture = Fixture::on(FsKind::Btrfs);
    for (name, how) in uses() {
        let attachment = fixture.published(name, SIZE, &how);
        fixture.reboot();
        attachment.down_and_delete(&fixture.csi);
    }
}

#[test]
fn a_forgotten_unstage_does_not_keep_the_volume() {
    for restart in [false, true] {
        let mut fixture = Fixture::on(FsKind::Xfs);
        for (name, how) in uses() {
            let attachment = fixture.published(name, SIZE, &how);
            accepted(attachment.unpublish(&fixture.csi));
            if restart {
                fixture.crash_and_restart();
            }
            accepted(fixture.csi.delete(&attachment.volume_id));
            assert_eq!(mounts::at(&attachment.staging), []);
            // kubelet may remember it after all.
            accepted(attachment.unstage(&fixture.csi));
        }
    }
}

#[test]
fn a_forgotten_unpublish_of_a_device_does_not_keep_the_volume_once_its_pod_is_gone() {
    for restart in [false, true] {
        let mut fixture = Fixture::on(FsKind::Xfs);
        let attachment = fixture.published("disk", SIZE, &block());
        let other = attachment.in_pod(&fixture.kubelet(), "another");
        accepted(other.publish(&fixture.csi));
        let pods = fixture.kubelet().join("pods");
        std::fs::remove_dir(pods.join("pod-1")).unwrap();
        if restart {
            fixture.crash_and_restart();
        }
        let in_use = refused(
            fixture.csi.delete(&attachment.volume_id),
            Code::FailedPrecondition,
        );
        assert!(in_use.message().contains("another"), "{in_use}");
        std::fs::remove_dir(pods.join("another")).unwrap();
        accepted(fixture.csi.delete(&attachment.volume_id));
        for published in [&attachment, &other] {
            assert!(!published.target.exists());
            // kubelet may remember it after all.
            accepted(published.unpublish(&fixture.csi));
        }
        accepted(attachment.unstage(&fixture.csi));
    }
}

#[test]
fn a_published_volume_is_not_deleted() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    for (name, how) in uses() {
        let attachment = fixture.published(name, SIZE, &how);
        let bytes = attachment.write_data();
        let _in_use = refused(
            fixture.csi.delete(&attachment.volume_id),
            Code::FailedPrecondition,
        );
        fixture.crash_and_restart();
        let _in_use = refused(
            fixture.csi.delete(&attachment.volume_id),
            Code::FailedPrecondition,
        );
        attachment.assert_data(&bytes);
        attachment.down_and_delete(&fixture.csi);
    }
}

#[test]
fn an_empty_leftover_at_the_target_is_used() {
    let fixture = Fixture::on(FsKind::Xfs);
    for (name, how) in uses() {
        let made = fixture.csi.made_volume(volume(name, SIZE, how.clone()));
        let attachment = fixture.attachment(&made.volume_id, "pod", &how);
        if is_block(&how) {
            // What was a file before may be a folder after a reboot: kubelet makes parents with `mkdir -p`.
            std::fs::create_dir(&attachment.target).unwrap();
            attachment.up(&fixture.csi);
            attachment.down(&fixture.csi);
            let _empty = File::create(&attachment.target).unwrap();
        } else {
            std::fs::create_dir(&attachment.target).unwrap();
        }
        attachment.up(&fixture.csi);
        let _device = assert_attached_once(&fixture, &attachment);
        attachment.down_and_delete(&fixture.csi);
    }
}

#[test]
fn a_target_with_content_is_refused_and_left_alone() {
    let fixture = Fixture::on(FsKind::Xfs);
    for (name, how) in uses() {
        let made = fixture.csi.made_volume(volume(name, SIZE, how.clone()));
        for leftover in ["folder", "file"] {
            let attachment = fixture.attachment(&made.volume_id, leftover, &how);
            if leftover == "folder" {
                std::fs::create_dir(&attachment.target).unwrap();
                std::fs::write(attachment.target.join("precious"), "data").unwrap();
            } else {
                std::fs::write(&attachment.target, "data").unwrap();
            }
            let parent = attachment.target.parent().unwrap();
            let before = tree::list(parent);
            accepted(attachment.stage(&fixture.csi));
            let _conflict = refused(attachment.publish(&fixture.csi), Code::AlreadyExists);
            assert_eq!(mounts::below(parent), []);
            // Unpublish is no way to lose it either.
            let _whatever_it_says = attachment.unpublish(&fixture.csi).is_ok();
            tree::unchanged("a target with content", &before, &tree::list(parent));
            accepted(attachment.unstage(&fixture.csi));
        }
        accepted(fixture.csi.delete(&made.volume_id));
    }
}

#[test]
fn a_symbolic_link_at_the_target_is_refused_and_not_followed() {
    let fixture = Fixture::on(FsKind::Xfs);
    let precious = fixture.fs.folder().join("precious");
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("file"), "data").unwrap();
    let before = tree::list(&precious);
    let aims = [
        precious.clone(),
        precious.join("file"),
        precious.join("nothing"),
    ];
    for (name, how) in uses() {
        let made = fixture.csi.made_volume(volume(name, SIZE, how.clone()));
        for (number, aim) in aims.iter().enumerate() {
            let attachment = fixture.attachment(&made.volume_id, &format!("pod-{number}"), &how);
            std::os::unix::fs::symlink(aim, &attachment.target).unwrap();
            accepted(attachment.stage(&fixture.csi));
            let _conflict = refused(attachment.publish(&fixture.csi), Code::AlreadyExists);
            let _whatever_it_says = attachment.unpublish(&fixture.csi).is_ok();
            assert_eq!(mounts::below(&precious), []);
            tree::unchanged("what the link points to", &before, &tree::list(&precious));
            accepted(attachment.unstage(&fixture.csi));
        }
        accepted(fixture.csi.delete(&made.volume_id));
    }
}

#[test]
fn unpublish_and_unstage_of_what_is_not_there_succeed() {
    let fixture = Fixture::on(FsKind::Xfs);
    let made = fixture.csi.made_volume(volume("never-used", SIZE, block()));
    let unknown = "pvc-0b2bd8e1-6a3f-4a4a-9a53-2f1f1c2d3e4f";
    for id in [made.volume_id.as_str(), unknown, "fake-vol-id"] {
        for how in [block(), filesystem("ext4")] {
            let mut attachment = fixture.attachment(id, "pod", &how);
            accepted(attachment.unpublish(&fixture.csi));
            accepted(attachment.unstage(&fixture.csi));
            attachment.target = fixture.kubelet().join("no/such/folder/target");
            attachment.staging = fixture.kubelet().join("no/such/folder/staging");
            accepted(attachment.unpublish(&fixture.csi));
            accepted(attachment.unstage(&fixture.csi));
        }
    }
    accepted(fixture.csi.delete(&made.volume_id));
}

#[test]
fn a_volume_removed_by_hand_can_be_unpublished_and_unstaged() {
    for restart in [false, true] {
        let mut fixture = Fixture::on(FsKind::Xfs);
        for (name, how) in uses() {
            let attachment = fixture.published(name, SIZE, &how);
            let image = fixture.image(&attachment.volume_id);
            std::fs::remove_dir_all(image.parent().unwrap()).unwrap();
            if restart {
                fixture.crash_and_restart();
            }
            attachment.down(&fixture.csi);
            assert_eq!(fixture.fs.loops(), []);
        }
    }
}

#[test]
fn a_volume_whose_image_alone_was_removed_is_never_made_anew() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let attachment = fixture.published("image-gone", SIZE, &filesystem("ext4"));
    let image = fixture.image(&attachment.volume_id);
    std::fs::remove_file(&image).unwrap();
    attachment.down(&fixture.csi);
    fixture.crash_and_restart();
    for result in [
        attachment.stage(&fixture.csi),
        attachment.publish(&fixture.csi),
    ] {
        let status = result.expect_err("a volume without data is not staged");
        assert!(!status.message().is_empty());
    }
    assert!(!image.exists());
    let _said = tests::check::finds(&fixture.pool());
    fixture.spoiled();
}

#[test]
fn a_volume_in_use_is_not_torn_from_its_user() {
    let fixture = Fixture::on(FsKind::Xfs);
    for (name, how) in uses() {
        let attachment = fixture.published(name, SIZE, &how);
        let bytes = attachment.write_data();
        if !is_block(&how) {
            let open = File::open(attachment.data_place()).unwrap();
            let _busy = refused(attachment.unpublish(&fixture.csi), Code::FailedPrecondition);
            assert_eq!(mounts::at(&attachment.target).len(), 1, "no lazy unmount");
            attachment.assert_data(&bytes);
            drop(open);
        }
        attachment.down_and_delete(&fixture.csi);
    }
}

#[test]
fn kubelets_own_loop_on_the_published_device_is_kept_apart() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let attachment = fixture.published("device", SIZE, &block());
    let bytes = attachment.write_data();
    // kubelet attaches a loop device to what we published, as a lock.
    let lock = loops::attach(&attachment.target);
    fixture.crash_and_restart();
    attachment.up(&fixture.csi);
    assert_eq!(fixture.fs.loops().len(), 1, "ours is found among two");
    assert_eq!(content::read_at(&lock, 0, bytes.len()), bytes);
    let _in_use = refused(
        fixture.csi.delete(&attachment.volume_id),
        Code::FailedPrecondition,
    );
    let lock = loops::all()
        .into_iter()
        .find(|one| one.name == lock)
        .unwrap();
    assert!(loops::detach(&lock.name, lock.back_inode));
    attachment.down_and_delete(&fixture.csi);
}

#[test]
fn identical_calls_at_once_are_one() {
    let fixture = Fixture::on(FsKind::Xfs);
    for (name, how) in uses() {
        let made = fixture.csi.made_volume(volume(name, SIZE, how.clone()));
        let attachment = fixture.attachment(&made.volume_id, "pod", &how);
        type Call = fn(&Attachment, &tests::client::Client) -> Result<(), tonic::Status>;
        let calls: [Call; 4] = [
            Attachment::stage,
            Attachment::publish,
            Attachment::unpublish,
            Attachment::unstage,
        ];
        for (number, call) in calls.into_iter().enumerate() {
            std::thread::scope(|scope| {
                for _ in 0..6 {
                    let _joined_by_scope = scope.spawn(|| {
                        accepted(call(&attachment, &fixture.server.client()));
                    });
                }
            });
            if number == 1 {
                let _device = assert_attached_once(&fixture, &attachment);
            }
        }
        accepted(fixture.csi.delete(&made.volume_id));
    }
}

#[test]
fn usage_is_reported_for_each_kind_of_volume() {
    let fixture = Fixture::on(FsKind::Xfs);
    for (name, how) in uses() {
        let attachment = fixture.published(name, SIZE, &how);
        let usage = accepted(attachment.stats(&fixture.csi));
        let of = |unit: csi::volume_usage::Unit| {
            usage
                .iter()
                .find(|one| one.unit == i32::from(unit))
                .cloned()
        };
        let bytes = of(csi::volume_usage::Unit::Bytes).expect("bytes are reported");
        if is_block(&how) {
            assert_eq!(bytes.total, tests::requests::signed(SIZE));
        } else {
            assert!(
                bytes.total > 0 && bytes.used >= 0 && bytes.available > 0,
                "{bytes:?}"
            );
            let inodes = of(csi::volume_usage::Unit::Inodes).expect("inodes are reported");
            assert!(inodes.total > 0 && inodes.used > 0, "{inodes:?}");
        }
        for path in ["some/path", "/some/path", &text(&fixture.kubelet())] {
            let request = csi::NodeGetVolumeStatsRequest {
                volume_id: attachment.volume_id.clone(),
                volume_path: path.to_owned(),
                ..Default::default()
            };
            let _elsewhere = refused(fixture.csi.node_get_volume_stats(request), Code::NotFound);
        }
        attachment.down_and_delete(&fixture.csi);
    }
}
