//! Zero means zero: space that nobody wrote reads as zero, and never as what somebody else wrote.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and their folders are their own"
)]

use tests::client::accepted;
use tests::content;
use tests::fixture::Fixture;
use tests::kubelet::Attachment;
use tests::requests::{
    block, expand, from_snapshot, from_volume, snapshot, volume, with_parameter,
};
use tests::scratch_fs::{FsKind, MIB};

const SIZE: u64 = 32 * MIB;
const CANARY: &[u8] = b"this belonged to somebody else";

#[track_caller]
fn assert_zero_from(attachment: &Attachment, offset: u64) {
    let bytes = content::size_of(&attachment.target);
    let found = content::first_not_zero(&attachment.target, offset, bytes - offset);
    assert_eq!(found, None, "the first byte that is not zero");
}

/// Writes the canary over and over until the device is full.
fn fill_with_canary(attachment: &Attachment) {
    let bytes = content::size_of(&attachment.target);
    let length = usize::try_from(bytes).unwrap();
    let all: Vec<u8> = CANARY.iter().copied().cycle().take(length).collect();
    content::write_at(&attachment.target, 0, &all);
}

#[test]
fn a_new_volume_reads_as_zero() {
    for kind in FsKind::ALL {
        let fixture = Fixture::on(kind);
        for provisioning in ["thin", "thick"] {
            let request = volume(provisioning, SIZE, block());
            let request = with_parameter(request, "provisioning", provisioning);
            let made = fixture.csi.made_volume(request);
            let attachment = fixture.attachment(&made.volume_id, "pod", &block());
            attachment.up(&fixture.csi);
            assert_zero_from(&attachment, 0);
            attachment.down_and_delete(&fixture.csi);
        }
    }
}

#[test]
fn space_gained_by_growth_reads_as_zero() {
    for kind in FsKind::ALL {
        let fixture = Fixture::on(kind);
        for provisioning in ["thin", "thick"] {
            // An odd size: the last megabyte was there before, but nobody could ask for all of it.
            let request = volume(provisioning, SIZE - 4095, block());
            let request = with_parameter(request, "provisioning", provisioning);
            let made = fixture.csi.made_volume(request);
            let attachment = fixture.attachment(&made.volume_id, "pod", &block());
            attachment.up(&fixture.csi);
            fill_with_canary(&attachment);
            let request = expand(&made.volume_id, 2 * SIZE, block());
            let _answer = accepted(fixture.csi.controller_expand_volume(request));
            let _bytes = accepted(attachment.expand(&fixture.csi, 2 * SIZE));
            assert_zero_from(&attachment, SIZE);
            attachment.down_and_delete(&fixture.csi);
        }
    }
}

#[test]
fn space_beyond_a_restored_or_cloned_source_reads_as_zero() {
    for kind in FsKind::ALL {
        let fixture = Fixture::on(kind);
        let source = fixture.published("source", SIZE, &block());
        fill_with_canary(&source);
        source.down(&fixture.csi);
        let cut = fixture
            .csi
            .made_snapshot(snapshot("cut", &source.volume_id));
        let copies = [
            from_snapshot(volume("restored", 2 * SIZE, block()), &cut.snapshot_id),
            from_volume(volume("cloned", 2 * SIZE, block()), &source.volume_id),
        ];
        let expected = content::digest(&fixture.image(&source.volume_id));
        for request in copies {
            let made = fixture.csi.made_volume(request);
            let attachment = fixture.attachment(&made.volume_id, "pod", &block());
            attachment.up(&fixture.csi);
            assert_eq!(content::digest_of(&attachment.target, 0, SIZE), expected);
            assert_zero_from(&attachment, SIZE);
            attachment.down_and_delete(&fixture.csi);
        }
        accepted(fixture.csi.delete_cut(&cut.snapshot_id));
        accepted(fixture.csi.delete(&source.volume_id));
    }
}

#[test]
fn holes_of_a_source_stay_holes_and_read_as_zero_in_its_copies() {
    for kind in FsKind::ALL {
        let fixture = Fixture::on(kind);
        let source = fixture.published("sparse", SIZE, &block());
        content::write_at(&source.target, 5 * MIB + 512, CANARY);
        source.down(&fixture.csi);
        let cut = fixture
            .csi
            .made_snapshot(snapshot("cut", &source.volume_id));
        let request = from_snapshot(volume("restored", SIZE, block()), &cut.snapshot_id);
        let made = fixture.csi.made_volume(request);
        let (image, copy) = (
            fixture.image(&source.volume_id),
            fixture.image(&made.volume_id),
        );
        assert_eq!(content::digest(&copy), content::digest(&image));
        assert!(
            allocated(&copy) < 2 * MIB,
            "{} bytes are allocated",
            allocated(&copy)
        );
        for id in [&made.volume_id, &source.volume_id] {
            accepted(fixture.csi.delete(id));
        }
        accepted(fixture.csi.delete_cut(&cut.snapshot_id));
    }
}

fn allocated(file: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(file).unwrap().blocks() * 512
}

/// Fills a small pool with the canary, deletes, and makes new volumes over the very same blocks.
#[test]
fn a_deleted_volumes_bytes_are_never_seen_again() {
    for kind in FsKind::ALL {
        let fixture = Fixture::sized(kind, 400 * MIB);
        let free = u64::try_from(fixture.csi.free_bytes()).unwrap();
        // Btrfs needs much of so small a filesystem for itself, and promises nothing.
        let share = if kind == FsKind::Btrfs { 2 } else { 1 };
        let most = free / share / MIB * MIB;
        let first = fixture.published("first", most, &block());
        fill_with_canary(&first);
        first.down_and_delete(&fixture.csi);
        for provisioning in ["thin", "thick"] {
            let request = volume(provisioning, most, block());
            let request = with_parameter(request, "provisioning", provisioning);
            // The trash is emptied before a request is refused, so there is room at once.
            let second = fixture.csi.made_volume(request);
            let attachment = fixture.attachment(&second.volume_id, "pod", &block());
            attachment.up(&fixture.csi);
            assert_zero_from(&attachment, 0);
            // Partial blocks are where old bytes hide.
            for at in (0..most).step_by(64 << 20) {
                content::write_at(&attachment.target, at + 1000, b"x");
            }
            assert_eq!(content::find(&attachment.target, CANARY, 0, most), None);
            attachment.down_and_delete(&fixture.csi);
        }
    }
}
