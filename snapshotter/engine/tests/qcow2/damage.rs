//! Damaged snapshots are found, named, and never restored.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use pool::ErrorKind;
use pool::record::SnapshotRecord;
use snapshot_engine::{Layout, Watch, metadata_digest, restore, verify};

use crate::content::{assert_zero, fill};
use crate::scratch::{Kind, Scratch, run};
use crate::snapshot::{How, Snapshot, assert_restores, cut};

const MIB: u64 = 1 << 20;
const CLUSTER: u64 = 65536;
const SIZE: u64 = 1200 * MIB;

/// A disk of three L2 tables, the middle one not in use, with data around 0, 5 MiB and at its end.
fn snapshot(scratch: &Scratch) -> (File, Snapshot) {
    let source = scratch.file("disk.img", SIZE);
    fill(&source, 1, 0, MIB);
    fill(&source, 1, 5 * MIB + 17, 300_000);
    fill(&source, 1, SIZE - MIB, MIB);
    let snapshot = cut(scratch, "image", &source, How::Copy);
    (source, snapshot)
}

fn flip(image: &File, position: u64, mask: u8) {
    let mut byte = [0];
    image.read_exact_at(&mut byte, position).unwrap();
    image.write_all_at(&[byte[0] ^ mask], position).unwrap();
}

