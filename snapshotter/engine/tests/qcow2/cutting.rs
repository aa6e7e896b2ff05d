//! What a cut is and is not.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use pool::ErrorKind;
use snapshot_engine::{Cut, Watch, clone_raw, copy_raw, restore};

use crate::content::{assert_same, assert_zero, fill, noise};
use crate::scratch::{Kind, Scratch};
use crate::snapshot::{How, assert_qemu_agrees, assert_restores, cut, finish};

const MIB: u64 = 1 << 20;
const ALL: [(Kind, How); 4] = [
    (Kind::Host, How::Copy),
    (Kind::Xfs, How::Reflink),
    (Kind::BtrfsNocow, How::Reflink),
    (Kind::Btrfs, How::Reflink),
];

#[test]
fn write_after_the_cut_is_not_in_the_snapshot() {
    for (kind, how) in ALL {
        let scratch = Scratch::new(kind);
        let source = scratch.file("disk.img", 8 * MIB);
        let before = scratch.file("before.img", 8 * MIB);
        for file in [&source, &before] {
            fill(file, 1, 0, 4 * MIB);
        }
        let image = scratch.file("image", 0);
        let cutting = Cut::prepare(&image, 8 * MIB).unwrap();
        match how {
            How::Reflink => drop(cutting.reflink(&source).unwrap()),
            How::Copy => cutting.copy(&source, &Watch::UNWATCHED).unwrap(),
        }
        // Between the cut and its end: over data, over a hole, and a hole over data.
        fill(&source, 2, MIB, 5 * MIB);
        source.set_len(MIB / 2).unwrap();
        source.set_len(8 * MIB).unwrap();
        let record = crate::snapshot::record("image", &finish(cutting, &image));
        let snapshot = crate::snapshot::Snapshot { image, record };
        assert_qemu_agrees(&scratch.path("image"), &scratch.path("before.img"), 8 * MIB);
        assert_restores(&scratch, &snapshot, &before);
    }
}

#[test]
fn write_to_a_restored_volume_changes_neither_snapshot_nor_source() {
    for (kind, how) in ALL {
        let scratch = Scratch::new(kind);
        let source = scratch.file("disk.img", 4 * MIB);
        let before = scratch.file("before.img", 4 * MIB);
        for file in [&source, &before] {
            fill(file, 1, 0, 4 * MIB);
        }
        let snapshot = cut(&scratch, "image", &source, how);
        let target = scratch.file("target.img", 4 * MIB);
        restore(
            &snapshot.image,
            &snapshot.record,
            &target,
            &Watch::UNWATCHED,
        )
        .unwrap();
        fill(&target, 3, MIB, MIB);
        assert_same((&source, 0), (&before, 0), 4 * MIB);
        assert_restores(&scratch, &snapshot, &before);
        // And the snapshot does not need its source.
        std::fs::remove_file(scratch.path("disk.img")).unwrap();
        drop(source);
        assert_restores(&scratch, &snapshot, &before);
    }
}

#[test]
fn disk_that_starts_like_a_qcow2_file_is_still_raw() {
    let scratch = Scratch::new(Kind::Xfs);
    let source = scratch.file("disk.img", 2 * MIB);
    let mut header = vec![0u8; 65536];
    header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    // A backing file, named right behind the header, that nobody must ever open.
    header[8..16].copy_from_slice(&112u64.to_be_bytes());
    header[16..20].copy_from_slice(&11u32.to_be_bytes());
    header[112..123].copy_from_slice(b"/etc/passwd");
    source.write_all_at(&header, 0).unwrap();
    for (name, how) in [("cut", How::Reflink), ("copied", How::Copy)] {
        let snapshot = cut(&scratch, name, &source, how);
        assert_qemu_agrees(&scratch.path(name), &scratch.path("disk.img"), 2 * MIB);
        assert_restores(&scratch, &snapshot, &source);
    }
}

#[test]
fn cut_and_copied_snapshots_of_one_disk_have_the_same_metadata() {
    let scratch = Scratch::new(Kind::Xfs);
    let source = scratch.file("disk.img", 600 * MIB);
    fill(&source, 1, 3 * MIB, 2 * MIB);
    fill(&source, 1, 599 * MIB, MIB);
    let cut_one = cut(&scratch, "cut", &source, How::Reflink);
    let copied = cut(&scratch, "copied", &source, How::Copy);
    assert_eq!(
        cut_one.record.metadata_digest,
        copied.record.metadata_digest
    );
    assert_eq!(cut_one.record.extents, 2);
}

