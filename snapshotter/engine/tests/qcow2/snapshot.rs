//! Making snapshots in tests, and what has to hold for each of them.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use pool::record::{Packing, SnapshotRecord, Timestamp, VolumeMode};
use pool::{SnapshotId, VolumeId};
use snapshot_engine::reader::{self, Content};
use snapshot_engine::{Captured, Cut, Layout, Watch, restore, verify};

use crate::content::{assert_same, assert_zero};
use crate::scratch::{Scratch, run};

/// How a snapshot is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Reflink,
    Copy,
}

/// A finished snapshot in a test.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) image: File,
    pub(crate) record: SnapshotRecord,
}

/// Cuts a snapshot of `source` into the new file `name`.
pub(crate) fn cut(scratch: &Scratch, name: &str, source: &File, how: How) -> Snapshot {
    let image = scratch.file(name, 0);
    let cut = Cut::prepare(&image, source.metadata().unwrap().len()).unwrap();
    match how {
        How::Reflink => drop(cut.reflink(source).unwrap()),
        How::Copy => cut.copy(source, &Watch::UNWATCHED).unwrap(),
    }
    let record = record(name, &finish(cut, &image));
    Snapshot { image, record }
}

/// What the end of a capture says, once the image is found to be what was built.
pub(crate) fn finish(cut: Cut<'_>, image: &File) -> Captured {
    let (captured, read_back) = cut.finish().unwrap();
    read_back.compare(image).unwrap();
    captured
}

pub(crate) fn record(name: &str, captured: &Captured) -> SnapshotRecord {
    let volume = VolumeId::from_name("source");
    SnapshotRecord {
        id: SnapshotId::from_name(name),
        name: name.to_owned(),
        source_volume: volume.clone(),
        lineage: volume,
        created: Timestamp::now(),
        requested_bytes: captured.virtual_bytes,
        virtual_bytes: captured.virtual_bytes,
        charge_bytes: captured.charge_bytes,
        mode: VolumeMode::Block,
        data_offset: captured.data_offset,
        metadata_digest: captured.metadata_digest.clone(),
        extents: captured.runs,
        stall_us: 0,
        packing: Packing::None,
        checksum: None,
        damage: None,
    }
}

/// Asserts that qemu finds a standalone qcow2 file without a fault in it, that holds exactly `raw`.
pub(crate) fn assert_qemu_agrees(image: &Path, raw: &Path, virtual_bytes: u64) {
    assert_standalone(image, virtual_bytes);
    let check = run(Command::new("qemu-img")
        .args(["check", "-f", "qcow2"])
        .arg(image));
    assert!(check.contains("No errors were found"), "{check}");
    run(Command::new("qemu-img")
        .args(["compare", "-f", "raw", "-F", "qcow2"])
        .args([raw, image]));
    assert_strict_reader_agrees(image, virtual_bytes);
}

/// Asserts that the reader of foreign images accepts ours, and finds all data where the identity layout has it.
fn assert_strict_reader_agrees(image: &Path, virtual_bytes: u64) {
    let file = reader::open(image).unwrap();
    let mut image = reader::check(&file).unwrap();
    let facts = *image.facts();
    assert_eq!(facts.virtual_bytes, virtual_bytes);
    assert_eq!((facts.leaked_clusters, facts.compressed_clusters), (0, 0));
    let layout = Layout::for_virtual_size(virtual_bytes).unwrap();
    for run in image.runs() {
        let run = run.unwrap();
        if let Content::Data { offset } = run.content {
            assert_eq!(offset, layout.data_offset() + run.start);
        }
    }
}

/// Asserts what `qemu-img info` says of a snapshot.
pub(crate) fn assert_standalone(image: &Path, virtual_bytes: u64) {
    let info = run(Command::new("qemu-img")
        .args(["info", "-f", "qcow2", "--output=json"])
        .arg(image));
    assert!(
        info.contains(&format!("\"virtual-size\": {virtual_bytes},")),
        "{info}"
    );
    assert!(info.contains("\"cluster-size\": 65536,"), "{info}");
    assert!(info.contains("\"corrupt\": false"), "{info}");
    for unwanted in [
        "backing",
        "data-file\":",
        "encrypted",
        "snapshots",
        "\"dirty-flag\": true",
    ] {
        assert!(!info.contains(unwanted), "{unwanted}: {info}");
    }
}

/// Asserts that the check of our own finds nothing, and that a restore into a larger volume gives `raw` and then zeroes.
pub(crate) fn assert_restores(scratch: &Scratch, snapshot: &Snapshot, raw: &File) {
    let findings = verify(&snapshot.image, &snapshot.record).unwrap();
    assert!(findings.is_clean(), "{findings:?}");
    let size = snapshot.record.virtual_bytes;
    for (name, more) in [("restored", 0), ("restored-larger", 3 << 20)] {
        let target = scratch.file(name, size + more);
        restore(
            &snapshot.image,
            &snapshot.record,
            &target,
            &Watch::UNWATCHED,
        )
        .unwrap();
        assert_eq!(target.metadata().unwrap().len(), size + more);
        assert_same((raw, 0), (&target, 0), size);
        assert_zero(&target, size, more);
        std::fs::remove_file(scratch.path(name)).unwrap();
    }
}
