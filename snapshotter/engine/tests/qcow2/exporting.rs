//! Snapshots as compact qcow2 files.

use std::cell::RefCell;
use std::fs::File;

use pool::ErrorKind;
use snapshot_engine::reader::{check, open};
use snapshot_engine::{Watch, export};

use crate::content::{assert_same, fill};
use crate::scratch::{Kind, Scratch, run};
use crate::snapshot::{How, Snapshot, cut};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Sizes of disks, and what is written to them.
const SHAPES: [(u64, &[(u64, u64)]); 6] = [
    (64 * KIB, &[(100, 1)]),
    (MIB, &[]),
    (9 * MIB, &[(0, 9 * MIB)]),
    (
        100 * MIB,
        &[(64 * KIB - 1, 2), (5 * MIB, 4 * KIB), (99 * MIB, MIB)],
    ),
    (
        3 * GIB,
        &[
            (0, 1),
            (512 * MIB - 1, 2),
            (2 * GIB, 80 * MIB),
            (3 * GIB - 1, 1),
        ],
    ),
    (2 << 40, &[((2 << 40) - 70 * KIB, 70 * KIB)]),
];

fn shaped(scratch: &Scratch, size: u64, pieces: &[(u64, u64)]) -> File {
    let source = scratch.file("disk.img", size);
    for (offset, length) in pieces {
        fill(&source, 1, *offset, *length);
    }
    source
}

/// Exports and holds the result against `source`, by qemu and by the strict reader.
fn assert_exports(scratch: &Scratch, snapshot: &Snapshot, source: &File) {
    let size = snapshot.record.virtual_bytes;
    let target = scratch.file("export.qcow2", 0);
    export(
        &snapshot.image,
        &snapshot.record,
        &target,
        &Watch::UNWATCHED,
    )
    .unwrap();
    let path = scratch.path("export.qcow2");
    let found = run(std::process::Command::new("qemu-img")
        .args(["check", "-f", "qcow2"])
        .arg(&path));
    assert!(found.contains("No errors were found"), "{found}");
    let file = open(&path).unwrap();
    let facts = *check(&file).unwrap().facts();
    assert_eq!((facts.virtual_bytes, facts.leaked_clusters), (size, 0));
    let raw = scratch.path("export.raw");
    let _out = run(std::process::Command::new("qemu-img")
        .args(["convert", "-f", "qcow2", "-O", "raw"])
        .args([&path, &raw]));
    assert_same((source, 0), (&File::open(&raw).unwrap(), 0), size);
    // Header, refcount table, its one block, L1 table; and at most the L2 tables of all pieces.
    let metadata = facts.file_bytes - facts.allocated_bytes();
    assert!(metadata <= (4 + 7) * 64 * KIB, "{facts:?}");
}

#[test]
fn every_shape_becomes_a_compact_image_of_the_same_disk() {
    for (kind, how) in [(Kind::Host, How::Copy), (Kind::Xfs, How::Reflink)] {
        for (size, pieces) in SHAPES {
            let scratch = Scratch::new(kind);
            let source = shaped(&scratch, size, pieces);
            let snapshot = cut(&scratch, "image", &source, how);
            assert_exports(&scratch, &snapshot, &source);
        }
    }
}

#[test]
fn progress_ascends_to_what_is_allocated() {
    let scratch = Scratch::new(Kind::Host);
    let source = shaped(&scratch, 64 * MIB, &[(0, 20 * MIB), (40 * MIB, MIB)]);
    let snapshot = cut(&scratch, "image", &source, How::Copy);
    let heard = RefCell::new(Vec::new());
    let target = scratch.file("export.qcow2", 0);
    let watch = Watch {
        deadline: None,
        keep_going: &|| true,
        progress: &|done, all| heard.borrow_mut().push((done, all)),
    };
    export(&snapshot.image, &snapshot.record, &target, &watch).unwrap();
    let heard = heard.into_inner();
    assert!(heard.is_sorted(), "{heard:?}");
    assert_eq!(heard.last(), Some(&(21 * MIB, 21 * MIB)));
}

#[test]
fn export_that_is_not_wanted_any_more_stops() {
    let scratch = Scratch::new(Kind::Host);
    let source = shaped(&scratch, 64 * MIB, &[(0, 20 * MIB)]);
    let snapshot = cut(&scratch, "image", &source, How::Copy);
    let target = scratch.file("export.qcow2", 0);
    let watch = Watch {
        keep_going: &|| false,
        ..Watch::UNWATCHED
    };
    let error = export(&snapshot.image, &snapshot.record, &target, &watch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Uncertain);
}

#[test]
fn image_that_is_not_the_recorded_one_is_not_exported() {
    let scratch = Scratch::new(Kind::Host);
    let source = shaped(&scratch, 64 * MIB, &[(0, 20 * MIB)]);
    let mut snapshot = cut(&scratch, "image", &source, How::Copy);
    snapshot.record.metadata_digest = "0".repeat(64);
    let target = scratch.file("export.qcow2", 0);
    let error = export(
        &snapshot.image,
        &snapshot.record,
        &target,
        &Watch::UNWATCHED,
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(target.metadata().unwrap().len(), 0);
}

#[test]
fn snapshot_that_is_deleted_meanwhile_is_not_exported() {
    let scratch = Scratch::new(Kind::Host);
    let source = shaped(&scratch, 64 * MIB, &[(0, 20 * MIB)]);
    let snapshot = cut(&scratch, "image", &source, How::Copy);
    let target = scratch.file("export.qcow2", 0);
    let watch = Watch {
        deadline: None,
        keep_going: &|| true,
        progress: &|_done, _all| {
            let length = snapshot.image.metadata().unwrap().len();
            snapshot.image.set_len(length - MIB).unwrap();
        },
    };
    let error = export(&snapshot.image, &snapshot.record, &target, &watch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}
