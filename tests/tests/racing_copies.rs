//! Where blocks are not shared, a snapshot is a copy that races with whoever writes. It is an error, or exactly what was on
//! the disk at one moment; whatever happens to the server or to the power in the middle of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tests::chance::{Random, Rounds, seed};
use tests::client::{accepted, refused, shown};
use tests::fixture::Fixture;
use tests::kubelet::Attachment;
use tests::scratch_fs::{FsKind, GIB, MIB, ScratchFs};
use tests::small_disk::SmallDisk;
use tests::writer::{self, Layout, Numbers, THREADS, Writer};
use tests::{content, csi, packing, requests, wait};
use tonic::{Code, Status};

/// Many chunks of a copy, so that there is a middle.
const DISK: u64 = 48 * MIB;
const RACES: usize = 100;
/// So many races at least have to meet a copy in its middle.
const MET: usize = 10;
const KILLS: usize = 8;
const POWER_CUTS: usize = 6;

/// An ext4 pool in memory: what is raced with is our copy, not a disk.
fn in_memory() -> (SmallDisk, Fixture) {
    let disk = SmallDisk::new(3 * GIB);
    let fs = ScratchFs::on_disk(disk.path(), FsKind::Ext4, 3 * GIB);
    let fixture = Fixture::with_fs(fs, |setup| setup);
    (disk, fixture)
}

/// A published device that was written all over.
fn written(fixture: &Fixture, name: &str) -> (Attachment, Writer) {
    let used = fixture.published(name, DISK, &requests::block());
    content::write_at(&used.target, 0, &vec![0; usize::try_from(DISK).unwrap()]);
    let writer = Writer::start(&used.target, DISK);
    writer.advance(50);
    (used, writer)
}

/// Restores a snapshot and holds it against what the writer was told.
#[track_caller]
fn is_one_moment(fixture: &Fixture, cut: &str, before: Numbers, after: Numbers) -> Numbers {
    let request = requests::volume("restored", DISK, requests::block());
    let request = requests::from_snapshot(request, cut);
    let restored = fixture.csi.made_volume(request).volume_id;
    let image = fixture.image(&restored);
    let found = writer::verify_between(&image, Layout::new(DISK), before, after)
        .unwrap_or_else(|why| panic!("{cut}: {why}"));
    accepted(fixture.csi.delete(&restored));
    found
}

fn cut(fixture: &Fixture, name: &str, volume: &str) -> Result<csi::Snapshot, Status> {
    let answer = fixture
        .csi
        .create_snapshot(requests::snapshot(name, volume))?;
    Ok(answer.snapshot.expect("the answer holds a snapshot"))
}

/// How long a copy takes that nobody disturbs. The writer has to stand still.
fn usual_time(fixture: &Fixture, volume: &str) -> Duration {
    let times = (0..3).map(|number| {
        let started = Instant::now();
        let cut = cut(fixture, &format!("undisturbed {number}"), volume).unwrap();
        let took = started.elapsed();
        accepted(fixture.csi.delete_cut(&cut.snapshot_id));
        took
    });
    times.min().unwrap()
}

/// Waits for any part of the time that a copy takes, or a little longer.
fn nap(random: &mut Random, usual: Duration) {
    let longest = u64::try_from(usual.as_micros()).unwrap() * 6 / 5;
    std::thread::sleep(Duration::from_micros(random.within(0..longest.max(1))));
}

/// How often the server has said that it saw a write in a copy.
fn disturbed(fixture: &Fixture) -> usize {
    let log = fixture.server.log_text();
    log.matches("the copy was disturbed").count()
}

/// What the writer does while a copy is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Race {
    /// It stands still from before until after.
    Still,
    /// It begins to write at some moment.
    Begins,
    /// It writes one block at some moment, and no other.
    One,
    /// It stops writing at some moment.
    Ends,
    /// It writes all the time.
    Writes,
}

const ALL_RACES: [Race; 5] = [
    Race::Still,
    Race::Begins,
    Race::One,
    Race::Ends,
    Race::Writes,
];

