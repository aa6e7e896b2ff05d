//! Snapshots whose data has a digest: a byte that changes on the disk is found, exactly that snapshot is marked, and nothing
//! is restored from it. Everything else goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::path::Path;
use std::time::Duration;

use pool::fault::{Operation, Step};
use serde_json::Value;
use tests::client::{accepted, refused};
use tests::damage::{self, findings};
use tests::fixture::Fixture;
use tests::integrity::{self, digest_of_disk, digested, flip, wait_for_digest, wait_for_mark};
use tests::scratch_fs::{FsKind, GIB, MIB};
use tests::tools::Ran;
use tests::{binaries, content, kubelet, packing, requests, tools, wait};
use tonic::Code;

const SIZE: u64 = 16 * MIB;

/// A volume with data at its ends and in between, and holes.
fn source(fixture: &Fixture, name: &str) -> String {
    let request = requests::volume(name, SIZE, requests::block());
    let id = fixture.csi.made_volume(request).volume_id;
    let image = fixture.image(&id);
    for (at, length) in [(0, MIB), (5 * MIB + 4096, 100_000), (SIZE - 4096, 4096)] {
        let length = usize::try_from(length).unwrap();
        content::write_at(&image, at, &content::pattern(name, length));
    }
    id
}

/// A snapshot of it whose digest is made.
fn cut(fixture: &Fixture, name: &str, volume: &str) -> String {
    let cut = fixture.csi.made_snapshot(digested(name, volume));
    let _digest = wait_for_digest(&fixture.pool(), &cut.snapshot_id);
    cut.snapshot_id
}

fn data_offset(fixture: &Fixture, cut: &str) -> u64 {
    integrity::record(&fixture.pool(), cut).data_offset
}

/// `vdctl snapshot verify`, with the server's socket.
fn verify(fixture: &Fixture, cut: &str) -> (Option<i32>, Value) {
    let socket = format!("unix://{}", fixture.server.setup().socket.display());
    let ran = fixture.vdctl(&["snapshot", "verify", cut, "-o", "json", "--agent", &socket]);
    let report = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran}"));
    (ran.code, report)
}

fn restore(fixture: &Fixture, name: &str, cut: &str) -> Result<String, tonic::Status> {
    let request = requests::volume(name, SIZE, requests::block());
    let request = requests::from_snapshot(request, cut);
    let made = fixture.csi.create_volume(request)?;
    Ok(made.volume.unwrap().volume_id)
}

/// It is restored, to what its source holds.
#[track_caller]
fn restores(fixture: &Fixture, cut: &str, source: &str) {
    let restored = restore(fixture, "restored", cut).unwrap_or_else(|why| panic!("{cut}: {why}"));
    assert_eq!(
        content::digest(&fixture.image(&restored)),
        content::digest(&fixture.image(source))
    );
    accepted(fixture.csi.delete(&restored));
}

fn is_ready(fixture: &Fixture, cut: &str) -> bool {
    accepted(damage::snapshot(&fixture.csi, cut)).ready_to_use
}

#[test]
fn a_digest_is_that_of_the_disk_and_is_made_for_those_only_whose_class_asks_for_it() {
    for kind in FsKind::ALL {
        let fixture = Fixture::on(kind);
        let source = source(&fixture, "source");
        let plain = requests::snapshot("plain", &source);
        let plain = fixture.csi.made_snapshot(plain).snapshot_id;
        let cut = fixture
            .csi
            .made_snapshot(digested("cut", &source))
            .snapshot_id;
        let found = wait_for_digest(&fixture.pool(), &cut);
        assert_eq!(found, digest_of_disk(&fixture.image(&source)), "{kind:?}");
        let of_plain = integrity::record(&fixture.pool(), &plain);
        assert_eq!((of_plain.checksum, of_plain.damage), (None, None));
        for (cut, data) in [(&cut, true), (&plain, false)] {
            let (code, report) = verify(&fixture, cut);
            assert_eq!(code, Some(0), "{report}");
            assert_eq!(report["verdict"], "sound");
            assert_eq!(report["data_checked"], data);
        }
        for cut in [cut, plain] {
            accepted(fixture.csi.delete_cut(&cut));
        }
        accepted(fixture.csi.delete(&source));
    }
}

#[test]
fn the_same_name_with_another_checksum_is_another_snapshot() {
    let fixture = Fixture::on(FsKind::Xfs);
    let source = source(&fixture, "source");
    let with = cut(&fixture, "with", &source);
    refused(
        fixture
            .csi
            .create_snapshot(requests::snapshot("with", &source)),
        Code::AlreadyExists,
    );
    accepted(fixture.csi.create_snapshot(digested("with", &source)));
    let mut unknown = requests::snapshot("unknown", &source);
    let _none = unknown
        .parameters
        .insert("checksum".to_owned(), "md5".to_owned());
    let why = refused(fixture.csi.create_snapshot(unknown), Code::InvalidArgument);
    assert!(why.message().contains("none and blake3"), "{why}");
    accepted(fixture.csi.delete_cut(&with));
    accepted(fixture.csi.delete(&source));
}

