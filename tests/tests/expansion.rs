//! Volumes grow: while they are used and while they are not, and never shrink.
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
use tests::csi;
use tests::fixture::Fixture;
use tests::kubelet::Attachment;
use tests::requests::{
    at_least, block, expand, filesystem, from_snapshot, from_volume, is_block, signed, snapshot,
    uses, volume,
};
use tests::scratch_fs::{FsKind, GIB, MIB};
use tests::writer::{self, Writer};
use tests::{content, tools};
use tonic::Code;

const BEFORE: u64 = 320 * MIB;
const AFTER: u64 = 512 * MIB;

/// The size that a pod sees.
fn seen_bytes(attachment: &Attachment) -> u64 {
    if is_block(&attachment.capability) {
        content::size_of(&attachment.target)
    } else {
        filesystem_bytes(&attachment.target)
    }
}

fn filesystem_bytes(folder: &Path) -> u64 {
    let folder = folder.to_str().unwrap();
    let said = tools::run("stat", &["--file-system", "--format=%b %S", folder]);
    let numbers: Vec<u64> = said
        .split_whitespace()
        .map(|one| one.parse().unwrap())
        .collect();
    numbers[0] * numbers[1]
}

/// The filesystem grows while it is used; where the kernel forbids that to a mounted ext4, the refusal says what to do,
/// and doing it helps.
#[track_caller]
fn grow_on_node(fixture: &Fixture, attachment: &Attachment, bytes: u64) {
    let is_ext4 = attachment.capability == filesystem("ext4");
    if is_ext4 && !tests::capabilities::may_grow_mounted_ext4() {
        let status = refused(
            attachment.expand(&fixture.csi, bytes),
            Code::FailedPrecondition,
        );
        assert!(
            status.message().contains("CAP_SYS_RESOURCE"),
            "{}",
            status.message()
        );
        attachment.down(&fixture.csi);
        attachment.up(&fixture.csi);
    }
    assert_eq!(
        accepted(attachment.expand(&fixture.csi, bytes)),
        signed(bytes)
    );
}

/// What is left of a size for files is less than the device: xfs keeps 64 MiB for its log.
#[track_caller]
fn assert_grown(attachment: &Attachment, bytes: u64) {
    let seen = seen_bytes(attachment);
    if is_block(&attachment.capability) {
        assert_eq!(seen, bytes);
    } else {
        assert!(seen >= bytes / 4 * 3 && seen <= bytes, "{seen} of {bytes}");
    }
}

#[track_caller]
fn grow(fixture: &Fixture, attachment: &Attachment, bytes: u64) {
    let request = expand(&attachment.volume_id, bytes, attachment.capability.clone());
    let answer = accepted(fixture.csi.controller_expand_volume(request));
    assert_eq!(answer.capacity_bytes, signed(bytes));
    assert!(answer.node_expansion_required);
}

#[test]
fn a_published_volume_grows_under_its_user() {
    for kind in FsKind::ALL {
        let fixture = Fixture::on(kind);
        for (name, how) in uses() {
            let attachment = fixture.published(name, BEFORE, &how);
            assert_grown(&attachment, BEFORE);
            grow(&fixture, &attachment, AFTER);
            grow_on_node(&fixture, &attachment, AFTER);
            assert_grown(&attachment, AFTER);
            // Again, as sidecar and kubelet do after a lost answer.
            grow(&fixture, &attachment, AFTER);
            assert_eq!(
                accepted(attachment.expand(&fixture.csi, AFTER)),
                signed(AFTER)
            );
            attachment.down_and_delete(&fixture.csi);
        }
    }
}

