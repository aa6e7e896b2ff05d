//! Snapshots on real filesystems, judged by `qemu-img`. Needs root, `mkfs.xfs`, `mkfs.btrfs` and `qemu-img`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod content;
mod copying;
mod cutting;
mod damage;
mod digesting;
mod exporting;
mod importing;
mod packing;
mod scratch;
mod shapes;
mod snapshot;