fn assert_refused(scratch: &Scratch, snapshot: &Snapshot) -> String {
    let target = scratch.file("refused.img", SIZE);
    let error = restore(
        &snapshot.image,
        &snapshot.record,
        &target,
        &Watch::UNWATCHED,
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_zero(&target, 0, SIZE);
    std::fs::remove_file(scratch.path("refused.img")).unwrap();
    error.to_string()
}

/// Bytes in every kind of table, in use and not: the ends of each cluster and some between.
fn sampled_positions(layout: &Layout) -> impl Iterator<Item = u64> {
    let clusters = layout.data_offset() / CLUSTER;
    let inside = [
        0,
        1,
        7,
        8,
        23,
        31,
        103,
        104,
        640,
        4095,
        4096,
        30_001,
        CLUSTER - 8,
        CLUSTER - 1,
    ];
    (0..clusters).flat_map(move |cluster| inside.map(|byte| cluster * CLUSTER + byte))
}

#[test]
fn every_flipped_metadata_byte_is_found_and_its_place_named() {
    let scratch = Scratch::new(Kind::Host);
    let (source, snapshot) = snapshot(&scratch);
    let layout = Layout::for_virtual_size(SIZE).unwrap();
    for (position, mask) in sampled_positions(&layout).zip([1, 0x80, 0xff].into_iter().cycle()) {
        flip(&snapshot.image, position, mask);
        let digest = metadata_digest(&snapshot.image, &layout).unwrap();
        assert_ne!(digest, snapshot.record.metadata_digest, "byte {position}");
        let findings = verify(&snapshot.image, &snapshot.record).unwrap();
        let named = |problem: &snapshot_engine::Problem| problem.position.is_some();
        assert!(
            findings.problems.iter().any(named),
            "byte {position}: {findings:?}"
        );
        flip(&snapshot.image, position, mask);
    }
    assert_restores(&scratch, &snapshot, &source);
}

#[test]
fn refused_restore_names_the_word_that_is_damaged() {
    let scratch = Scratch::new(Kind::Host);
    let (_source, snapshot) = snapshot(&scratch);
    // The refcount table is the second cluster of the file.
    flip(&snapshot.image, CLUSTER + 5, 4);
    let text = assert_refused(&scratch, &snapshot);
    assert!(
        text.contains("byte 65536: the refcount table holds"),
        "{text}"
    );
}

#[test]
fn flipped_data_does_not_matter_to_the_digest() {
    let scratch = Scratch::new(Kind::Host);
    let (_source, snapshot) = snapshot(&scratch);
    for position in [0, MIB - 1, SIZE - 1] {
        flip(
            &snapshot.image,
            snapshot.record.data_offset + position,
            0xff,
        );
    }
    let findings = verify(&snapshot.image, &snapshot.record).unwrap();
    assert!(findings.is_clean(), "{findings:?}");
}

#[test]
fn image_of_another_length_is_refused() {
    let scratch = Scratch::new(Kind::Host);
    let (_source, snapshot) = snapshot(&scratch);
    let whole = snapshot.image.metadata().unwrap().len();
    for length in [
        0,
        100,
        CLUSTER,
        snapshot.record.data_offset,
        whole - 1,
        whole + 1,
    ] {
        snapshot.image.set_len(length).unwrap();
        let text = assert_refused(&scratch, &snapshot);
        assert!(text.contains(&format!("has {length} bytes")), "{text}");
        let findings = verify(&snapshot.image, &snapshot.record).unwrap();
        assert!(!findings.is_clean(), "{length}");
    }
}

#[test]
fn image_of_another_snapshot_is_refused() {
    let scratch = Scratch::new(Kind::Host);
    let (source, first) = snapshot(&scratch);
    fill(&source, 1, 600 * MIB, MIB);
    let second = cut(&scratch, "second", &source, How::Copy);
    let swapped = Snapshot {
        image: second.image,
        record: first.record,
    };
    let text = assert_refused(&scratch, &swapped);
    assert!(text.contains("another snapshot"), "{text}");
    let findings = verify(&swapped.image, &swapped.record).unwrap();
    assert!(!findings.is_clean());
}

#[test]
fn record_with_impossible_figures_is_refused() {
    let scratch = Scratch::new(Kind::Host);
    let (_source, mut snapshot) = snapshot(&scratch);
    let good = snapshot.record.clone();
    let bad = |change: fn(&mut SnapshotRecord)| {
        let mut record = good.clone();
        change(&mut record);
        record
    };
    for record in [
        bad(|record| record.virtual_bytes = 0),
        bad(|record| record.virtual_bytes = u64::MAX),
        bad(|record| record.virtual_bytes += 512),
        bad(|record| record.virtual_bytes += CLUSTER),
        bad(|record| record.data_offset = 0),
        bad(|record| record.data_offset = u64::MAX),
        bad(|record| record.metadata_digest = String::new()),
    ] {
        snapshot.record = record;
        assert_refused(&scratch, &snapshot);
        let findings = verify(&snapshot.image, &snapshot.record).unwrap();
        assert!(!findings.is_clean(), "{:?}", snapshot.record);
    }
}

#[test]
fn data_outside_the_allocated_clusters_is_found() {
    let scratch = Scratch::new(Kind::Host);
    let (_source, snapshot) = snapshot(&scratch);
    let position = snapshot.record.data_offset + 600 * MIB;
    snapshot.image.write_all_at(&[1], position + 9).unwrap();
    let findings = verify(&snapshot.image, &snapshot.record).unwrap();
    assert_eq!(findings.problems.len(), 1, "{findings:?}");
    assert_eq!(findings.problems[0].position, Some(position));
}

#[test]
fn faithful_copy_without_holes_is_as_good_as_the_original() {
    let scratch = Scratch::new(Kind::Host);
    let source = scratch.file("disk.img", 20 * MIB);
    fill(&source, 1, 0, MIB);
    fill(&source, 1, 15 * MIB, MIB);
    let mut snapshot = cut(&scratch, "image", &source, How::Copy);
    run(Command::new("cp")
        .arg("--sparse=never")
        .args([scratch.path("image"), scratch.path("copy")]));
    snapshot.image = File::open(scratch.path("copy")).unwrap();
    assert_restores(&scratch, &snapshot, &source);
}

#[test]
fn problems_beyond_the_first_few_are_counted() {
    let scratch = Scratch::new(Kind::Host);
    let (_source, snapshot) = snapshot(&scratch);
    let position = snapshot.record.data_offset + 600 * MIB;
    fill(&snapshot.image, 1, position, 20 * CLUSTER);
    let findings = verify(&snapshot.image, &snapshot.record).unwrap();
    assert_eq!((findings.problems.len(), findings.more), (16, 4));
}
