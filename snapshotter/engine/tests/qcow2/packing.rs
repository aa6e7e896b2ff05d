//! Snapshots as small files, and back.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use pool::record::{Compression, Packing};
use pool::{Error, ErrorKind};
use snapshot_engine::reader::{check, open};
use snapshot_engine::{
    Pack, Proof, Watch, data_digest, export, export_compressed, pack, restore, verify,
};

use crate::content::{assert_same, assert_zero, fill};
use crate::scratch::{Kind, Scratch, run};
use crate::snapshot::{How, Snapshot, assert_standalone, cut};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const C: u64 = 64 * KIB;

/// What is written to a part of a disk.
#[derive(Clone, Copy, Debug)]
enum Fill {
    /// Does not get smaller.
    Noise,
    /// Gets much smaller, and differs from cluster to cluster.
    Text,
    /// One byte, all over.
    Pattern,
    /// Zeroes that are data, not holes.
    Zero,
}

type Shape = (u64, &'static [(u64, u64, Fill)]);

const SHAPES: [Shape; 9] = [
    (C, &[(100, 1, Fill::Noise)]),
    (MIB, &[]),
    (2 * MIB, &[(0, 2 * MIB, Fill::Zero)]),
    (9 * MIB, &[(0, 9 * MIB, Fill::Noise)]),
    (9 * MIB, &[(0, 9 * MIB, Fill::Text)]),
    (70 * MIB, &[(0, 70 * MIB, Fill::Pattern)]),
    (
        64 * MIB,
        &[
            (0, 3 * MIB, Fill::Text),
            (3 * MIB, C, Fill::Noise),
            (3 * MIB + C, C, Fill::Text),
            (3 * MIB + 2 * C, C, Fill::Noise),
            (3 * MIB + 3 * C, C, Fill::Text),
            (5 * MIB, 3 * MIB, Fill::Zero),
            (20 * MIB, 20 * MIB, Fill::Noise),
            (40 * MIB, 5 * MIB, Fill::Text),
            (64 * MIB - 1, 1, Fill::Noise),
        ],
    ),
    (
        3 * GIB,
        &[
            (0, 1, Fill::Noise),
            (512 * MIB - 1, 2, Fill::Noise),
            (600 * MIB, MIB, Fill::Zero),
            (2 * GIB, 80 * MIB, Fill::Text),
            (3 * GIB - 1, 1, Fill::Noise),
        ],
    ),
    (2 << 40, &[((2 << 40) - 70 * KIB, 70 * KIB, Fill::Text)]),
];

fn shaped(scratch: &Scratch, (size, pieces): Shape) -> File {
    let source = scratch.file("disk.img", size);
    for (offset, length, how) in pieces {
        write(&source, *offset, *length, *how);
    }
    source
}

fn write(file: &File, offset: u64, length: u64, how: Fill) {
    if matches!(how, Fill::Noise) {
        return fill(file, 1, offset, length);
    }
    let bytes: Vec<u8> = (offset..offset + length)
        .map(|at| match how {
            Fill::Zero => 0,
            Fill::Pattern => 0x5a,
            _ => {
                b"once upon a time "[usize::try_from(at % 17).unwrap()]
                    ^ u8::try_from(at / C % 7).unwrap()
            }
        })
        .collect();
    file.write_all_at(&bytes, offset).unwrap();
}

fn quiet<'a>(watch: &'a Watch<'a>) -> Pack<'a> {
    Pack {
        compression: Some(Compression::Zstd),
        watch,
        room: &|_now, _then| Ok(()),
        idle: false,
        proof: Proof::ReadBack,
        digest: true,
    }
}

/// Packs a snapshot into the new file `name`, as a pool's owner does.
fn packed(scratch: &Scratch, name: &str, snapshot: &Snapshot) -> Snapshot {
    let image = scratch.file(name, 0);
    let watch = Watch::UNWATCHED;
    let made = pack(&snapshot.image, &snapshot.record, &image, &quiet(&watch)).unwrap();
    image.sync_all().unwrap();
    made.verify(&image, snapshot.record.virtual_bytes, &quiet(&watch))
        .unwrap();
    let data = data_digest(&snapshot.image, &snapshot.record, &watch).unwrap();
    assert_eq!(made.data_digest, Some(data));
    let mut record = snapshot.record.clone();
    record.data_offset = made.data_offset;
    record.metadata_digest = made.metadata_digest.clone();
    record.charge_bytes = made.charge_bytes(&image).unwrap();
    record.packing = Packing::Done(made.packed());
    Snapshot { image, record }
}

fn bytes_of(scratch: &Scratch, name: &str) -> Vec<u8> {
    std::fs::read(scratch.path(name)).unwrap()
}

/// qemu, the strict reader and our own check find nothing, and a restore gives the disk.
fn assert_whole(scratch: &Scratch, name: &str, snapshot: &Snapshot, source: &File) {
    let (path, size) = (scratch.path(name), snapshot.record.virtual_bytes);
    assert_standalone(&path, size);
    let said = run(Command::new("qemu-img")
        .args(["check", "-f", "qcow2"])
        .arg(&path));
    assert!(said.contains("No errors were found"), "{said}");
    run(Command::new("qemu-img")
        .args(["compare", "-f", "raw", "-F", "qcow2"])
        .args([&scratch.path("disk.img"), &path]));
    let file = open(&path).unwrap();
    let facts = *check(&file).unwrap().facts();
    assert_eq!(
        (facts.virtual_bytes, facts.leaked_clusters),
        (size, 0),
        "{facts:?}"
    );
    let findings = verify(&snapshot.image, &snapshot.record).unwrap();
    assert!(findings.is_clean(), "{findings:?}");
    let target = scratch.file("restored", size + 3 * MIB);
    restore(
        &snapshot.image,
        &snapshot.record,
        &target,
        &Watch::UNWATCHED,
    )
    .unwrap();
    assert_same((source, 0), (&target, 0), size);
    assert_zero(&target, size, 3 * MIB);
    std::fs::remove_file(scratch.path("restored")).unwrap();
}

#[test]
fn every_shape_becomes_a_small_image_of_the_same_disk() {
    for (kind, how) in [(Kind::Host, How::Copy), (Kind::Xfs, How::Reflink)] {
        for shape in SHAPES {
            let scratch = Scratch::new(kind);
            let source = shaped(&scratch, shape);
            let snapshot = cut(&scratch, "image", &source, how);
            let packed = packed(&scratch, "packed.qcow2", &snapshot);
            assert_whole(&scratch, "packed.qcow2", &packed, &source);
        }
    }
}

#[test]
fn text_and_zeroes_become_small_and_noise_does_not_become_larger() {
    let sizes = |fill: Fill| {
        let scratch = Scratch::new(Kind::Host);
        let source = scratch.file("disk.img", 64 * MIB);
        write(&source, 0, 64 * MIB, fill);
        let snapshot = cut(&scratch, "image", &source, How::Copy);
        let packed = packed(&scratch, "packed", &snapshot);
        (packed.record.charge_bytes, snapshot.record.charge_bytes)
    };
    let (text, plain) = sizes(Fill::Text);
    assert!(text * 10 < plain, "{text} of {plain}");
    let (zero, _) = sizes(Fill::Zero);
    assert!(zero <= MIB, "{zero}");
    let (noise, plain) = sizes(Fill::Noise);
    assert!(noise <= plain + MIB, "{noise} of {plain}");
}

/// How large qemu's compressed image of the disk is.
fn theirs_of(scratch: &Scratch) -> u64 {
    let theirs = scratch.path("theirs");
    run(Command::new("qemu-img")
        .args(["convert", "-c", "-f", "raw", "-O", "qcow2"])
        .args(["-o", "compression_type=zstd"])
        .args([&scratch.path("disk.img"), &theirs]));
    theirs.metadata().unwrap().len()
}

#[test]
fn a_packed_image_is_as_small_as_qemus() {
    let scratch = Scratch::new(Kind::Host);
    let source = shaped(&scratch, SHAPES[6]);
    let snapshot = cut(&scratch, "image", &source, How::Copy);
    let ours = packed(&scratch, "packed", &snapshot);
    let theirs = theirs_of(&scratch);
    let ours = ours.image.metadata().unwrap().len();
    assert!(ours * 100 <= theirs * 103, "{ours} beside {theirs}");
}

/// The sources of this crate, again and again, `length` bytes: what the quick way of zstd does not do well.
fn sources(length: usize) -> Vec<u8> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let list = if path.is_dir() {
                &mut folders
            } else {
                &mut files
            };
            list.push(path);
        }
    }
    files.sort();
    let all = files.iter().flat_map(|file| std::fs::read(file).unwrap());
    let all: Vec<u8> = all.collect();
    all.into_iter().cycle().take(length).collect()
}

