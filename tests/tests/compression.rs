//! Snapshots that are compressed in the background: the same disk all the time, smaller in the end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pool::fault::{Operation, Step};
use tests::client::{accepted, refused};
use tests::fixture::Fixture;
use tests::packing::{self, Packing};
use tests::records::{self, Record};
use tests::requests::{block, compressed_snapshot, from_snapshot, snapshot, volume};
use tests::scratch_fs::{FsKind, MIB};
use tests::server::Server;
use tests::{binaries, content, tools, wait};
use tonic::Code;

const BYTES: u64 = 96 * MIB;

/// A volume with text, noise and zeroes in it; its id and digest.
fn filled(fixture: &Fixture, name: &str) -> (String, String) {
    let id = fixture
        .csi
        .made_volume(volume(name, BYTES, block()))
        .volume_id;
    let disk = fixture.image(&id);
    let file = File::options().write(true).open(&disk).unwrap();
    for at in 0..200_u64 {
        let line = format!("line {at} of {name}\n").repeat(2000);
        file.write_all_at(line.as_bytes(), at * 70_000).unwrap();
    }
    let noise = content::pattern(name, 5 << 20);
    file.write_all_at(&noise, 40 << 20).unwrap();
    file.write_all_at(&[0; 4 << 20], 60 << 20).unwrap();
    file.sync_all().unwrap();
    (id, content::digest(&disk))
}

/// The digest of the first part of what is restored from a snapshot.
#[track_caller]
fn restored(fixture: &Fixture, cut: &str) -> String {
    let request = from_snapshot(volume(&format!("of {cut}"), BYTES + MIB, block()), cut);
    let id = fixture.csi.made_volume(request).volume_id;
    let image = fixture.image(&id);
    let digest = content::digest_of(&image, 0, BYTES);
    assert_eq!(content::first_not_zero(&image, BYTES, MIB), None);
    accepted(fixture.csi.delete(&id));
    digest
}

fn charge(pool: &Path, cut: &str) -> u64 {
    Record::read(&records::of_snapshot(pool, cut)).number("charge_bytes")
}

fn is_tidy(pool: &Path) -> bool {
    let empty = |name| std::fs::read_dir(pool.join(name)).unwrap().count() == 0;
    empty("tmp") && empty("trash")
}

#[test]
fn the_same_name_with_another_compression_is_another_snapshot() {
    let fixture = Fixture::on(FsKind::Xfs);
    let source = fixture
        .csi
        .made_volume(volume("source", 16 * MIB, block()))
        .volume_id;
    let cut = fixture
        .csi
        .made_snapshot(compressed_snapshot("cut", &source));
    // Before and after it was compressed.
    for compressed in [false, true] {
        if compressed {
            let _took = packing::wait(&fixture.pool(), &cut.snapshot_id);
        }
        let request = snapshot("cut", &source);
        let why = refused(fixture.csi.create_snapshot(request), Code::AlreadyExists);
        assert!(why.message().contains("its compression is zstd"), "{why}");
        let request = compressed_snapshot("cut", &source);
        assert_eq!(fixture.csi.made_snapshot(request), cut);
    }
    accepted(fixture.csi.delete_cut(&cut.snapshot_id));
    accepted(fixture.csi.delete(&source));
}

#[test]
fn a_compressed_snapshot_is_the_same_disk_and_smaller() {
    for kind in FsKind::ALL {
        let fixture = Fixture::on(kind);
        let pool = fixture.pool();
        let (source, digest) = filled(&fixture, "source");
        let plain = fixture.csi.made_snapshot(snapshot("plain", &source));
        let made = fixture
            .csi
            .made_snapshot(compressed_snapshot("small", &source));
        assert!(made.ready_to_use, "{kind:?}");
        let id = made.snapshot_id.clone();
        let _took = packing::wait(&pool, &id);
        assert_eq!(
            packing::of(&pool, &plain.snapshot_id),
            Some(Packing::None),
            "nobody asked for it"
        );
        let (small, large) = (charge(&pool, &id), charge(&pool, &plain.snapshot_id));
        assert!(small * 2 < large, "{kind:?}: {small} of {large}");

        let image = fixture.snapshot_file(&id);
        let image = image.to_str().unwrap();
        let disk = fixture.image(&source);
        let check = tools::run("qemu-img", &["check", "-f", "qcow2", image]);
        assert!(check.contains("No errors were found"), "{check}");
        let both = [disk.to_str().unwrap(), image];
        let compare = ["compare", "-f", "raw", "-F", "qcow2"];
        let _same = tools::run("qemu-img", &[&compare[..], &both].concat());
        let _accepted = tools::run(binaries::shipped(), &["image", "check", image]);
        assert_eq!(restored(&fixture, &id), digest, "{kind:?}");

        let again = fixture
            .csi
            .made_snapshot(compressed_snapshot("small", &source));
        assert_eq!(again, made, "the same call gives the same answer");
        accepted(fixture.csi.delete(&source));
        assert_eq!(restored(&fixture, &id), digest, "its source is gone");
        wait::until("the trash is empty", packing::LIMIT, || is_tidy(&pool));
        fixture.check();
        accepted(fixture.csi.delete_cut(&id));
        accepted(fixture.csi.delete_cut(&plain.snapshot_id));
    }
}

