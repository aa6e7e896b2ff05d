//! Small files that claim to be much: refused at once.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests: a panic is how they report"
)]

use std::fs::File;
use std::time::Duration;

use fuzz::campaign::processor_time;
use fuzz::handmade::{COMPRESSED, COPIED, Handmade};
use snapshot_engine::reader::{Content, Failure, Image, Reason, Run, check};

const LIMIT: Duration = Duration::from_millis(100);
const C: u64 = 65536;

/// Refused for this reason within 100 ms of the processor.
#[track_caller]
fn refused(file: &File, expected: Reason) {
    match judged_in_time(file) {
        Err(Failure::Refused(refusal)) => assert_eq!(refusal.reason, expected, "{refusal}"),
        other => panic!("{other:?}"),
    }
}

/// The verdict, which takes no more than the limit. It is the same work each time: what one time takes longer than another is the
/// machine's, so the quickest of three counts.
#[track_caller]
fn judged_in_time(file: &File) -> Result<Image<'_>, Failure> {
    let mut least = Duration::MAX;
    for _ in 0..3 {
        let before = processor_time();
        let _verdict = check(file);
        least = least.min(processor_time() - before);
    }
    assert!(least < LIMIT, "{least:?}");
    check(file)
}

/// How many bytes this thread has read so far.
fn bytes_read() -> u64 {
    let counts = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    let read = counts.lines().find_map(|line| line.strip_prefix("rchar: "));
    read.unwrap().parse().unwrap()
}

/// An L2 entry for compressed data at `offset` in `sectors` sectors.
fn compressed(offset: u64, sectors: u64, cluster_bits: u32) -> u64 {
    COMPRESSED | (sectors - 1) << (62 - (cluster_bits - 8)) | offset
}

#[test]
fn one_cluster_mapped_a_million_times_is_refused() {
    let (mut made, l1) = Handmade::new(16, 64 << 30, 128);
    let data = made.place(1);
    let tables: Vec<u64> = (0..128).map(|_| made.place(1)).collect();
    for table in &tables {
        made.entries(*table, [data | COPIED; 8192]);
    }
    made.entries(l1, tables.iter().map(|table| table | COPIED));
    refused(made.file(), Reason::Overlap);
}

#[test]
fn one_stream_mapped_a_million_times_is_refused() {
    let (mut made, l1) = Handmade::new(16, 64 << 30, 128);
    let data = made.place(1);
    made.count(data / C, u16::MAX);
    let tables: Vec<u64> = (0..128).map(|_| made.place(1)).collect();
    for table in &tables {
        made.entries(*table, [compressed(data, 1, 16); 8192]);
    }
    made.entries(l1, tables.iter().map(|table| table | COPIED));
    refused(made.file(), Reason::Overlap);
}

#[test]
fn one_l2_table_used_by_every_l1_entry_is_refused() {
    let (mut made, l1) = Handmade::new(16, 64 << 40, 131_072);
    let table = made.place(1);
    made.entries(l1, vec![table | COPIED; 131_072]);
    refused(made.file(), Reason::Overlap);
}

#[test]
fn disk_of_an_exabyte_is_refused() {
    for bytes in [1 << 60, 1 << 63, u64::MAX / 512 * 512, (64 << 40) + 512] {
        let (made, _l1) = Handmade::new(16, bytes, 1 << 20);
        refused(made.file(), Reason::VirtualSize);
    }
}