#[test]
fn a_writer_goes_on_while_its_device_grows() {
    let fixture = Fixture::on(FsKind::Xfs);
    let attachment = fixture.published("device", BEFORE, &block());
    let writer = Writer::start(&attachment.target, 64 * MIB);
    for step in 1..=4 {
        writer.advance(20);
        let bytes = BEFORE + step * 16 * MIB;
        grow(&fixture, &attachment, bytes);
        let _bytes = accepted(attachment.expand(&fixture.csi, bytes));
        assert_grown(&attachment, bytes);
    }
    writer.advance(20);
    let layout = writer.layout();
    let last = writer.stop();
    attachment.down(&fixture.csi);
    let image = fixture.image(&attachment.volume_id);
    assert_eq!(writer::verify(&image, layout), Ok(last));
    accepted(fixture.csi.delete(&attachment.volume_id));
}

#[test]
fn a_volume_that_nobody_uses_grows_and_shows_it_when_it_is_used() {
    for kind in FsKind::ALL {
        let mut fixture = Fixture::on(kind);
        for (name, how) in uses() {
            let attachment = fixture.published(name, BEFORE, &how);
            attachment.down(&fixture.csi);
            grow(&fixture, &attachment, AFTER);
            fixture.crash_and_restart();
            attachment.up(&fixture.csi);
            let _bytes = accepted(attachment.expand(&fixture.csi, AFTER));
            assert_grown(&attachment, AFTER);
            attachment.down_and_delete(&fixture.csi);
        }
    }
}

#[test]
fn a_volume_never_used_grows_too() {
    let fixture = Fixture::on(FsKind::Xfs);
    for (name, how) in uses() {
        let made = fixture.csi.made_volume(volume(name, BEFORE, how.clone()));
        let attachment = fixture.attachment(&made.volume_id, "pod", &how);
        grow(&fixture, &attachment, AFTER);
        attachment.up(&fixture.csi);
        assert_grown(&attachment, AFTER);
        attachment.down_and_delete(&fixture.csi);
    }
}

#[test]
fn a_volume_never_shrinks() {
    let fixture = Fixture::on(FsKind::Xfs);
    let attachment = fixture.published("large", AFTER, &block());
    // Less than it has already is no error: it is fulfilled.
    let request = expand(&attachment.volume_id, BEFORE, block());
    let answer = accepted(fixture.csi.controller_expand_volume(request));
    assert_eq!(answer.capacity_bytes, signed(AFTER));
    let limited = csi::ControllerExpandVolumeRequest {
        capacity_range: tests::requests::between(BEFORE, BEFORE),
        ..expand(&attachment.volume_id, BEFORE, block())
    };
    let _smaller = refused(
        fixture.csi.controller_expand_volume(limited),
        Code::OutOfRange,
    );
    assert_grown(&attachment, AFTER);
    attachment.down_and_delete(&fixture.csi);
}

#[test]
fn growth_beyond_the_pool_is_refused_with_the_figures() {
    let fixture = Fixture::on(FsKind::Xfs);
    let attachment = fixture.published("small", BEFORE, &block());
    let free = u64::try_from(fixture.csi.free_bytes()).unwrap();
    let request = expand(&attachment.volume_id, BEFORE + 2 * free, block());
    // Infeasible for external-resizer: only so may the user lower the request again.
    let status = refused(
        fixture.csi.controller_expand_volume(request),
        Code::OutOfRange,
    );
    for figure in ["may promise", "MiB", "Delete volumes"] {
        assert!(status.message().contains(figure), "{}", status.message());
    }
    assert_grown(&attachment, BEFORE);
    attachment.down_and_delete(&fixture.csi);
}

/// A server whose expansions stop once the image has its new size, once or always, with a volume of which one was stopped so.
fn half_grown(how: &csi::VolumeCapability, action: &str) -> (Fixture, String) {
    let fault = format!("expand.image-grown:{action}");
    let fixture = Fixture::with(FsKind::Xfs, 24 * GIB, |setup| setup.with_fault(&fault));
    let volume = fixture
        .csi
        .made_volume(volume("source", BEFORE, how.clone()));
    let request = expand(&volume.volume_id, AFTER, how.clone());
    let status = refused(
        fixture.csi.controller_expand_volume(request),
        Code::Unavailable,
    );
    assert!(status.message().contains("goes on with the next call"));
    assert_eq!(content::size_of(&fixture.image(&volume.volume_id)), AFTER);
    (fixture, volume.volume_id)
}

