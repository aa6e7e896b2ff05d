//! At ratio 1.0 no guest ever meets a full disk, whatever it writes and whatever happens around it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use tests::chance::{Random, Rounds, seed};
use tests::fixture::Fixture;
use tests::history::{Counts, History};
use tests::scratch_fs::{FsKind, MIB, ScratchFs};
use tests::small_disk::SmallDisk;

const HISTORIES: usize = 50;
const STEPS: usize = 16;
const POOL: u64 = 512 * MIB;
/// MiB of the largest new volume.
const LARGEST: u64 = 96;

/// Histories on one pool, each of which ends with every promise claimed and every volume rewritten.
fn histories(kind: FsKind) {
    let disk = SmallDisk::new(2 * POOL);
    let fs = ScratchFs::on_disk(disk.path(), kind, POOL);
    let fixture = Fixture::with_fs(fs, |setup| setup);
    let seed = seed(kind.name());
    let empty = fixture.csi.free_bytes();
    let mut total = Counts::default();
    let mut done = 0;
    for number in Rounds::new(HISTORIES) {
        eprintln!("{}: history {number}", kind.name());
        let random = Random::new(seed.wrapping_add(number as u64));
        let mut history = History::new(&fixture, random, LARGEST);
        history.run(STEPS);
        history.claim_everything();
        add(&mut total, history.end());
        done += 1;
        let now = fixture.csi.free_bytes();
        tests::wait::until("everything is given back", tests::server::PATIENCE, || {
            // Filesystem metadata that has grown stays.
            fixture.csi.free_bytes() + 16 * (1 << 20) >= empty
        });
        assert!(now <= empty + (1 << 20), "no more than there is: {now}");
    }
    let written = total.written >> 30;
    eprintln!(
        "{}: {done} histories, {written} GiB written: {total:?}",
        kind.name()
    );
    assert!(total.snapshots > 0 && total.expansions > 0 && total.refusals > 0 && total.readers > 0);
}

fn add(total: &mut Counts, one: Counts) {
    total.volumes += one.volumes;
    total.snapshots += one.snapshots;
    total.copies += one.copies;
    total.readers += one.readers;
    total.expansions += one.expansions;
    total.deletions += one.deletions;
    total.refusals += one.refusals;
    total.written += one.written;
}

#[test]
fn no_guest_meets_a_full_disk_in_50_histories_on_xfs() {
    histories(FsKind::Xfs);
}

#[test]
fn no_guest_meets_a_full_disk_in_50_histories_on_ext4() {
    histories(FsKind::Ext4);
}