/// What zstd makes of the clusters at this level, in bytes.
fn zstd_bytes(level: i32, disk: &[u8]) -> usize {
    let clusters = disk.chunks(usize::try_from(C).unwrap());
    clusters
        .map(|cluster| zstd::bulk::compress(cluster, level).unwrap().len())
        .sum()
}

#[test]
fn what_the_quick_way_makes_larger_is_compressed_as_well_as_by_qemu() {
    let scratch = Scratch::new(Kind::Host);
    let disk = sources(48 << 20);
    let (quick, usual) = (zstd_bytes(2, &disk), zstd_bytes(3, &disk));
    assert!(quick * 100 > usual * 103, "{quick} beside {usual}");
    let source = scratch.file("disk.img", 48 * MIB);
    source.write_all_at(&disk, 0).unwrap();
    let snapshot = cut(&scratch, "image", &source, How::Copy);
    let ours = packed(&scratch, "packed", &snapshot);
    let theirs = theirs_of(&scratch);
    let ours = ours.image.metadata().unwrap().len();
    assert!(ours * 1000 <= theirs * 1005, "{ours} beside {theirs}");
}

#[test]
fn a_packed_image_keeps_no_room_behind_its_end_and_is_charged_for_what_it_has() {
    let scratch = Scratch::new(Kind::Xfs);
    let source = scratch.file("disk.img", 80 * MIB);
    // XFS sets room aside behind the end of a file that grows by streams.
    for cluster in 0..70 * MIB / C {
        fill(&source, 1, cluster * C, C / 2);
    }
    let snapshot = cut(&scratch, "image", &source, How::Reflink);
    let Snapshot { image, record } = packed(&scratch, "packed", &snapshot);
    let found = image.metadata().unwrap();
    assert_eq!(record.charge_bytes, found.blocks() * 512);
    // A block of the filesystem's own at most, for where the extents are.
    let most = found.len() + 4 * KIB;
    assert!(record.charge_bytes <= most, "{record:?} of {most}");
}

