//! Images from elsewhere become snapshots.

use std::fs::File;
use std::process::Command;

use snapshot_engine::reader::{check, open};
use snapshot_engine::{Cut, Watch, import_qcow2, import_raw};

use crate::content::fill;
use crate::scratch::{Kind, Scratch, run};
use crate::snapshot::{Snapshot, assert_qemu_agrees, assert_restores, finish, record};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 24 * MIB;

fn disk(scratch: &Scratch) -> File {
    let disk = scratch.file("disk.img", SIZE);
    fill(&disk, 3, 100, 5000);
    fill(&disk, 3, 3 * MIB, 4 * MIB);
    fill(&disk, 3, SIZE - 700, 700);
    disk
}

#[test]
fn every_form_of_image_becomes_a_snapshot_of_its_disk() {
    for options in [
        "cluster_size=64k",
        "cluster_size=512",
        "cluster_size=2M",
        "compat=0.10,cluster_size=4k",
        "compression_type=zstd",
        "refcount_bits=1",
    ] {
        for compressed in [false, true] {
            let scratch = Scratch::new(Kind::Host);
            let disk = disk(&scratch);
            let (raw, foreign) = (scratch.path("disk.img"), scratch.path("foreign"));
            let flag: &[&str] = if compressed { &["-c"] } else { &[] };
            // A count of one bit cannot count several compressed clusters in one.
            if compressed && options == "refcount_bits=1" {
                continue;
            }
            run(Command::new("qemu-img")
                .args(["convert", "-f", "raw", "-O", "qcow2", "-o", options])
                .args(flag)
                .args([&raw, &foreign]));
            let file = open(&foreign).unwrap();
            let mut source = check(&file).unwrap();
            let image = scratch.file("image", 0);
            let cut = Cut::prepare(&image, SIZE).unwrap();
            import_qcow2(&mut source, &cut, &image, &Watch::UNWATCHED).unwrap();
            let record = record("imported", &finish(cut, &image));
            assert_qemu_agrees(&scratch.path("image"), &raw, SIZE);
            assert_restores(&scratch, &Snapshot { image, record }, &disk);
        }
    }
}

#[test]
fn a_raw_disk_becomes_a_snapshot_with_its_holes() {
    let scratch = Scratch::new(Kind::Host);
    let disk = disk(&scratch);
    let image = scratch.file("image", 0);
    let cut = Cut::prepare(&image, SIZE).unwrap();
    import_raw(&disk, &cut, &image, &Watch::UNWATCHED).unwrap();
    let captured = finish(cut, &image);
    assert!(captured.charge_bytes < 8 * MIB, "{captured:?}");
    let record = record("imported", &captured);
    assert_qemu_agrees(&scratch.path("image"), &scratch.path("disk.img"), SIZE);
    assert_restores(&scratch, &Snapshot { image, record }, &disk);
}