#[test]
fn a_snapshot_is_compressed_after_its_digest_was_made_and_keeps_it() {
    let fixture = Fixture::on(FsKind::Xfs);
    let source = source(&fixture, "source");
    let mut request = digested("both", &source);
    let _none = request
        .parameters
        .insert("compression".to_owned(), "zstd".to_owned());
    let cut = fixture.csi.made_snapshot(request).snapshot_id;
    let _took = packing::wait(&fixture.pool(), &cut);
    let record = integrity::record(&fixture.pool(), &cut);
    let digest = record.checksum.and_then(|checksum| checksum.digest);
    assert_eq!(digest, Some(digest_of_disk(&fixture.image(&source))));
    let (code, report) = verify(&fixture, &cut);
    assert_eq!((code, &report["data_checked"]), (Some(0), &true.into()));
    restores(&fixture, &cut, &source);

    let (file, place) = (fixture.snapshot_file(&cut), record.data_offset + 1000);
    flip(&file, place);
    let (code, report) = verify(&fixture, &cut);
    assert_eq!((code, &report["verdict"]), (Some(1), &"damaged".into()));
    let why = restore(&fixture, "never", &cut).unwrap_err();
    assert_eq!(why.code(), Code::DataLoss, "{why}");
    flip(&file, place);
    let (code, report) = verify(&fixture, &cut);
    assert_eq!(code, Some(0), "{report}");
    restores(&fixture, &cut, &source);
    accepted(fixture.csi.delete_cut(&cut));
    accepted(fixture.csi.delete(&source));
}

#[test]
fn a_byte_flipped_anywhere_in_the_data_is_found_and_exactly_that_snapshot_is_marked() {
    let fixture = Fixture::on(FsKind::Xfs);
    let source = source(&fixture, "source");
    let (victim, other) = (
        cut(&fixture, "victim", &source),
        cut(&fixture, "other", &source),
    );
    let (file, data) = (
        fixture.snapshot_file(&victim),
        data_offset(&fixture, &victim),
    );
    // In data, at the ends of it, between data, and in what was a hole.
    for at in [0, 77_777, MIB - 1, 5 * MIB, 9 * MIB + 1, SIZE - 1] {
        flip(&file, data + at);
        let (code, report) = verify(&fixture, &victim);
        assert_eq!(code, Some(1), "byte {at}: {report}");
        assert_eq!(
            (&report["verdict"], &report["marked"]),
            (&Value::from("damaged"), &Value::from(true)),
            "byte {at}: {report}"
        );
        let (code, report) = verify(&fixture, &other);
        assert_eq!((code, &report["marked"]), (Some(0), &Value::from(false)));
        assert!(!is_ready(&fixture, &victim) && is_ready(&fixture, &other));
        let why = refused(restore(&fixture, "refused", &victim), Code::DataLoss);
        assert!(why.message().contains("is damaged"), "{why}");
        refused(
            fixture.csi.create_snapshot(digested("victim", &source)),
            Code::DataLoss,
        );
        restores(&fixture, &other, &source);
        let found = findings(&fixture);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [victim.as_str()]);
        // Repaired: whoever asks again gets the mark away.
        flip(&file, data + at);
        refused(restore(&fixture, "refused", &victim), Code::DataLoss);
        let (code, report) = verify(&fixture, &victim);
        assert_eq!((code, &report["marked"]), (Some(0), &Value::from(false)));
        if at == MIB - 1 {
            restores(&fixture, &victim, &source);
        }
    }
    for cut in [victim, other] {
        accepted(fixture.csi.delete_cut(&cut));
    }
    accepted(fixture.csi.delete(&source));
}