#[test]
fn charge_is_what_the_image_has_allocated() {
    for (kind, how) in ALL {
        let scratch = Scratch::new(kind);
        let source = scratch.file("disk.img", 512 * MIB);
        fill(&source, 1, 16 * MIB, 10 * MIB);
        source.sync_all().unwrap();
        let snapshot = cut(&scratch, "image", &source, how);
        let charge = snapshot.record.charge_bytes;
        assert_eq!(charge, snapshot.image.metadata().unwrap().blocks() * 512);
        // Data and five tables: 64 KiB each at most.
        assert!(
            (10 * MIB..=10 * MIB + 5 * 65536).contains(&charge),
            "{kind:?}: {charge}"
        );
    }
}

#[test]
fn clone_is_the_volume_and_then_zero() {
    for kind in [Kind::Xfs, Kind::BtrfsNocow, Kind::Btrfs] {
        let scratch = Scratch::new(kind);
        let source = scratch.file("disk.img", 8 * MIB);
        fill(&source, 1, MIB, 3 * MIB);
        let target = scratch.file("target.img", 11 * MIB);
        clone_raw(&source, 8 * MIB, &target).unwrap();
        assert_same((&source, 0), (&target, 0), 8 * MIB);
        assert_zero(&target, 8 * MIB, 3 * MIB);
        assert_eq!(target.metadata().unwrap().len(), 11 * MIB);
    }
}

#[test]
fn copy_is_the_volume_and_then_zero() {
    let scratch = Scratch::new(Kind::Host);
    let source = scratch.file("disk.img", 8 * MIB);
    fill(&source, 1, MIB, 3 * MIB);
    let target = scratch.file("target.img", 11 * MIB);
    copy_raw(&source, 8 * MIB, &target, &Watch::UNWATCHED).unwrap();
    assert_same((&source, 0), (&target, 0), 8 * MIB);
    assert_zero(&target, 8 * MIB, 3 * MIB);
    assert_eq!(target.metadata().unwrap().len(), 11 * MIB);
    let allocated = target.metadata().unwrap().blocks() * 512;
    assert!(
        allocated <= 3 * MIB + 65536,
        "holes were filled: {allocated}"
    );
}

#[test]
fn files_that_cannot_share_blocks_are_refused_and_left_as_they_were() {
    let (here, there) = (Scratch::new(Kind::Xfs), Scratch::new(Kind::Host));
    let source = here.file("disk.img", MIB);
    let image = there.file("image", 0);
    let error = Cut::prepare(&image, MIB)
        .unwrap()
        .reflink(&source)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Precondition, "{error}");
    let target = there.file("target.img", MIB);
    let error = clone_raw(&source, MIB, &target).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Precondition, "{error}");
    assert_zero(&target, 0, MIB);
}

#[test]
fn source_that_was_cut_short_is_refused() {
    let scratch = Scratch::new(Kind::Xfs);
    let source = scratch.file("disk.img", MIB);
    let refused = |attempt: pool::Result<()>| {
        let error = attempt.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("cut short"), "{error}");
    };
    let image = scratch.file("image", 0);
    let cutting = Cut::prepare(&image, 2 * MIB).unwrap();
    refused(cutting.reflink(&source).map(drop));
    refused(cutting.copy(&source, &Watch::UNWATCHED));
    let target = scratch.file("target.img", 2 * MIB);
    refused(clone_raw(&source, 2 * MIB, &target).map(drop));
    refused(copy_raw(&source, 2 * MIB, &target, &Watch::UNWATCHED));
}

#[test]
fn steps_out_of_order_are_errors() {
    let scratch = Scratch::new(Kind::Host);
    let used = scratch.file("used", 0);
    used.write_all_at(&noise(1, 0, 1), 0).unwrap();
    let kind = |file: &File| Cut::prepare(file, MIB).unwrap_err().kind();
    assert_eq!(kind(&used), ErrorKind::Internal);
    let uncut = scratch.file("uncut", 0);
    let error = Cut::prepare(&uncut, MIB).unwrap().finish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}
