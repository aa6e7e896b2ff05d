//! One function for each reader of what others wrote. Each takes any bytes and panics when a promise is broken.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};
use pool::attach::mountinfo::MountTable;
use pool::record::{
    FORMAT_VERSION, Kind, SnapshotRecord, VolumeRecord, decode as decode_record, encode,
};
use snapshot_engine::reader::{Compression, Content, Decoder, Failure, Image, Reason, check};

/// As much of all data is read, and of each run of zeroes: a hole of terabytes is one.
const READ_DATA: u64 = 8 << 20;
const READ_ZEROES: u64 = 64 << 10;

/// A file in memory that holds `bytes`.
#[must_use]
pub fn in_memory(bytes: &[u8]) -> File {
    let file = memfd_create("fuzz", MFdFlags::MFD_CLOEXEC).expect("a file in memory");
    let file = File::from(file);
    file.write_all_at(bytes, 0).expect("fill a file in memory");
    file
}

/// The strict reader on a file of these bytes: open, map and decode.
pub fn image(bytes: &[u8]) {
    let _either = image_file(&in_memory(bytes));
}

/// The strict reader on a file. If it is accepted, everything in it can be read, and agrees with its map.
///
/// # Errors
/// The reason if it is refused.
pub fn image_file(file: &File) -> Result<(), Reason> {
    match check(file) {
        Ok(mut image) => {
            read_everything(&mut image);
            Ok(())
        }
        Err(Failure::Refused(refusal)) => Err(refusal.reason),
        Err(Failure::Unreadable(error)) => panic!("nobody changes this file: {error}"),
    }
}

fn read_everything(image: &mut Image<'_>) {
    let facts = *image.facts();
    let runs: Vec<_> = image
        .runs()
        .map(|run| run.expect("an accepted map"))
        .collect();
    let (mut end, mut allocated, mut read) = (0, 0, 0);
    let mut bytes = Vec::new();
    for run in runs {
        assert_eq!(run.start, end, "runs follow each other");
        end = run.start + run.bytes;
        let length = if run.content == Content::Zero {
            run.bytes.min(READ_ZEROES)
        } else {
            allocated += run.bytes;
            run.bytes.min(READ_DATA.saturating_sub(read))
        };
        read += length;
        bytes.clear();
        bytes.resize(usize::try_from(length).unwrap_or(0), 0xa5);
        image
            .read_at(run.start, &mut bytes)
            .expect("an accepted disk");
        if run.content == Content::Zero {
            assert!(
                bytes.iter().all(|byte| *byte == 0),
                "a run of zeroes at {}",
                run.start
            );
        }
    }
    assert_eq!(end, facts.virtual_bytes, "runs cover the disk");
    assert!(
        allocated <= facts.allocated_bytes(),
        "{allocated} of {facts:?}"
    );
    assert!(
        image.read_at(facts.virtual_bytes, &mut [0]).is_err(),
        "the disk ends"
    );
}

/// The decoder on a stream: the first byte chooses the method and the size of a cluster.
pub fn decode(bytes: &[u8]) {
    let Some((choice, stream)) = bytes.split_first() else {
        return;
    };
    let compression = match choice & 1 {
        0 => Compression::Zlib,
        _ => Compression::Zstd,
    };
    let mut cluster = vec![0; 512 << ((choice >> 1) % 8)];
    let mut decoder = Decoder::new(compression);
    let first = decoder.decode(stream, &mut cluster);
    let decoded = cluster.clone();
    // The same again, and with somebody else's bytes behind it, is the same.
    let again = decoder.decode(&[stream, b"behind"].concat(), &mut cluster);
    if first.is_ok() {
        assert!(
            again.is_ok() && decoded == cluster,
            "bytes behind a stream change it"
        );
    }
}

/// The decoder of records, on the bytes as they are, and on a record with a right checksum that says what they say.
pub fn record(bytes: &[u8]) {
    both_records(bytes);
    for kind in ["vd-volume", "vd-snapshot"] {
        both_records(&with_checksum(kind, bytes));
    }
}

fn with_checksum(kind: &str, json: &[u8]) -> Vec<u8> {
    let covered = [format!("{kind} {FORMAT_VERSION}\n").as_bytes(), json].concat();
    let digest = blake3::hash(&covered).to_hex();
    let header = format!("{kind} {FORMAT_VERSION} {digest}\n");
    [header.as_bytes(), json, b"\n"].concat()
}

/// What is taken is written again, and taken again.
fn both_records(bytes: &[u8]) {
    if let Ok(record) = decode_record::<VolumeRecord>(Kind::Volume, bytes) {
        let written = encode(Kind::Volume, &record).expect("a record that was read");
        let again: VolumeRecord = decode_record(Kind::Volume, &written).expect("our own");
        assert_eq!(again, record, "a record is read as it was written");
    }
    if let Ok(record) = decode_record::<SnapshotRecord>(Kind::Snapshot, bytes) {
        let written = encode(Kind::Snapshot, &record).expect("a record that was read");
        let again: SnapshotRecord = decode_record(Kind::Snapshot, &written).expect("our own");
        assert_eq!(again, record, "a record is read as it was written");
    }
}

/// The parser of mountinfo.
pub fn mountinfo(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').count();
    let info = MountTable::parse(bytes);
    assert!(info.iter().count() <= lines, "more mounts than lines");
    for mount in info.iter() {
        assert!(
            !info.stack(mount.id).is_empty(),
            "a mount is in its own stack"
        );
    }
}