#[test]
fn a_scrub_finds_a_flipped_byte_and_the_mark_outlives_a_restart() {
    let mut fixture = Fixture::with(FsKind::Xfs, 24 * GIB, |mut setup| {
        setup.arguments = vec!["--scrub-period=1s".to_owned()];
        setup
    });
    let source = source(&fixture, "source");
    let (victim, other) = (
        cut(&fixture, "victim", &source),
        cut(&fixture, "other", &source),
    );
    flip(
        &fixture.snapshot_file(&victim),
        data_offset(&fixture, &victim) + 5,
    );
    let reason = wait_for_mark(&fixture.pool(), &victim);
    assert!(reason.contains("the data has changed"), "{reason}");
    fixture.crash_and_restart();
    assert_eq!(wait_for_mark(&fixture.pool(), &victim), reason);
    refused(restore(&fixture, "refused", &victim), Code::DataLoss);
    // The other one is looked at again and again.
    let seen = || {
        let record = integrity::record(&fixture.pool(), &other);
        assert_eq!(record.damage, None);
        record.checksum.unwrap().verified.unwrap()
    };
    let before = seen();
    tests::wait::until("the next scrub", Duration::from_secs(60), || {
        seen() > before
    });
    restores(&fixture, &other, &source);
    for cut in [victim, other] {
        accepted(fixture.csi.delete_cut(&cut));
    }
    accepted(fixture.csi.delete(&source));
}

/// A server that fails at a step, as long as it runs.
fn start_failing(fixture: &mut Fixture, step: Step, error: &str) {
    let healthy = fixture.server.setup().clone();
    let fault = format!("{}:{error}", step.name());
    fixture.server.kill();
    fixture.server.start_as(healthy.with_fault(&fault));
    fixture.server.wait_ready();
    fixture.reconnect();
}

#[test]
fn a_step_of_a_digest_a_scrub_or_a_mark_that_fails_is_told_and_done_later() {
    let operations = [
        Operation::DigestSnapshot,
        Operation::ScrubSnapshot,
        Operation::MarkSnapshot,
    ];
    let steps = Step::ALL
        .iter()
        .filter(|step| operations.contains(&step.operation()));
    for (number, step) in steps.enumerate() {
        let error = ["eio", "enospc"][number % 2];
        let what = format!("{}: {error}", step.name());
        let mut fixture = Fixture::on(FsKind::Xfs);
        let source = source(&fixture, "source");
        let place = |fixture: &Fixture, id: &str| data_offset(fixture, id) + 77_777;
        let id = if step.operation() == Operation::DigestSnapshot {
            start_failing(&mut fixture, *step, error);
            let made = fixture.csi.made_snapshot(digested("cut", &source));
            wait::until(&what, packing::LIMIT, || {
                fixture.server.log_text().contains("cannot be read")
            });
            made.snapshot_id
        } else {
            let id = cut(&fixture, "cut", &source);
            start_failing(&mut fixture, *step, error);
            if step.operation() == Operation::MarkSnapshot {
                flip(&fixture.snapshot_file(&id), place(&fixture, &id));
            }
            let uuid = integrity::pool_uuid(&fixture.pool());
            let status = fixture.csi.verify_snapshot(&uuid, &id).unwrap_err();
            let fits = [Code::Internal, Code::ResourceExhausted];
            assert!(fits.contains(&status.code()), "{what}: {status:?}");
            id
        };
        // It is still one snapshot, whole, and the others can be made.
        let restored = restore(&fixture, "meanwhile", &id);
        let marked = integrity::record(&fixture.pool(), &id).damage.is_some();
        assert_eq!(restored.is_err(), marked, "{what}");
        if let Ok(restored) = restored {
            accepted(fixture.csi.delete(&restored));
        }
        // As shipped, without the fault.
        fixture.crash_and_restart();
        let digest = wait_for_digest(&fixture.pool(), &id);
        assert_eq!(digest, digest_of_disk(&fixture.image(&source)), "{what}");
        if step.operation() == Operation::MarkSnapshot {
            let (code, report) = verify(&fixture, &id);
            assert_eq!((code, &report["marked"]), (Some(1), &true.into()), "{what}");
            refused(restore(&fixture, "never", &id), Code::DataLoss);
            flip(&fixture.snapshot_file(&id), place(&fixture, &id));
        }
        let (code, report) = verify(&fixture, &id);
        assert_eq!(
            (code, &report["marked"]),
            (Some(0), &false.into()),
            "{what}"
        );
        restores(&fixture, &id, &source);
        accepted(fixture.csi.delete_cut(&id));
        accepted(fixture.csi.delete(&source));
    }
}

