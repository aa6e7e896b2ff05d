//! The disk does not give one block (a real EIO of the kernel): whatever reads it says so, leaves nothing, damages and marks nothing,
//! and succeeds once the block can be read again. Everything else goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::path::Path;

use tests::bad_disk::BadDisk;
use tests::client::{accepted, shown};
use tests::fixture::Fixture;
use tests::integrity::{self, digested};
use tests::packing::{self, Packing};
use tests::requests::{block, compressed_snapshot, from_snapshot, from_volume, snapshot, volume};
use tests::scratch_fs::{FsKind, GIB, MIB};
use tests::server::Setup;
use tests::{content, requests, wait};
use tonic::{Code, Status};

const SIZE: u64 = 48 * MIB;
/// A byte of the data, in the middle.
const PLACE: u64 = 20 * MIB + 4711;

/// A pool on a disk that can go bad. The disk has to go after it.
fn fixture(kind: FsKind, change: impl FnOnce(Setup) -> Setup) -> (BadDisk, Fixture) {
    let disk = BadDisk::new();
    let fs = disk.filesystem(kind, 2 * GIB);
    let fixture = Fixture::with_fs(fs, change);
    (disk, fixture)
}

/// A volume with data all over; its id and digest.
fn source(fixture: &Fixture) -> (String, String) {
    let id = fixture
        .csi
        .made_volume(volume("source", SIZE, block()))
        .volume_id;
    let image = fixture.image(&id);
    // Half of it gets smaller when it is compressed.
    content::write_at(&image, 0, &content::pattern("noise", 16 << 20));
    let line = "a line of text\n".repeat(2 << 20);
    content::write_at(&image, 16 * MIB, &line.as_bytes()[..30 << 20]);
    (id, content::digest(&image))
}

/// What it is answered with says that the disk did not give something, and nothing is left of it.
#[track_caller]
fn unreadable<T: std::fmt::Debug>(fixture: &Fixture, result: Result<T, Status>) {
    let status = result.expect_err("it cannot be read");
    assert_eq!(status.code(), Code::Internal, "{}", shown(&status));
    let said = status.message();
    assert!(said.contains("Input/output error"), "{said}");
    let left = std::fs::read_dir(fixture.pool().join("tmp")).unwrap();
    assert_eq!(left.count(), 0, "left in tmp/");
    assert!(fixture.csi.is_ready(), "it is one block, not the pool");
    let other = fixture.csi.made_volume(volume("other", MIB, block()));
    accepted(fixture.csi.delete(&other.volume_id));
}

#[track_caller]
fn holds(fixture: &Fixture, volume_id: &str, digest: &str) {
    assert_eq!(content::digest(&fixture.image(volume_id)), digest);
    accepted(fixture.csi.delete(volume_id));
}

#[test]
fn a_copy_and_a_clone_of_what_cannot_be_read_are_errors_and_made_once_it_can() {
    let (disk, fixture) = fixture(FsKind::Ext4, |setup| setup);
    let (id, digest) = source(&fixture);
    let bad = disk.spoil(&fixture.image(&id), PLACE);
    let cut = || snapshot("cut", &id);
    let clone = || from_volume(volume("clone", SIZE, block()), &id);
    for _again in 0..2 {
        unreadable(&fixture, fixture.csi.create_snapshot(cut()));
        unreadable(&fixture, fixture.csi.create_volume(clone()));
    }
    assert_eq!(fixture.csi.snapshot_ids(), Vec::<String>::new());
    bad.heal();
    let cut = fixture.csi.made_snapshot(cut()).snapshot_id;
    let restored = from_snapshot(volume("restored", SIZE, block()), &cut);
    for request in [restored, clone()] {
        let made = fixture.csi.made_volume(request).volume_id;
        holds(&fixture, &made, &digest);
    }
}

#[test]
fn a_restore_of_what_cannot_be_read_is_an_error_and_made_once_it_can() {
    for kind in [FsKind::Ext4, FsKind::Xfs] {
        let (disk, fixture) = fixture(kind, |setup| setup);
        let (id, digest) = source(&fixture);
        let plain = fixture.csi.made_snapshot(snapshot("plain", &id));
        let small = fixture.csi.made_snapshot(compressed_snapshot("small", &id));
        let _took = packing::wait(&fixture.pool(), &small.snapshot_id);
        // Where blocks are shared a restore reads no data, but of a compressed image.
        let copied = (kind == FsKind::Ext4).then_some((plain.snapshot_id, PLACE));
        for (cut, place) in copied.into_iter().chain([(small.snapshot_id, 5 * MIB)]) {
            let bad = disk.spoil(&fixture.snapshot_file(&cut), place);
            let request = || from_snapshot(volume("restored", SIZE, block()), &cut);
            unreadable(&fixture, fixture.csi.create_volume(request()));
            bad.heal();
            let restored = fixture.csi.made_volume(request()).volume_id;
            holds(&fixture, &restored, &digest);
        }
    }
}

