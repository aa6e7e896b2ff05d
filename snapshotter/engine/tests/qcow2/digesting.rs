//! The digest of a snapshot's data: every byte of the disk counts, and how the file stores it does not.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;

use pool::ErrorKind;
use pool::record::{Checksum, DataChecksum};
use snapshot_engine::{Watch, data_digest, verify_with_data};

use crate::content::fill;
use crate::scratch::{Kind, Scratch};
use crate::snapshot::{How, Snapshot, cut};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 24 * MIB;

fn snapshot(scratch: &Scratch) -> Snapshot {
    let source = scratch.file("disk.img", SIZE);
    fill(&source, 1, 0, MIB);
    fill(&source, 2, 5 * MIB + 17, 300_000);
    fill(&source, 3, SIZE - MIB, MIB);
    cut(scratch, "image", &source, How::Copy)
}

fn digest(snapshot: &Snapshot) -> String {
    data_digest(&snapshot.image, &snapshot.record, &Watch::UNWATCHED).unwrap()
}

fn flip(image: &File, position: u64) {
    let mut byte = [0];
    image.read_exact_at(&mut byte, position).unwrap();
    byte[0] ^= 1 << (position % 8);
    image.write_all_at(&byte, position).unwrap();
}

#[test]
fn a_flipped_bit_anywhere_on_the_disk_is_found() {
    let scratch = Scratch::new(Kind::Host);
    let mut snapshot = snapshot(&scratch);
    let data = snapshot.record.data_offset;
    snapshot.record.checksum = Some(DataChecksum {
        digest: Some(digest(&snapshot)),
        ..DataChecksum::wanted(Checksum::Blake3)
    });
    let findings = |snapshot: &Snapshot| {
        verify_with_data(&snapshot.image, &snapshot.record, &Watch::UNWATCHED).unwrap()
    };
    assert!(findings(&snapshot).is_clean());
    // Steps that meet every place within a cluster sooner or later, data and holes.
    for number in 0..120 {
        let position = data + number * 7_919_777 % SIZE;
        flip(&snapshot.image, position);
        assert!(!findings(&snapshot).is_clean(), "byte {position}");
        flip(&snapshot.image, position);
        assert!(findings(&snapshot).is_clean(), "byte {position}");
    }
}

#[test]
fn zeroes_that_are_stored_are_as_good_as_holes() {
    let scratch = Scratch::new(Kind::Host);
    let snapshot = snapshot(&scratch);
    let before = digest(&snapshot);
    let hole = snapshot.record.data_offset + 10 * MIB;
    snapshot.image.write_all_at(&[0; 200_000], hole).unwrap();
    assert_eq!(digest(&snapshot), before);
}

#[test]
fn a_reader_that_is_not_wanted_any_more_stops_and_a_file_cut_short_has_no_digest() {
    let scratch = Scratch::new(Kind::Host);
    let snapshot = snapshot(&scratch);
    let asked = Cell::new(0);
    let watch = Watch {
        keep_going: &|| {
            asked.set(asked.get() + 1);
            asked.get() < 2
        },
        ..Watch::UNWATCHED
    };
    let error = data_digest(&snapshot.image, &snapshot.record, &watch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Uncertain, "{error}");
    // As a deletion does while it is read.
    let shorter = snapshot.image.try_clone().unwrap();
    let watch = Watch {
        keep_going: &|| {
            shorter
                .set_len(snapshot.record.data_offset + 8 * MIB)
                .unwrap();
            true
        },
        ..Watch::UNWATCHED
    };
    let error = data_digest(&snapshot.image, &snapshot.record, &watch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}
