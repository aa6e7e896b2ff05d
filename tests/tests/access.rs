//! Who may use a volume beside whom: access modes, occupied targets, read-only use.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and their folders are their own"
)]

use std::path::Path;

use tests::client::{accepted, refused};
use tests::csi::volume_capability::access_mode::Mode;
use tests::fixture::Fixture;
use tests::mounts;
use tests::requests::{uses, volume, with_mode};
use tests::scratch_fs::{FsKind, MIB};
use tonic::Code;

/// The smallest that serves xfs too.
const SIZE: u64 = 320 * MIB;

#[test]
fn a_second_target_is_allowed_or_not_by_the_access_mode() {
    let fixture = Fixture::on(FsKind::Xfs);
    let modes = [
        (Mode::SingleNodeMultiWriter, true),
        (Mode::SingleNodeSingleWriter, false),
        (Mode::SingleNodeWriter, false),
    ];
    for (name, how) in uses() {
        for (mode, allowed) in modes {
            let how = with_mode(how.clone(), mode);
            let first = fixture.published(&format!("{name}-{mode:?}"), SIZE, &how);
            let bytes = first.write_data();
            let second = first.in_pod(&fixture.kubelet(), "pod-2");
            if allowed {
                second.up(&fixture.csi);
                second.assert_data(&bytes);
                accepted(first.unpublish(&fixture.csi));
                second.assert_data(&bytes);
                accepted(second.unpublish(&fixture.csi));
            } else {
                let _one_writer = refused(second.publish(&fixture.csi), Code::FailedPrecondition);
                assert_eq!(mounts::at(&second.target), []);
                first.assert_data(&bytes);
                accepted(first.unpublish(&fixture.csi));
                // The first has gone, so now it is the other's turn.
                accepted(second.publish(&fixture.csi));
                accepted(second.unpublish(&fixture.csi));
            }
            accepted(first.unstage(&fixture.csi));
            accepted(fixture.csi.delete(&first.volume_id));
        }
    }
}

#[test]
fn another_publish_at_the_same_target_is_refused() {
    let fixture = Fixture::on(FsKind::Xfs);
    for (name, how) in uses() {
        let attachment = fixture.published(name, SIZE, &how);
        let reading = attachment.clone().reading();
        let _differs = refused(reading.publish(&fixture.csi), Code::AlreadyExists);
        let other = fixture.csi.made_volume(volume("other", SIZE, how.clone()));
        let mut intruder = fixture.attachment(&other.volume_id, "pod-1", &how);
        intruder.target = attachment.target.clone();
        accepted(intruder.stage(&fixture.csi));
        let _occupied = refused(intruder.publish(&fixture.csi), Code::AlreadyExists);
        // Nor is the one unpublished by the name of the other.
        let _not_its = intruder.unpublish(&fixture.csi).is_ok();
        assert_eq!(mounts::at(&attachment.target).len(), 1);
        accepted(intruder.unstage(&fixture.csi));
        accepted(fixture.csi.delete(&other.volume_id));
        attachment.down_and_delete(&fixture.csi);
    }
}

fn write_fails(place: &Path) -> bool {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(place);
    file.and_then(|file| {
        file.write_all_at(b"intruder", 0)
            .and_then(|()| file.sync_all())
    })
    .is_err()
}

#[test]
fn a_read_only_publish_can_be_read_and_not_written() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    for (name, how) in uses() {
        let writing = fixture.published(name, SIZE, &how);
        let bytes = writing.write_data();
        accepted(writing.unpublish(&fixture.csi));
        accepted(writing.unstage(&fixture.csi));
        let reading = writing.in_pod(&fixture.kubelet(), "reader").reading();
        reading.up(&fixture.csi);
        reading.assert_data(&bytes);
        assert!(write_fails(&reading.data_place()), "{name} can be written");
        fixture.crash_and_restart();
        reading.up(&fixture.csi);
        assert!(write_fails(&reading.data_place()), "{name} can be written");
        reading.assert_data(&bytes);
        reading.down_and_delete(&fixture.csi);
    }
}