#[test]
fn a_snapshot_can_be_restored_exported_and_deleted_at_any_moment_of_its_compression() {
    let fixture = Fixture::on(FsKind::Xfs);
    let pool = fixture.pool();
    let (source, digest) = filled(&fixture, "source");
    let folder = tempfile::tempdir().unwrap();
    let mut before = 0;
    for round in 0..12 {
        let name = format!("round {round}");
        let request = compressed_snapshot(&name, &source);
        let id = fixture.csi.made_snapshot(request).snapshot_id;
        // Rounds differ in what is done first; each time as soon as possible, and again until it is compressed.
        let mut exported = 0;
        loop {
            let wanted = packing::of(&pool, &id) == Some(Packing::Wanted);
            before += u32::from(wanted);
            if round % 3 == 0 {
                assert_eq!(restored(&fixture, &id), digest, "{name}");
            } else if round % 3 == 1 {
                exported += 1;
                let out = folder.path().join(format!("{round}-{exported}"));
                let out = out.to_str().unwrap();
                let words = ["snapshot", "export", &id, out, "--format", "raw"];
                let _said = fixture.vdctl(&words).ok();
                assert_eq!(content::digest(Path::new(out)), digest, "{name}");
            } else {
                break;
            }
            if !wanted {
                break;
            }
        }
        accepted(fixture.csi.delete_cut(&id));
        assert!(!fixture.snapshot_file(&id).exists(), "{name}");
    }
    assert!(before > 0, "no round was faster than the compression");
    wait::until("nothing is left", packing::LIMIT, || is_tidy(&pool));
}

#[test]
fn a_snapshot_made_anew_under_the_name_of_one_in_compression_keeps_its_own_disk() {
    let fixture = Fixture::on(FsKind::Xfs);
    let (first, one) = filled(&fixture, "first");
    let (second, other) = filled(&fixture, "second");
    assert_ne!(one, other);
    for _round in 0..5 {
        let old = fixture
            .csi
            .made_snapshot(compressed_snapshot("same", &first));
        accepted(fixture.csi.delete_cut(&old.snapshot_id));
        let new = fixture
            .csi
            .made_snapshot(compressed_snapshot("same", &second));
        assert_eq!(new.snapshot_id, old.snapshot_id);
        assert_eq!(restored(&fixture, &new.snapshot_id), other);
        let _took = packing::wait(&fixture.pool(), &new.snapshot_id);
        assert_eq!(restored(&fixture, &new.snapshot_id), other);
        accepted(fixture.csi.delete_cut(&new.snapshot_id));
    }
}

#[test]
fn two_restores_of_a_compressed_snapshot_at_once_are_both_right() {
    let fixture = Fixture::on(FsKind::Xfs);
    let (source, digest) = filled(&fixture, "source");
    let request = compressed_snapshot("cut", &source);
    let id = fixture.csi.made_snapshot(request).snapshot_id;
    let _took = packing::wait(&fixture.pool(), &id);
    let made: Vec<String> = std::thread::scope(|scope| {
        let restores = ["a", "b"].map(|name| {
            let (fixture, id) = (&fixture, &id);
            scope.spawn(move || {
                let request = from_snapshot(volume(name, BYTES, block()), id);
                fixture.server.client().made_volume(request).volume_id
            })
        });
        restores.map(|restore| restore.join().unwrap()).into()
    });
    for id in made {
        assert_eq!(content::digest(&fixture.image(&id)), digest);
    }
}

#[test]
fn a_step_of_a_compression_that_fails_leaves_the_snapshot_as_it_was_and_it_is_done_later() {
    let steps = Step::ALL
        .iter()
        .filter(|step| step.operation() == Operation::RepackSnapshot);
    for (number, step) in steps.enumerate() {
        let error = ["eio", "enospc"][number % 2];
        let mut fixture = Fixture::on(FsKind::Xfs);
        let pool = fixture.pool();
        let (source, digest) = filled(&fixture, "source");
        let healthy = fixture.server.setup().clone();
        let fault = format!("{}:{error}", step.name());
        fixture.server.kill();
        fixture.server.start_as(healthy.clone().with_fault(&fault));
        fixture.server.wait_ready();
        fixture.reconnect();
        let request = compressed_snapshot("cut", &source);
        let id = fixture.csi.made_snapshot(request).snapshot_id;
        let exchanged = matches!(
            step,
            Step::RepackExchanged | Step::RepackParentsSynced | Step::RepackOldMoved
        );
        let said = if exchanged {
            let _took = packing::wait(&pool, &id);
            // The pool is opened again, by whoever asks for it next.
            wait::until("ready again", packing::LIMIT, || fixture.csi.is_ready());
            "the pool is open"
        } else {
            "could not be compressed"
        };
        wait::until(&fault, packing::LIMIT, || {
            fixture.server.log_text().contains(said)
        });
        assert_eq!(restored(&fixture, &id), digest, "{fault}");
        fixture.server.kill();
        fixture.server.start_as(healthy);
        fixture.server.wait_ready();
        fixture.reconnect();
        let _took = packing::wait(&pool, &id);
        wait::until("tidy", packing::LIMIT, || is_tidy(&pool));
        assert_eq!(restored(&fixture, &id), digest, "{fault}, later");
    }
}