#[test]
fn an_export_of_what_cannot_be_read_leaves_nothing_and_an_import_neither() {
    // Where blocks are shared neither of them reads what it need not.
    let (disk, mut fixture) = fixture(FsKind::Ext4, |setup| setup);
    let (id, digest) = source(&fixture);
    let cut = fixture.csi.made_snapshot(snapshot("cut", &id)).snapshot_id;
    let folder = tempfile::tempdir().unwrap();
    let names = || std::fs::read_dir(folder.path()).unwrap().count();
    let bad = disk.spoil(&fixture.snapshot_file(&cut), PLACE);
    let export = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let words = ["snapshot", "export", &cut, out.to_str().unwrap()];
        fixture.vdctl(&[&words[..], more].concat())
    };
    let forms = [&[][..], &["--compress"], &["--format", "raw"]];
    for more in forms {
        let ran = export("disk", more);
        assert!(
            ran.code == Some(2) && ran.err.contains("Input/output error"),
            "{ran}"
        );
        assert_eq!(names(), 0, "{more:?}");
    }
    bad.heal();
    for (number, more) in forms.iter().enumerate() {
        let _said = export(&number.to_string(), more).ok();
    }
    assert_eq!(content::digest(&folder.path().join("2")), digest);

    // A file that is to be imported lies on the same disk.
    let raw = fixture.pool().join("disk.raw");
    let _bytes = std::fs::copy(folder.path().join("2"), &raw).unwrap();
    assert!(fixture.server.terminate().success());
    let bad = disk.spoil(&raw, PLACE);
    let import = |fixture: &Fixture| {
        let file = raw.to_str().unwrap();
        fixture.vdctl(&["snapshot", "import", file, "--format", "raw"])
    };
    let ran = import(&fixture);
    assert!(
        ran.code == Some(2) && ran.err.contains("Input/output error"),
        "{ran}"
    );
    let left = |name: &str| {
        let entries = std::fs::read_dir(fixture.pool().join(name)).unwrap();
        entries.count()
    };
    assert_eq!((left("tmp"), left("snapshots")), (0, 1));
    bad.heal();
    let _said = import(&fixture).ok();
    assert_eq!((left("tmp"), left("snapshots")), (0, 2));
    fixture.server.start_again();
    fixture.reconnect();
    std::fs::remove_file(raw).unwrap();
}

fn is_in_log(fixture: &Fixture, words: &str) -> bool {
    fixture.server.log_text().contains(words)
}

#[test]
fn a_digest_and_a_scrub_of_what_cannot_be_read_mark_nothing_and_are_done_once_it_can() {
    let (disk, fixture) = fixture(FsKind::Xfs, |mut setup| {
        setup.arguments = vec!["--scrub-period=1s".to_owned()];
        setup
    });
    let pool = fixture.pool();
    let (id, digest) = source(&fixture);
    let cut = fixture.csi.made_snapshot(digested("cut", &id)).snapshot_id;
    let known = integrity::wait_for_digest(&pool, &cut);
    // The volume, and all that share its blocks.
    let bad = disk.spoil(&fixture.image(&id), PLACE);
    let scrubbed = "what=Verify error=";
    wait::until("a scrub meets it", packing::LIMIT, || {
        is_in_log(&fixture, scrubbed)
    });
    let new = fixture.csi.made_snapshot(digested("new", &id)).snapshot_id;
    wait::until("a digest meets it", packing::LIMIT, || {
        is_in_log(&fixture, "what=Digest error=")
    });
    let socket = format!("unix://{}", fixture.server.setup().socket.display());
    let verify = ["snapshot", "verify", &cut, "--agent", &socket];
    let ran = fixture.vdctl(&verify);
    assert!(
        ran.code == Some(2) && ran.err.contains("Input/output error"),
        "{ran}"
    );
    for one in [&cut, &new] {
        assert_eq!(integrity::record(&pool, one).damage, None, "{one}");
    }
    let seen = |cut: &str| {
        let checksum = integrity::record(&pool, cut).checksum;
        checksum.and_then(|checksum| checksum.verified)
    };
    let before = seen(&cut);
    bad.heal();
    assert_eq!(integrity::wait_for_digest(&pool, &new), known);
    wait::until("it is scrubbed again", packing::LIMIT, || {
        seen(&cut) > before
    });
    assert_eq!(integrity::record(&pool, &cut).damage, None);
    let restored = from_snapshot(volume("restored", SIZE, block()), &cut);
    holds(
        &fixture,
        &fixture.csi.made_volume(restored).volume_id,
        &digest,
    );
}

#[test]
fn a_compression_of_what_cannot_be_read_leaves_the_snapshot_as_it_was_and_is_done_later() {
    let (disk, mut fixture) = fixture(FsKind::Xfs, |setup| setup);
    let (id, digest) = source(&fixture);
    let bad = disk.spoil(&fixture.image(&id), PLACE);
    let cut = fixture.csi.made_snapshot(compressed_snapshot("cut", &id));
    let cut = cut.snapshot_id;
    wait::until("it is given up", packing::LIMIT, || {
        is_in_log(&fixture, "could not be compressed")
    });
    assert!(is_in_log(&fixture, "Input/output error"));
    assert_eq!(packing::of(&fixture.pool(), &cut), Some(Packing::Wanted));
    assert!(is_empty(&fixture.pool().join("tmp")));
    bad.heal();
    // It would be left alone for a minute.
    fixture.crash_and_restart();
    let _took = packing::wait(&fixture.pool(), &cut);
    let request = requests::volume("restored", SIZE, block());
    let restored = from_snapshot(request, &cut);
    holds(
        &fixture,
        &fixture.csi.made_volume(restored).volume_id,
        &digest,
    );
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}
