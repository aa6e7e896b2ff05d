//! A snapshot is one instant: all that was acknowledged before it was asked for, nothing that was begun after the answer,
//! and no block of a later time between blocks of an earlier one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::time::Duration;

use tests::chance::Rounds;
use tests::client::{accepted, refused, shown};
use tests::file_writer::{self, FileWriter};
use tests::fixture::Fixture;
use tests::kubelet::Attachment;
use tests::scratch_fs::{FsKind, GIB, MIB, ScratchFs};
use tests::small_disk::SmallDisk;
use tests::writer::{self, THREADS, Writer};
use tests::{content, requests, tools};
use tonic::Code;

const CUTS: usize = 100;
const CUTS_OF_A_FILESYSTEM: usize = 10;
const DISK: u64 = 8 * MIB;

/// Cuts while four threads write, restores each cut and compares it with what the threads were told.
fn numbered_blocks(kind: FsKind) {
    // In memory: the cuts are to meet as many writes as possible, not to wait for a disk.
    let disk = SmallDisk::new(4 * GIB);
    let fs = ScratchFs::on_disk(disk.path(), kind, 4 * GIB);
    let fixture = Fixture::with_fs(fs, |setup| setup);
    let client = &fixture.csi;
    let used = fixture.published("numbered", DISK, &requests::block());
    let writer = Writer::start(&used.target, DISK);
    let mut kept: Vec<String> = Vec::new();
    let mut cuts = 0;
    let mut slack = 0;
    let mut longest = Duration::ZERO;
    for number in Rounds::new(CUTS) {
        // The first cuts are of a disk that is not full yet, later ones of a disk that was written several times over.
        writer.advance(7);
        let before = writer.acknowledged();
        let _earlier = writer.longest_stall();
        let request = requests::snapshot(&format!("cut {number}"), &used.volume_id);
        let cut = client.made_snapshot(request).snapshot_id;
        let after = writer.issued();
        longest = longest.max(writer.longest_stall());
        let name = format!("restored {number}");
        let request =
            requests::from_snapshot(requests::volume(&name, DISK, requests::block()), &cut);
        let restored = client.made_volume(request).volume_id;
        let image = fixture.image(&restored);
        let found = writer::verify_between(&image, writer.layout(), before, after)
            .unwrap_or_else(|why| panic!("{kind:?}: cut {number}: {why}"));
        slack += (0..THREADS).map(|at| after[at] - found[at]).sum::<u64>();
        accepted(client.delete(&restored));
        kept.push(cut);
        if kept.len() > 8 {
            accepted(client.delete_cut(&kept.remove(number % 8)));
        }
        cuts += 1;
    }
    let last = writer.stop();
    eprintln!(
        "{kind:?}: {cuts} cuts under {} acknowledged blocks, 0 torn; {slack} blocks came between a cut and its answer; longest wait of a writer around a cut {longest:?}",
        last.iter().sum::<u64>()
    );
    assert_eq!(
        writer::verify(&used.target, writer::Layout::new(DISK)),
        Ok(last)
    );
    for cut in kept {
        accepted(client.delete_cut(&cut));
    }
    used.down_and_delete(client);
}

#[test]
fn each_of_100_cuts_under_a_writing_guest_is_one_instant_on_xfs() {
    numbered_blocks(FsKind::Xfs);
}

#[test]
fn each_of_100_cuts_under_a_writing_guest_is_one_instant_on_btrfs() {
    numbered_blocks(FsKind::Btrfs);
}

/// A restored volume, in a pod.
fn restored(fixture: &Fixture, cut: &str, name: &str, how: &str) -> Attachment {
    let mut request = requests::volume(name, 0, requests::filesystem(how));
    request.capacity_range = None;
    let volume = fixture
        .csi
        .made_volume(requests::from_snapshot(request, cut));
    fixture.attachment(&volume.volume_id, name, &requests::filesystem(how))
}

/// The filesystem in an image is whole, without anything to repair or to replay.
#[track_caller]
fn consistent(fixture: &Fixture, volume_id: &str, how: &str, when: &str) {
    let image = fixture.image(volume_id);
    let image = image.to_str().unwrap();
    let ran = match how {
        "ext4" => {
            let header = tools::run("dumpe2fs", &["-h", image]);
            assert!(
                !header.contains("needs_recovery"),
                "{when}: the journal is not empty"
            );
            tools::attempt("e2fsck", &["-fn", image])
        }
        _ => tools::attempt("xfs_repair", &["-n", "-f", image]),
    };
    assert!(ran.code == Some(0), "{when}: {ran}");
}