#[test]
fn a_full_pool_leaves_a_snapshot_uncompressed_and_usable() {
    // Room for the volume and for one snapshot, not for a second image of what does not get smaller.
    let fixture = Fixture::sized(FsKind::Xfs, 700 * MIB);
    let noise = content::pattern("noise", 250 << 20);
    let id = fixture
        .csi
        .made_volume(volume("source", 256 * MIB, block()))
        .volume_id;
    content::write_at(&fixture.image(&id), 0, &noise);
    let digest = content::digest(&fixture.image(&id));
    let request = compressed_snapshot("cut", &id);
    let cut = fixture.csi.made_snapshot(request).snapshot_id;
    wait::until("it is given up", packing::LIMIT, || {
        fixture
            .server
            .log_text()
            .contains("could not be compressed")
    });
    assert_eq!(packing::of(&fixture.pool(), &cut), Some(Packing::Wanted));
    accepted(fixture.csi.delete(&id));
    wait::until("it is freed", packing::LIMIT, || is_tidy(&fixture.pool()));
    let request = from_snapshot(volume("restored", 256 * MIB, block()), &cut);
    let restored = fixture.csi.made_volume(request).volume_id;
    assert_eq!(content::digest(&fixture.image(&restored)), digest);
}

#[test]
fn compressed_data_that_the_disk_changed_is_not_restored_and_stays() {
    let fixture = Fixture::on(FsKind::Xfs);
    let (source, digest) = filled(&fixture, "source");
    let request = compressed_snapshot("cut", &source);
    let id = fixture.csi.made_snapshot(request).snapshot_id;
    let _took = packing::wait(&fixture.pool(), &id);
    let data = Record::read(&records::of_snapshot(&fixture.pool(), &id)).number("data_offset");
    let image = File::options()
        .read(true)
        .write(true)
        .open(fixture.snapshot_file(&id))
        .unwrap();
    let mut byte = [0];
    image.read_exact_at(&mut byte, data + 40).unwrap();
    image.write_all_at(&[byte[0] ^ 1], data + 40).unwrap();
    let request = || from_snapshot(volume("restored", BYTES, block()), &id);
    let status = refused(fixture.csi.create_volume(request()), Code::DataLoss);
    assert!(status.message().contains("compressed data"), "{status:?}");
    let check = fixture.vdctl(&["pool", "check"]);
    assert!(check.code == Some(1) && check.out.contains(&id), "{check}");
    image.write_all_at(&byte, data + 40).unwrap();
    let restored = fixture.csi.made_volume(request()).volume_id;
    assert_eq!(content::digest(&fixture.image(&restored)), digest);
}

#[test]
fn what_was_to_be_compressed_when_the_server_stopped_is_compressed_by_the_next_one() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let (source, digest) = filled(&fixture, "source");
    let healthy = fixture.server.setup().clone();
    fixture.server.kill();
    fixture
        .server
        .start_as(healthy.clone().with_fault("repack.reserved:enospc"));
    fixture.server.wait_ready();
    fixture.reconnect();
    let cuts: Vec<String> = (0..3)
        .map(|number| {
            let request = compressed_snapshot(&format!("cut {number}"), &source);
            fixture.csi.made_snapshot(request).snapshot_id
        })
        .collect();
    let shown = fixture.vdctl(&["snapshot", "list"]).ok();
    assert_eq!(shown.matches("zstd, to be done").count(), 3, "{shown}");
    assert!(fixture.server.terminate().success());
    fixture.server = Server::start(healthy);
    fixture.reconnect();
    for cut in &cuts {
        let _took = packing::wait(&fixture.pool(), cut);
        assert_eq!(restored(&fixture, cut), digest);
    }
    let shown = fixture.vdctl(&["snapshot", "show", &cuts[0]]).ok();
    assert!(shown.contains("packed      zstd\n"), "{shown}");
}

#[test]
fn records_without_compression_are_of_the_first_version_and_others_of_the_second() {
    let fixture = Fixture::on(FsKind::Ext4);
    let (source, _digest) = filled(&fixture, "source");
    let plain = fixture.csi.made_snapshot(snapshot("plain", &source));
    let small = fixture
        .csi
        .made_snapshot(compressed_snapshot("small", &source));
    let line = |id: &str| {
        let text = std::fs::read_to_string(records::of_snapshot(&fixture.pool(), id)).unwrap();
        text.lines().next().unwrap().to_owned()
    };
    assert!(line(&plain.snapshot_id).starts_with("vd-snapshot 1 "));
    assert!(line(&small.snapshot_id).starts_with("vd-snapshot 2 "));
    let _took = packing::wait(&fixture.pool(), &small.snapshot_id);
    assert!(line(&small.snapshot_id).starts_with("vd-snapshot 2 "));
}