#[test]
fn the_same_disk_gives_the_same_bytes_from_either_layout() {
    let scratch = Scratch::new(Kind::Host);
    let source = shaped(&scratch, SHAPES[6]);
    let snapshot = cut(&scratch, "image", &source, How::Copy);
    let once = packed(&scratch, "once", &snapshot);
    let _again = packed(&scratch, "again", &snapshot);
    let _of_packed = packed(&scratch, "of-packed", &once);
    for (name, of) in [("exported", &snapshot), ("exported-packed", &once)] {
        let target = scratch.file(name, 0);
        export_compressed(&of.image, &of.record, &target, &Watch::UNWATCHED).unwrap();
    }
    let first = bytes_of(&scratch, "once");
    for name in ["again", "of-packed", "exported", "exported-packed"] {
        assert!(bytes_of(&scratch, name) == first, "{name} differs");
    }
}

#[test]
fn a_packed_snapshot_is_exported_without_compression_too() {
    let scratch = Scratch::new(Kind::Host);
    let source = shaped(&scratch, SHAPES[6]);
    let packed = packed(
        &scratch,
        "packed",
        &cut(&scratch, "image", &source, How::Copy),
    );
    let target = scratch.file("plain.qcow2", 0);
    export(&packed.image, &packed.record, &target, &Watch::UNWATCHED).unwrap();
    let file = open(&scratch.path("plain.qcow2")).unwrap();
    let facts = *check(&file).unwrap().facts();
    assert_eq!((facts.compressed_clusters, facts.leaked_clusters), (0, 0));
    run(Command::new("qemu-img")
        .args(["compare", "-f", "raw", "-F", "qcow2"])
        .args([&scratch.path("disk.img"), &scratch.path("plain.qcow2")]));
}

#[test]
fn room_is_asked_for_before_the_file_grows_and_a_refusal_ends_the_work() {
    let scratch = Scratch::new(Kind::Host);
    let source = shaped(&scratch, (64 * MIB, &[(0, 40 * MIB, Fill::Noise)]));
    let snapshot = cut(&scratch, "image", &source, How::Copy);
    let asked = AtomicU64::new(0);
    let watch = Watch::UNWATCHED;
    let how = Pack {
        room: &|now, bytes| {
            assert!(now <= bytes);
            asked.fetch_max(bytes, Ordering::Relaxed);
            Ok(())
        },
        ..quiet(&watch)
    };
    let whole = scratch.file("whole", 0);
    let made = pack(&snapshot.image, &snapshot.record, &whole, &how).unwrap();
    // All of it at once: nothing of it gets smaller.
    assert_eq!(asked.load(Ordering::Relaxed), made.file_bytes);
    let how = Pack {
        room: &|_now, bytes| match bytes {
            _ if bytes < 10 * MIB => Ok(()),
            _ => Err(Error::new(ErrorKind::NoSpace, "no more")),
        },
        ..quiet(&watch)
    };
    let part = scratch.file("part", 0);
    let refused = pack(&snapshot.image, &snapshot.record, &part, &how).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoSpace);
    assert!(part.metadata().unwrap().len() <= 12 * MIB);
}