#[test]
fn without_a_server_vdctl_marks_by_itself_and_the_next_server_knows() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let source = source(&fixture, "source");
    let (victim, plain) = (
        cut(&fixture, "victim", &source),
        requests::snapshot("plain", &source),
    );
    let plain = fixture.csi.made_snapshot(plain).snapshot_id;
    let data = data_offset(&fixture, &victim);
    assert!(fixture.server.terminate().success());
    flip(&fixture.snapshot_file(&victim), data);
    // In the L2 table: damage that needs no digest of the data to be found.
    flip(&fixture.snapshot_file(&plain), data - 65_536 + 3);
    for cut in [&victim, &plain] {
        let ran = offline(&fixture, &["snapshot", "verify", cut]);
        assert_eq!(ran.code, Some(1), "{ran}");
        assert!(ran.out.contains("marked   as damaged"), "{ran}");
    }
    let shown = offline(&fixture, &["snapshot", "show", &victim]);
    assert!(shown.out.contains("DAMAGED since"), "{shown}");
    fixture.server.start_again();
    fixture.reconnect();
    for cut in [&victim, &plain] {
        refused(restore(&fixture, "refused", cut), Code::DataLoss);
        accepted(fixture.csi.delete_cut(cut));
    }
    let gone = offline(&fixture, &["snapshot", "verify", &victim]);
    assert_eq!(gone.code, Some(2), "{gone}");
    accepted(fixture.csi.delete(&source));
}

fn offline(fixture: &Fixture, arguments: &[&str]) -> Ran {
    let pool = kubelet::text(&fixture.pool());
    tools::attempt(
        binaries::shipped(),
        &[arguments, &["--pool", &pool]].concat(),
    )
}

#[test]
fn who_owns_another_pool_is_not_believed() {
    let fixture = Fixture::on(FsKind::Xfs);
    let source = source(&fixture, "source");
    let cut = cut(&fixture, "cut", &source);
    let another = "00000000-0000-4000-8000-000000000000";
    refused(
        fixture.csi.verify_snapshot(another, &cut),
        Code::Unavailable,
    );
    let ours = integrity::pool_uuid(&fixture.pool());
    let answer = accepted(fixture.csi.verify_snapshot(&ours, &cut));
    assert!(answer.data_checked && answer.problems.is_empty());
    accepted(fixture.csi.delete_cut(&cut));
    refused(fixture.csi.verify_snapshot(&ours, &cut), Code::NotFound);
    accepted(fixture.csi.delete(&source));
}

/// What is used of the pool's filesystem, in bytes.
fn used(fixture: &Fixture) -> u64 {
    let disk = nix::sys::statvfs::statvfs(&fixture.pool()).unwrap();
    (disk.blocks() - disk.blocks_free()) * disk.fragment_size()
}

fn in_trash(fixture: &Fixture) -> usize {
    std::fs::read_dir(fixture.pool().join("trash"))
        .unwrap()
        .count()
}

/// Whether the server has the file open.
fn is_open(fixture: &Fixture, file: &Path) -> bool {
    let descriptors = format!("/proc/{}/fd", fixture.server.pid());
    let mut opened = std::fs::read_dir(descriptors).unwrap();
    opened.any(|one| {
        let target = std::fs::read_link(one.unwrap().path());
        target.is_ok_and(|target| target == file)
    })
}

#[test]
fn a_snapshot_whose_data_is_being_read_is_deleted_at_once_with_its_space_and_a_stop_does_not_wait_for_it()
 {
    let mut fixture = Fixture::with(FsKind::Xfs, 24 * GIB, |mut setup| {
        // A MiB takes 17 minutes: whatever is read now is still being read when the test ends.
        setup.arguments = vec!["--scrub-rate=1KiB".to_owned()];
        setup
    });
    let source = source(&fixture, "source");
    let [first, second] = ["first", "second"].map(|name| {
        // The snapshot alone has these blocks afterwards.
        let image = fixture.image(&source);
        content::write_at(&image, 8 * MIB, &content::pattern(name, 8 << 20));
        let made = fixture.csi.made_snapshot(digested(name, &source));
        content::write_at(&image, 8 * MIB, &[1; 8 << 20]);
        made.snapshot_id
    });
    let first_image = fixture.snapshot_file(&first);
    wait::until("it is read", packing::LIMIT, || {
        is_open(&fixture, &first_image)
    });
    let before = used(&fixture);
    accepted(fixture.csi.delete_cut(&first));
    wait::until("its space is free", packing::LIMIT, || {
        used(&fixture) + 7 * MIB <= before && in_trash(&fixture) == 0
    });
    let second_image = fixture.snapshot_file(&second);
    wait::until("the next one is read", packing::LIMIT, || {
        is_open(&fixture, &second_image)
    });
    assert!(fixture.server.terminate().success());
    let log = fixture.server.log_text();
    assert!(!log.contains("work is still running"), "{log}");
    let record = integrity::record(&fixture.pool(), &second);
    assert_eq!(record.checksum.unwrap().digest, None);
    let mut setup = fixture.server.setup().clone();
    setup.arguments.clear();
    fixture.server.start_as(setup);
    fixture.server.wait_ready();
    fixture.reconnect();
    let _redone = wait_for_digest(&fixture.pool(), &second);
    accepted(fixture.csi.delete_cut(&second));
    accepted(fixture.csi.delete(&source));
}