/// Cuts a mounted filesystem while files are added to it: each restore mounts, is whole, and has every safe file.
fn mounted_filesystem(kind: FsKind, how: &str, bytes: u64) {
    let fixture = Fixture::on(kind);
    let client = &fixture.csi;
    let used = fixture.published("files", bytes, &requests::filesystem(how));
    let files = FileWriter::start(&used.target);
    let mut total = 0;
    for number in Rounds::new(CUTS_OF_A_FILESYSTEM) {
        // A soak must not fill the volume.
        if files.safe() > 3000 {
            break;
        }
        files.advance(10);
        let safe = files.safe();
        let request = requests::snapshot(&format!("cut {number}"), &used.volume_id);
        let cut = client.made_snapshot(request).snapshot_id;
        let name = format!("restored {number}");
        let copy = restored(&fixture, &cut, &name, how);
        if how == "ext4" {
            // A frozen ext4 has an empty journal, so the cut is clean before anybody mounts it.
            consistent(
                &fixture,
                &copy.volume_id,
                how,
                &format!("{kind:?} cut {number}"),
            );
        }
        copy.up(client);
        file_writer::verify(&copy.target, safe)
            .unwrap_or_else(|why| panic!("{kind:?} {how} cut {number}: {why}"));
        copy.down(client);
        consistent(
            &fixture,
            &copy.volume_id,
            how,
            &format!("{kind:?} mounted {number}"),
        );
        accepted(client.delete(&copy.volume_id));
        accepted(client.delete_cut(&cut));
        total = safe;
    }
    let safe = files.stop();
    eprintln!(
        "{kind:?} {how}: the last cut had {total} of {safe} files, each cut had all that were safe"
    );
    used.down(client);
    consistent(&fixture, &used.volume_id, how, "the volume itself");
    accepted(client.delete(&used.volume_id));
}

#[test]
fn each_cut_of_a_mounted_ext4_mounts_clean_and_has_every_synced_file() {
    for kind in FsKind::REFLINK {
        mounted_filesystem(kind, "ext4", GIB);
    }
}

#[test]
fn each_cut_of_a_mounted_xfs_mounts_clean_and_has_every_synced_file() {
    for kind in FsKind::REFLINK {
        mounted_filesystem(kind, "xfs", 512 * MIB);
    }
}

#[test]
fn without_shared_blocks_a_small_mounted_filesystem_is_frozen_and_copied() {
    mounted_filesystem(FsKind::Ext4, "ext4", 256 * MIB);
}

#[test]
fn without_shared_blocks_a_published_device_is_refused_with_what_to_do_and_a_quiet_one_is_exact() {
    let fixture = Fixture::on(FsKind::Ext4);
    let client = &fixture.csi;
    let used = fixture.published("device", DISK, &requests::block());
    let writer = Writer::start(&used.target, DISK);
    writer.advance(100);
    for again in 0..3 {
        let request = requests::snapshot(&format!("cut {again}"), &used.volume_id);
        let status = refused(client.create_snapshot(request), Code::FailedPrecondition);
        for word in ["published", "torn", "Stop the pod or VM", "XFS", "Btrfs"] {
            assert!(status.message().contains(word), "{}", shown(&status));
        }
        let request = requests::volume(&format!("clone {again}"), DISK, requests::block());
        let request = requests::from_volume(request, &used.volume_id);
        refused(client.create_volume(request), Code::FailedPrecondition);
        assert_eq!(client.snapshot_ids(), Vec::<String>::new());
    }
    let layout = writer.layout();
    let last = writer.stop();
    accepted(used.unpublish(client));
    for staged in [true, false] {
        let request = requests::snapshot(&format!("quiet, staged: {staged}"), &used.volume_id);
        let cut = client.made_snapshot(request).snapshot_id;
        let request = requests::volume("restored", DISK, requests::block());
        let restored = client
            .made_volume(requests::from_snapshot(request, &cut))
            .volume_id;
        let image = fixture.image(&restored);
        assert_eq!(writer::verify(&image, layout), Ok(last), "staged: {staged}");
        assert_eq!(
            content::digest(&image),
            content::digest(&fixture.image(&used.volume_id))
        );
        accepted(client.delete(&restored));
        accepted(client.delete_cut(&cut));
        if staged {
            accepted(used.unstage(client));
        }
    }
    accepted(client.delete(&used.volume_id));
}