#[test]
fn tables_that_the_disk_changed_are_found_before_the_other_image_goes() {
    let scratch = Scratch::new(Kind::Host);
    let source = shaped(&scratch, SHAPES[6]);
    let snapshot = cut(&scratch, "image", &source, How::Copy);
    let target = scratch.file("packed", 0);
    let watch = Watch::UNWATCHED;
    let how = Pack {
        idle: true,
        proof: Proof::Decoded,
        ..quiet(&watch)
    };
    let made = pack(&snapshot.image, &snapshot.record, &target, &how).unwrap();
    target.sync_all().unwrap();
    let verify = || made.verify(&target, snapshot.record.virtual_bytes, &how);
    verify().unwrap();
    // In the header, and in a table. What is in the data is held against its hash while it is packed.
    for place in [3, made.data_offset - C + 5] {
        let mut byte = [0];
        target.read_exact_at(&mut byte, place).unwrap();
        target.write_all_at(&[byte[0] ^ 16], place).unwrap();
        let error = verify().expect_err(&format!("byte {place}"));
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.to_string().contains("reads back"), "{error}");
        target.write_all_at(&byte, place).unwrap();
    }
    verify().unwrap();
    // Cut short, as by a filesystem that lost its end.
    target.set_len(made.file_bytes - C).unwrap();
    assert_eq!(verify().unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn work_that_is_not_wanted_any_more_stops() {
    let scratch = Scratch::new(Kind::Host);
    let source = shaped(&scratch, SHAPES[3]);
    let snapshot = cut(&scratch, "image", &source, How::Copy);
    let packed = packed(&scratch, "packed", &snapshot);
    let watch = Watch {
        keep_going: &|| false,
        ..Watch::UNWATCHED
    };
    let target = scratch.file("again", 0);
    let stopped = pack(&snapshot.image, &snapshot.record, &target, &quiet(&watch)).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Uncertain);
    let target = scratch.file("restored", 9 * MIB);
    let stopped = restore(&packed.image, &packed.record, &target, &watch).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Uncertain);
}

#[test]
fn a_flipped_bit_in_metadata_or_in_a_stream_is_never_restored() {
    let scratch = Scratch::new(Kind::Host);
    let source = shaped(&scratch, SHAPES[4]);
    let packed = packed(
        &scratch,
        "packed",
        &cut(&scratch, "image", &source, How::Copy),
    );
    let data = packed.record.data_offset;
    let places = [
        3,
        C + 7,
        2 * C + 11,
        3 * C + 6,
        4 * C + 100,
        data,
        data + 20,
        data + 9 * 64 + 20,
    ];
    for at in places {
        let mut byte = [0];
        packed.image.read_exact_at(&mut byte, at).unwrap();
        packed.image.write_all_at(&[byte[0] ^ 4], at).unwrap();
        let target = scratch.file("restored", 9 * MIB);
        let error = restore(&packed.image, &packed.record, &target, &Watch::UNWATCHED)
            .expect_err(&format!("byte {at}"));
        assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}");
        let findings = verify(&packed.image, &packed.record).unwrap();
        assert!(!findings.is_clean(), "byte {at}");
        packed.image.write_all_at(&byte, at).unwrap();
        std::fs::remove_file(scratch.path("restored")).unwrap();
    }
    assert_whole(&scratch, "packed", &packed, &source);
}

#[test]
fn a_packed_image_that_was_cut_short_or_replaced_is_refused() {
    let scratch = Scratch::new(Kind::Host);
    let source = shaped(&scratch, SHAPES[4]);
    let other = scratch.file("other-disk", 9 * MIB);
    let packed_one = packed(
        &scratch,
        "packed",
        &cut(&scratch, "image", &source, How::Copy),
    );
    let packed_other = packed(
        &scratch,
        "other",
        &cut(&scratch, "image-2", &other, How::Copy),
    );
    let target = scratch.file("restored", 9 * MIB);
    let exchanged = restore(
        &packed_other.image,
        &packed_one.record,
        &target,
        &Watch::UNWATCHED,
    );
    assert_eq!(exchanged.unwrap_err().kind(), ErrorKind::Corrupt);
    let length = packed_one.image.metadata().unwrap().len();
    packed_one.image.set_len(length - 1).unwrap();
    let cut_short = restore(
        &packed_one.image,
        &packed_one.record,
        &target,
        &Watch::UNWATCHED,
    );
    assert_eq!(cut_short.unwrap_err().kind(), ErrorKind::Corrupt);
}