#[test]
fn tables_as_large_as_numbers_go_are_refused() {
    let (made, _l1) = Handmade::new(16, 1 << 30, 2);
    made.write(36, &u32::MAX.to_be_bytes());
    refused(made.file(), Reason::Table);
    let (made, _l1) = Handmade::new(16, 1 << 30, 2);
    made.write(56, &u32::MAX.to_be_bytes());
    refused(made.file(), Reason::Table);
    // As large as allowed, in a hole: a refcount table that counts nothing, an L1 table that nobody counts.
    let (made, _l1) = Handmade::new(16, 1 << 30, 2);
    made.file().set_len(1 << 40).unwrap();
    made.entries(48, [1 << 30]);
    made.write(56, &128u32.to_be_bytes());
    refused(made.file(), Reason::Refcount);
    let (made, _l1) = Handmade::new(16, 1 << 30, 2);
    made.file().set_len(1 << 40).unwrap();
    made.write(36, &200_000u32.to_be_bytes());
    made.entries(40, [1 << 30]);
    refused(made.file(), Reason::Refcount);
}

#[test]
fn refcount_table_full_of_one_block_is_refused() {
    let (made, _l1) = Handmade::new(16, 1 << 30, 2);
    made.entries(C, [2 * C; 8192]);
    refused(made.file(), Reason::Overlap);
}

#[test]
fn l2_tables_all_over_a_huge_hole_are_refused() {
    let (made, l1) = Handmade::new(16, 64 << 40, 131_072);
    made.file().set_len(1 << 55).unwrap();
    made.entries(l1, (1..131_072).map(|table| table << 32 | COPIED));
    refused(made.file(), Reason::Refcount);
}

/// All runs of an accepted image, for which little is read: no table that is a hole.
#[track_caller]
fn runs(file: &File) -> Vec<Run> {
    let mut image = check(file).unwrap();
    let before = bytes_read();
    let runs = image.runs().collect::<Result<_, _>>().unwrap();
    let read = bytes_read() - before;
    assert!(read < 2 << 20, "{read} bytes");
    runs
}

#[test]
fn a_disk_of_64_tebibytes_whose_tables_are_holes_is_mapped_without_a_step_for_each_cluster() {
    // 131,072 L2 tables, 8 GiB of the file that take no space: in the first one, and in a few others, one entry is set.
    let (mut made, l1) = Handmade::new(16, 64 << 40, 131_072);
    let data = made.place(5);
    let tables = made.place(131_072);
    made.entries(l1, (0..131_072).map(|table| (tables + table * C) | COPIED));
    let set = [(0, 0), (0, 4096), (7, 8191), (70_000, 3), (131_071, 8191)];
    for (number, (table, index)) in (0..).zip(set) {
        made.entries(
            tables + table * C + index * 8,
            [(data + number * C) | COPIED],
        );
    }
    let runs = runs(made.file());
    let found = runs.iter().filter_map(|run| match run.content {
        Content::Data { offset } => Some((run.start, run.bytes, offset)),
        _ => None,
    });
    let expected = (0..).zip(set).map(|(number, (table, index))| {
        let start = (table * 8192 + index) * C;
        (start, C, data + number * C)
    });
    assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    let end = runs.last().map(|run| run.start + run.bytes);
    assert_eq!(end, Some(64 << 40));
    // And one with an L1 table that is a hole but for its ends.
    let (mut made, l1) = Handmade::new(16, 64 << 40, 131_072);
    let (first, last, data) = (made.place(1), made.place(1), made.place(2));
    made.entries(l1, [first | COPIED]);
    made.entries(l1 + 131_071 * 8, [last | COPIED]);
    made.entries(first, [data | COPIED]);
    made.entries(last + 8191 * 8, [(data + C) | COPIED]);
    assert_eq!(self::runs(made.file()).len(), 3);
}

#[test]
fn an_l1_table_that_is_larger_than_any_disk_needs_is_refused() {
    let (made, _l1) = Handmade::new(16, C, 4 << 20);
    refused(made.file(), Reason::Table);
    // Of the smallest clusters as many entries are needed; they take no time.
    let (made, _l1) = Handmade::new(9, 512, 262_144);
    accepted(made.file());
}