#[test]
fn a_copy_that_races_with_a_writer_is_an_error_or_one_moment() {
    let (_disk, fixture) = in_memory();
    let (used, writer) = written(&fixture, "raced");
    let mut random = Random::new(seed("racing copies"));
    writer.pause();
    let usual = usual_time(&fixture, &used.volume_id);
    writer.go_on();
    let (mut made, mut refusals, mut met) = (0, 0, 0);
    for number in Rounds::new(RACES) {
        let race = ALL_RACES[number % ALL_RACES.len()];
        writer.advance(3);
        let from_rest = matches!(race, Race::Still | Race::Begins | Race::One);
        if from_rest {
            writer.pause();
        }
        let before = writer.acknowledged();
        let disturbed_before = disturbed(&fixture);
        let name = format!("cut {number}");
        let answer = std::thread::scope(|scope| {
            let asked = scope.spawn(|| cut(&fixture, &name, &used.volume_id));
            nap(&mut random, usual);
            match race {
                Race::Begins => writer.go_on(),
                Race::One => writer.write_one(),
                Race::Ends => writer.pause(),
                Race::Still | Race::Writes => {}
            }
            asked.join().expect("no panic")
        });
        let after = writer.issued();
        // Nothing was written when it began, so it was met later.
        met += usize::from(from_rest && disturbed(&fixture) > disturbed_before);
        match answer {
            Ok(cut) => {
                made += 1;
                assert!(cut.ready_to_use);
                let found = is_one_moment(&fixture, &cut.snapshot_id, before, after);
                if race == Race::Still {
                    assert_eq!(found, before);
                }
                accepted(fixture.csi.delete_cut(&cut.snapshot_id));
            }
            Err(status) => {
                refusals += 1;
                is_refused(race, &status);
            }
        }
        assert_eq!(fixture.csi.snapshot_ids(), Vec::<String>::new());
        writer.go_on();
    }
    eprintln!(
        "{made} copies were one moment, {refusals} were refused, 0 torn; {met} were met in the middle of {usual:?}"
    );
    assert!(met >= MET, "the middle of a copy was met {met} times");
    let last = writer.stop();
    assert_eq!(writer::verify(&used.target, Layout::new(DISK)), Ok(last));
    used.down_and_delete(&fixture.csi);
}

/// Somebody wrote in both tries, and the answer says what to do.
#[track_caller]
fn is_refused(race: Race, status: &Status) {
    // One block is in the first try or in the second, or in none.
    let alone = matches!(race, Race::Still | Race::One);
    let said = shown(status);
    assert!(!alone, "{race:?}: {said}");
    assert_eq!(status.code(), Code::FailedPrecondition, "{said}");
    assert!(status.message().contains("hold it still"), "{said}");
}

/// The snapshot is there whole, or not at all.
#[track_caller]
fn whole_or_absent(fixture: &Fixture, before: Numbers, after: Numbers) -> bool {
    let cuts = fixture.csi.snapshot_ids();
    for cut in &cuts {
        let _found = is_one_moment(fixture, cut, before, after);
        accepted(fixture.csi.delete_cut(cut));
    }
    let tmp = std::fs::read_dir(fixture.pool().join("tmp")).unwrap();
    assert_eq!(tmp.count(), 0, "left in tmp/");
    !cuts.is_empty()
}

#[test]
fn a_copy_whose_server_is_killed_in_the_middle_is_whole_or_absent_and_made_anew() {
    let (_disk, mut fixture) = in_memory();
    let (used, writer) = written(&fixture, "killed");
    let mut random = Random::new(seed("killed copies"));
    writer.pause();
    let usual = usual_time(&fixture, &used.volume_id);
    let mut whole = 0;
    for number in Rounds::new(KILLS) {
        writer.go_on();
        writer.advance(3);
        // In every other round it goes on writing, for some of the time.
        let writes = number % 2 == 1;
        if !writes {
            writer.pause();
        }
        let before = writer.acknowledged();
        let name = format!("cut {number}");
        let (client, volume) = (fixture.server.client(), used.volume_id.clone());
        let request = requests::snapshot(&name, &volume);
        let asked = std::thread::spawn(move || drop(client.create_snapshot(request)));
        if writes {
            nap(&mut random, usual);
            writer.pause();
        }
        nap(&mut random, usual);
        fixture.server.kill();
        asked.join().unwrap();
        // Who writes from now on is in no snapshot that was made before.
        let after = writer.issued();
        fixture.server.start_again();
        fixture.reconnect();
        whole += usize::from(whole_or_absent(&fixture, before, after));
        let before = writer.acknowledged();
        let again = cut(&fixture, &name, &used.volume_id).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(
            is_one_moment(&fixture, &again.snapshot_id, before, before),
            before
        );
        accepted(fixture.csi.delete_cut(&again.snapshot_id));
    }
    eprintln!("{whole} were whole already when the server was killed, 0 torn");
    writer.go_on();
    let last = writer.stop();
    assert_eq!(writer::verify(&used.target, Layout::new(DISK)), Ok(last));
    used.down_and_delete(&fixture.csi);
}

#[test]
fn a_copy_in_which_the_power_goes_is_whole_or_absent() {
    let (_disk, mut fixture) = in_memory();
    let mut random = Random::new(seed("copies without power"));
    let mut whole = 0;
    for number in Rounds::new(POWER_CUTS) {
        let (used, writer) = written(&fixture, &format!("volume {number}"));
        writer.pause();
        let usual = usual_time(&fixture, &used.volume_id);
        // In every third round it goes on writing.
        if number % 3 == 2 {
            writer.go_on();
        }
        let before = writer.acknowledged();
        // What the guest has synced is what it may count on.
        std::fs::File::open(&used.target)
            .unwrap()
            .sync_all()
            .unwrap();
        let name = format!("cut {number}");
        let (client, volume) = (fixture.server.client(), used.volume_id.clone());
        let (tell, told) = mpsc::channel();
        let asked = std::thread::spawn(move || {
            let answer = client.create_snapshot(requests::snapshot(&name, &volume));
            tell.send(answer.is_ok()).unwrap();
        });
        nap(&mut random, usual);
        pool::sys::shutdown_xfs(&std::fs::File::open(fixture.pool()).unwrap()).unwrap();
        let acknowledged = told.try_recv().unwrap_or(false);
        fixture.server.kill();
        asked.join().unwrap();
        let after = writer.issued();
        drop(writer.stop_with_result());
        fixture.reboot();
        let there = whole_or_absent(&fixture, before, after);
        assert!(there || !acknowledged, "the acknowledged snapshot is gone");
        whole += usize::from(there);
        accepted(fixture.csi.delete(&used.volume_id));
    }
    eprintln!("{whole} were whole when the power went, 0 torn");
}

