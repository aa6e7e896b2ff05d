//! Every shape of disk, on every filesystem, both ways.

use std::fs::File;

use snapshot_engine::MAX_VIRTUAL_BYTES;

use crate::content::fill;
use crate::scratch::{Kind, Scratch};
use crate::snapshot::{How, assert_qemu_agrees, assert_restores, assert_standalone, cut};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

struct Shape {
    name: &'static str,
    size: u64,
    /// Offset and length of what was written.
    pieces: &'static [(u64, u64)],
}

const SHAPES: &[Shape] = &[
    Shape {
        name: "smallest",
        size: 64 * KIB,
        pieces: &[(100, 1)],
    },
    Shape {
        name: "empty",
        size: MIB,
        pieces: &[],
    },
    Shape {
        name: "full",
        size: MIB,
        pieces: &[(0, MIB)],
    },
    Shape {
        name: "full-of-several-mib",
        size: 9 * MIB,
        pieces: &[(0, 9 * MIB)],
    },
    Shape {
        name: "first-byte",
        size: 64 * MIB,
        pieces: &[(0, 1)],
    },
    Shape {
        name: "last-byte",
        size: 64 * MIB,
        pieces: &[(64 * MIB - 1, 1)],
    },
    Shape {
        name: "sparse-pieces",
        size: 100 * MIB,
        pieces: &[
            (64 * KIB - 1, 2),
            (5 * MIB, 4 * KIB),
            (5 * MIB + 8 * KIB, 4 * KIB),
            (17 * MIB + 5, 3 * MIB),
            (30 * MIB, 64 * KIB),
            (30 * MIB + 128 * KIB, 64 * KIB),
            (99 * MIB + 960 * KIB, 64 * KIB),
        ],
    },
    Shape {
        name: "one-full-l2-table",
        size: 512 * MIB,
        pieces: &[(0, 1), (512 * MIB - 1, 1)],
    },
    Shape {
        name: "several-l2-tables",
        size: 1537 * MIB,
        pieces: &[(512 * MIB - 7, 14), (1536 * MIB, MIB)],
    },
    Shape {
        name: "second-l2-table-only",
        size: GIB + MIB,
        pieces: &[(700 * MIB, 1)],
    },
    Shape {
        name: "several-refcount-blocks",
        size: 5 * GIB + MIB,
        pieces: &[
            (2 * GIB - 3 * MIB, 6 * MIB),
            (3 * GIB, 1),
            (5 * GIB + MIB - 1, 1),
        ],
    },
    Shape {
        name: "last-refcount-block-only",
        size: 7 * GIB,
        pieces: &[(7 * GIB - 1, 1)],
    },
    Shape {
        name: "l1-table-of-two-clusters",
        size: 4 * TIB + MIB,
        pieces: &[(0, 1), (2 * TIB + 5, 70 * KIB), (4 * TIB + MIB - 1, 1)],
    },
];

fn write(shape: &Shape, raw: &File) {
    for (offset, length) in shape.pieces {
        fill(raw, 1, *offset, *length);
    }
}

fn every_shape_survives(kind: Kind, how: How) {
    let scratch = Scratch::new(kind);
    for shape in SHAPES {
        let raw = scratch.file("disk.img", shape.size);
        write(shape, &raw);
        let snapshot = cut(&scratch, shape.name, &raw, how);
        let (image, disk) = (scratch.path(shape.name), scratch.path("disk.img"));
        assert_qemu_agrees(&image, &disk, shape.size);
        assert_restores(&scratch, &snapshot, &raw);
        std::fs::remove_file(disk).unwrap();
    }
}

#[test]
fn every_shape_copied_is_a_standard_qcow2_and_restores_without_reflink() {
    every_shape_survives(Kind::Host, How::Copy);
}

#[test]
fn every_shape_cut_on_xfs_is_a_standard_qcow2_and_restores() {
    every_shape_survives(Kind::Xfs, How::Reflink);
}

#[test]
fn every_shape_copied_on_xfs_is_a_standard_qcow2_and_restores() {
    every_shape_survives(Kind::Xfs, How::Copy);
}

#[test]
fn every_shape_cut_on_btrfs_is_a_standard_qcow2_and_restores() {
    every_shape_survives(Kind::BtrfsNocow, How::Reflink);
}

#[test]
fn every_shape_cut_on_btrfs_with_copy_on_write_is_a_standard_qcow2_and_restores() {
    every_shape_survives(Kind::Btrfs, How::Reflink);
}

/// qemu would need 2 GiB of memory to check it, so this one is judged by `qemu-img info` and our own check.
#[test]
fn largest_disk_is_cut_and_restored() {
    for kind in [Kind::Xfs, Kind::BtrfsNocow] {
        let scratch = Scratch::new(kind);
        let raw = scratch.file("disk.img", MAX_VIRTUAL_BYTES);
        for offset in [0, 33 * TIB + 12345, MAX_VIRTUAL_BYTES - MIB] {
            fill(&raw, 1, offset, MIB);
        }
        let snapshot = cut(&scratch, "largest", &raw, How::Reflink);
        assert_standalone(&scratch.path("largest"), MAX_VIRTUAL_BYTES);
        assert_restores(&scratch, &snapshot, &raw);
    }
}
