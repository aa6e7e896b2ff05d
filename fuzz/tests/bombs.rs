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
use snapshot_engine::reader::{Failure, Reason, check};

const LIMIT: Duration = Duration::from_millis(100);
const C: u64 = 65536;

/// Refused for this reason within 100 ms of the processor.
#[track_caller]
fn refused(file: &File, expected: Reason) {
    let before = processor_time();
    let verdict = check(file);
    let taken = processor_time() - before;
    match verdict {
        Err(Failure::Refused(refusal)) => assert_eq!(refusal.reason, expected, "{refusal}"),
        other => panic!("{other:?}"),
    }
    assert!(taken < LIMIT, "{taken:?}");
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
    let (mut made, l1) = Handmade::new(16, 64 << 40, 4 << 20);
    let table = made.place(1);
    made.entries(l1, vec![table | COPIED; 4 << 20]);
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
    made.write(36, &(4u32 << 20).to_be_bytes());
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
    let (made, l1) = Handmade::new(16, 64 << 40, 4 << 20);
    made.file().set_len(1 << 55).unwrap();
    made.entries(l1, (1..(4 << 20)).map(|table| table << 32 | COPIED));
    refused(made.file(), Reason::Refcount);
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

/// A zstd frame of 2 MiB of one byte: 16 blocks that say so.
fn one_byte_frame(byte: u8) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0x20, 0];
    for block in 1..=16u32 {
        let last = u32::from(block == 16);
        let header = 131_072 << 3 | 1 << 1 | last;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(byte);
    }
    frame
}

/// A disk of `clusters` clusters of 2 MiB, each a frame of its own.
fn one_byte_disk(clusters: u64) -> Handmade {
    let (mut made, l1) = Handmade::new(21, clusters << 21, 1);
    made.write(72, &8u64.to_be_bytes());
    made.write(100, &112u32.to_be_bytes());
    made.write(104, &[1]);
    let table = made.place(1);
    let frame = one_byte_frame(7);
    let length = frame.len() as u64;
    let data = made.place((clusters * length).div_ceil(2 << 20));
    // A single count: all frames lie in one cluster.
    made.count(data >> 21, u16::try_from(clusters).unwrap());
    made.entries(l1, [table | COPIED]);
    let places: Vec<u64> = (0..clusters).map(|number| data + number * length).collect();
    for place in &places {
        made.write(*place, &frame);
    }
    made.entries(
        table,
        places.iter().map(|place| {
            let sectors = (place + length - 1) / 512 - place / 512 + 1;
            compressed(*place, sectors, 21)
        }),
    );
    made
}

#[test]
fn compressed_data_that_expands_twenty_thousand_times_is_refused_beyond_four_gibibytes() {
    refused(one_byte_disk(2049).file(), Reason::CompressionBomb);
    // A small disk of one pattern is no bomb.
    let made = one_byte_disk(20);
    let mut image = check(made.file()).unwrap();
    let mut bytes = vec![0; 4 << 20];
    image.read_at(19 << 20, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 7));
}