#[test]
fn a_pod_that_begins_or_ends_to_use_a_volume_does_not_wait_for_a_copy_of_it() {
    let (_disk, fixture) = in_memory();
    let (used, writer) = written(&fixture, "wanted");
    let _last = writer.stop();
    accepted(used.unpublish(&fixture.csi));
    accepted(used.unstage(&fixture.csi));
    let mut random = Random::new(seed("wanted volumes"));
    let usual = usual_time(&fixture, &used.volume_id);
    let (mut made, mut given_up) = (0, 0);
    for number in 0..10 {
        let name = format!("cut {number}");
        let answer = std::thread::scope(|scope| {
            let asked = scope.spawn(|| cut(&fixture, &name, &used.volume_id));
            nap(&mut random, usual);
            accepted(used.stage(&fixture.csi));
            accepted(used.unstage(&fixture.csi));
            asked.join().expect("no panic")
        });
        match answer {
            Ok(cut) => {
                made += 1;
                same(&fixture, &cut.snapshot_id, &fixture.image(&used.volume_id));
                accepted(fixture.csi.delete_cut(&cut.snapshot_id));
            }
            Err(status) => {
                given_up += 1;
                // Ended by the pod, or not begun because of it.
                assert_eq!(status.code(), Code::Aborted, "{}", shown(&status));
            }
        }
    }
    eprintln!("{made} copies were faster than the pod, {given_up} were given up");
    accepted(fixture.csi.delete(&used.volume_id));
}

#[track_caller]
fn same(fixture: &Fixture, cut: &str, source: &Path) {
    let request = requests::volume("restored", DISK, requests::block());
    let request = requests::from_snapshot(request, cut);
    let restored = fixture.csi.made_volume(request).volume_id;
    assert_eq!(
        content::digest(&fixture.image(&restored)),
        content::digest(source)
    );
    accepted(fixture.csi.delete(&restored));
}

#[test]
fn a_clone_of_a_published_device_is_made_when_nobody_writes_and_refused_else() {
    let (_disk, fixture) = in_memory();
    let (used, writer) = written(&fixture, "cloned");
    let request = requests::volume("clone", DISK, requests::block());
    let request = requests::from_volume(request, &used.volume_id);
    refused(
        fixture.csi.create_volume(request.clone()),
        Code::FailedPrecondition,
    );
    writer.pause();
    let before = writer.acknowledged();
    let clone = fixture.csi.made_volume(request).volume_id;
    let found = writer::verify_between(&fixture.image(&clone), Layout::new(DISK), before, before);
    assert_eq!(found, Ok(before));
    assert_eq!(found.unwrap().len(), THREADS);
    writer.go_on();
    let _last = writer.stop();
    accepted(fixture.csi.delete(&clone));
    used.down_and_delete(&fixture.csi);
}

#[test]
fn a_snapshot_is_not_deleted_while_it_is_restored_and_the_restore_is_whole() {
    let (_disk, fixture) = in_memory();
    let (used, writer) = written(&fixture, "source");
    let _last = writer.stop();
    let digest = content::digest(&used.target);
    let (mut put_off, mut deleted) = (0, 0);
    for number in 0..10 {
        let cut = cut(&fixture, &format!("cut {number}"), &used.volume_id).unwrap();
        let cut = cut.snapshot_id;
        let restored = std::thread::scope(|scope| {
            let restored = scope.spawn(|| {
                let request = requests::volume("restored", DISK, requests::block());
                let request = requests::from_snapshot(request, &cut);
                fixture.server.client().made_volume(request).volume_id
            });
            // As soon as something is made, and again until it is deleted.
            let tmp = fixture.pool().join("tmp");
            while !restored.is_finished() && std::fs::read_dir(&tmp).unwrap().next().is_none() {}
            wait::until("it is deleted", packing::LIMIT, || {
                let deletion = fixture.csi.delete_cut(&cut);
                if let Err(status) = &deletion {
                    put_off += 1;
                    assert_eq!(status.code(), Code::Aborted, "{}", shown(status));
                }
                deletion.is_ok()
            });
            deleted += 1;
            restored.join().expect("no panic")
        });
        assert_eq!(fixture.csi.snapshot_ids(), Vec::<String>::new());
        assert_eq!(content::digest(&fixture.image(&restored)), digest);
        accepted(fixture.csi.delete(&restored));
    }
    eprintln!("{deleted} were deleted, {put_off} times that was put off");
    assert!(put_off > 0, "no deletion met a restore");
    used.down_and_delete(&fixture.csi);
}