#[test]
fn a_copy_of_a_half_expanded_volume_holds_all_that_its_guest_could_write() {
    for (fs, how) in uses() {
        let (fixture, source) = half_grown(&how, "once-eio");
        let client = &fixture.csi;
        let used = fixture.attachment(&source, "pod-1", &how);
        used.up(client);
        assert_grown(&used, AFTER);
        if is_block(&how) {
            content::write_at(&used.target, AFTER - MIB, &content::pattern(fs, 4096));
        }
        let bytes = used.write_data();

        let cut = client.made_snapshot(snapshot(fs, &source));
        let again = expand(&source, AFTER, how.clone());
        accepted(client.controller_expand_volume(again));
        let copies = [
            from_snapshot(volume("restored", AFTER, how.clone()), &cut.snapshot_id),
            from_volume(volume("cloned", AFTER, how.clone()), &source),
        ];
        for request in copies {
            let copy = client.made_volume(request);
            let copy = fixture.attachment(&copy.volume_id, "pod-2", &how);
            copy.up(client);
            assert_grown(&copy, AFTER);
            copy.assert_data(&bytes);
            if is_block(&how) {
                let end = content::read_at(&copy.target, AFTER - MIB, 4096);
                assert_eq!(end, content::pattern(fs, 4096), "the end of the disk");
            }
            copy.down_and_delete(client);
        }
        accepted(client.delete_cut(&cut.snapshot_id));
        used.down_and_delete(client);
    }
}

#[test]
fn a_volume_whose_expansion_cannot_be_finished_is_not_copied() {
    let (mut fixture, source) = half_grown(&block(), "eio");
    for _again in 0..2 {
        let cut = refused(
            fixture.csi.create_snapshot(snapshot("cut", &source)),
            Code::Internal,
        );
        let clone = from_volume(volume("clone", AFTER, block()), &source);
        let clone = refused(fixture.csi.create_volume(clone), Code::Internal);
        for status in [cut, clone] {
            let said = status.message();
            assert!(said.contains("finish the interrupted expansion"), "{said}");
        }
    }
    assert_eq!(fixture.csi.volume_ids(), std::slice::from_ref(&source));
    assert!(fixture.csi.snapshot_ids().is_empty());
    // The next start finishes it.
    fixture.crash_and_restart();
    let cut = fixture.csi.made_snapshot(snapshot("cut", &source));
    accepted(fixture.csi.delete_cut(&cut.snapshot_id));
    accepted(fixture.csi.delete(&source));
}

#[test]
fn expansion_of_what_does_not_exist_or_is_not_there_is_refused() {
    let fixture = Fixture::on(FsKind::Xfs);
    let unknown = expand("fake-vol-id", AFTER, block());
    let _unknown = refused(
        fixture.csi.controller_expand_volume(unknown),
        Code::NotFound,
    );
    let made = fixture.csi.made_volume(volume("here", BEFORE, block()));
    let attachment = fixture.attachment(&made.volume_id, "pod", &block());
    let _not_published = refused(attachment.expand(&fixture.csi, BEFORE), Code::NotFound);
    let no_range = csi::ControllerExpandVolumeRequest {
        capacity_range: None,
        ..expand(&made.volume_id, AFTER, block())
    };
    let _no_range = refused(
        fixture.csi.controller_expand_volume(no_range),
        Code::InvalidArgument,
    );
    let other_kind = csi::ControllerExpandVolumeRequest {
        capacity_range: at_least(AFTER),
        ..expand(&made.volume_id, AFTER, filesystem("ext4"))
    };
    let _other_kind = refused(
        fixture.csi.controller_expand_volume(other_kind),
        Code::InvalidArgument,
    );
    accepted(fixture.csi.delete(&made.volume_id));
}