#[test]
fn stream_that_expands_to_more_than_its_cluster_is_refused() {
    let (mut made, l1) = Handmade::new(16, C, 1);
    let (table, data) = (made.place(1), made.place(2));
    made.entries(l1, [table | COPIED]);
    // 100 MB of zeroes in 100 KB: only 64 KiB of it are ever made.
    let bomb = miniz_oxide::deflate::compress_to_vec(&vec![0; 100 << 20], 9);
    made.write(data, &bomb);
    made.entries(table, [compressed(data, 200, 16)]);
    refused(made.file(), Reason::CompressedData);
}

/// A zstd frame of 2 MiB: 16 blocks that each say one byte.
fn frame(bytes: [u8; 16]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0x20, 0];
    for (block, byte) in (1..).zip(bytes) {
        let last = u32::from(block == 16);
        let header = 131_072 << 3 | 1 << 1 | last;
        frame.extend(&u32::to_le_bytes(header)[..3]);
        frame.push(byte);
    }
    frame
}

/// A zstd frame of 2 MiB in blocks that are stored as they are.
fn plain_frame() -> Vec<u8> {
    let mut made = frame([0; 16])[..9].to_vec();
    for block in 1..=16u32 {
        let header = 131_072 << 3 | u32::from(block == 16);
        made.extend(&header.to_le_bytes()[..3]);
        made.extend(fuzz::seeds::disk(131_072));
    }
    made
}

/// A disk of clusters of 2 MiB, each a frame of its own.
fn compressed_disk(frames: &[Vec<u8>]) -> Handmade {
    let clusters = frames.len() as u64;
    let (mut made, l1) = Handmade::new(21, clusters << 21, 1);
    made.write(72, &8u64.to_be_bytes());
    made.write(100, &112u32.to_be_bytes());
    made.write(104, &[1]);
    let table = made.place(1);
    let bytes: usize = frames.iter().map(Vec::len).sum();
    let data = made.place((bytes as u64).div_ceil(2 << 20));
    // A single count: all frames lie in one cluster.
    made.count(data >> 21, u16::try_from(clusters).unwrap());
    made.entries(l1, [table | COPIED]);
    let mut next = data;
    let entries = frames.iter().map(|frame| {
        let place = next;
        next += frame.len() as u64;
        made.write(place, frame);
        compressed(place, (next - 1) / 512 - place / 512 + 1, 21)
    });
    let entries: Vec<u64> = entries.collect();
    made.entries(table, entries);
    made
}

/// Frames no two of which are the same.
fn different(frames: u32) -> Vec<Vec<u8>> {
    let bytes = |number: u32| {
        let mut bytes = [7; 16];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        frame(bytes)
    };
    (0..frames).map(bytes).collect()
}

/// Whether it is accepted, within the limit.
#[track_caller]
fn accepted(file: &File) {
    let _image = judged_in_time(file).unwrap();
}

#[test]
fn compressed_data_that_expands_twenty_thousand_times_is_refused_beyond_256_mebibytes() {
    accepted(compressed_disk(&different(128)).file());
    refused(
        compressed_disk(&different(129)).file(),
        Reason::CompressionBomb,
    );
    refused(
        compressed_disk(&different(20_000)).file(),
        Reason::CompressionBomb,
    );
    // With a cluster that does not get smaller among them, many more are in proportion.
    let mut frames = different(300);
    refused(compressed_disk(&frames).file(), Reason::CompressionBomb);
    frames.push(plain_frame());
    let _image = check(compressed_disk(&frames).file()).unwrap();
}

#[test]
fn a_large_disk_of_one_pattern_is_accepted_at_once() {
    // 20 GiB in 1.5 MB, as `qemu-img convert -c` would make it of a disk that was filled with one byte.
    let made = compressed_disk(&vec![frame([7; 16]); 10_000]);
    accepted(made.file());
    let mut image = check(made.file()).unwrap();
    let mut bytes = vec![0; 4 << 20];
    image.read_at((20 << 30) - (1 << 30), &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 7));
}
