//! The pool on a real directory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use pool::record::{Provisioning, Timestamp, VolumeMode, VolumeRecord};
use pool::size::MIB;
use pool::{
    Comparison, ErrorKind, NewSnapshot, NewVolume, Options, Pool, SnapshotContent, SnapshotId,
    VolumeId,
};
use tempfile::TempDir;

fn mk_pool() -> (TempDir, Pool) {
    let folder = tempfile::tempdir().unwrap();
    pool::init(folder.path(), "n1").unwrap();
    let pool = open(folder.path());
    (folder, pool)
}

fn open(path: &Path) -> Pool {
    Pool::open(path, &Options::default()).unwrap()
}

fn mk_volume(name: &str, mib: u64) -> NewVolume {
    NewVolume {
        id: VolumeId::from_name(name),
        name: name.to_owned(),
        requested_bytes: mib * MIB,
        size_bytes: mib * MIB,
        provisioning: Provisioning::Thin,
        mode: VolumeMode::Block,
        access_modes: vec!["SINGLE_NODE_WRITER".to_owned()],
        source: None,
        lineage: None,
    }
}

fn mk_snapshot(name: &str, source: &VolumeRecord) -> NewSnapshot {
    NewSnapshot {
        id: SnapshotId::from_name(name),
        name: name.to_owned(),
        source: source.clone(),
        shares_blocks: false,
        compression: None,
        checksum: None,
    }
}

fn content(image: &fs::File) -> pool::Result<(SnapshotContent, Comparison)> {
    use pool::Context;
    let mut image = image;
    image.write_all(b"image").during("write")?;
    let content = SnapshotContent {
        created: Timestamp::now(),
        virtual_bytes: MIB,
        charge_bytes: 4096,
        data_offset: 0,
        metadata_digest: String::new(),
        extents: 1,
        stall_us: 0,
    };
    Ok((content, Box::new(|_image| Ok(()))))
}

fn count(folder: &Path, name: &str) -> usize {
    fs::read_dir(folder.join(name)).unwrap().count()
}

#[test]
fn a_volume_is_there_after_the_pool_is_opened_again() {
    let (folder, pool) = mk_pool();
    let made = pool.create_volume(mk_volume("a", 5), |_| Ok(())).unwrap();
    drop(pool);
    let pool = open(folder.path());
    assert_eq!(pool.volume(&made.id).unwrap(), made);
    assert_eq!(
        pool.open_image(&made.id, false)
            .unwrap()
            .metadata()
            .unwrap()
            .len(),
        5 * MIB
    );
    assert_eq!(count(folder.path(), "tmp"), 0);
}

#[test]
fn a_volume_that_exists_is_not_made_again() {
    let (_folder, pool) = mk_pool();
    pool.create_volume(mk_volume("a", 1), |_| Ok(())).unwrap();
    let error = pool
        .create_volume(mk_volume("a", 1), |_| Ok(()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[test]
fn a_volume_whose_filling_fails_leaves_nothing() {
    let (folder, pool) = mk_pool();
    let before = pool.usage().unwrap().figures.volume_sizes;
    let failed = pool.create_volume(mk_volume("a", 1), |_| {
        Err(pool::Error::new(ErrorKind::Io, "no"))
    });
    assert!(failed.is_err());
    assert_eq!(
        count(folder.path(), "tmp") + count(folder.path(), "volumes"),
        0
    );
    assert_eq!(pool.usage().unwrap().figures.volume_sizes, before);
}

#[test]
fn a_deleted_volume_is_gone_at_once_and_its_bytes_with_the_trash() {
    let (folder, pool) = mk_pool();
    let made = pool.create_volume(mk_volume("a", 8), |_| Ok(())).unwrap();
    pool.open_image(&made.id, true)
        .unwrap()
        .write_all_at(&[7; 4096], MIB)
        .unwrap();
    pool.delete_volume(&made.id).unwrap();
    pool.delete_volume(&made.id).unwrap();
    assert_eq!(
        pool.volume(&made.id).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(count(folder.path(), "trash"), 1);
    pool.empty_trash().unwrap();
    assert_eq!(count(folder.path(), "trash"), 0);
}

#[test]
fn a_volume_grows_and_never_shrinks() {
    let (_folder, pool) = mk_pool();
    let made = pool.create_volume(mk_volume("a", 4), |_| Ok(())).unwrap();
    let grown = pool.expand_volume(&made.id, 9 * MIB - 5, 9 * MIB).unwrap();
    assert_eq!(
        (grown.size_bytes, grown.requested_bytes),
        (9 * MIB, 9 * MIB - 5)
    );
    let again = pool.expand_volume(&made.id, 2 * MIB, 2 * MIB).unwrap();
    assert_eq!(again.size_bytes, 9 * MIB);
    assert_eq!(
        pool.open_image(&made.id, false)
            .unwrap()
            .metadata()
            .unwrap()
            .len(),
        9 * MIB
    );
}

#[test]
fn an_expansion_that_stopped_half_way_goes_on_at_the_next_start() {
    let (folder, pool) = mk_pool();
    let made = pool.create_volume(mk_volume("a", 4), |_| Ok(())).unwrap();
    pool.update_volume(&made.id, |record| record.growing_to_bytes = Some(8 * MIB))
        .unwrap();
    drop(pool);
    let record = open(folder.path()).volume(&made.id).unwrap();
    assert_eq!(
        (record.size_bytes, record.growing_to_bytes),
        (8 * MIB, None)
    );
}

#[test]
fn a_damaged_record_is_kept_reported_and_heals() {
    let (folder, pool) = mk_pool();
    let bad = pool.create_volume(mk_volume("bad", 1), |_| Ok(())).unwrap();
    let good = pool
        .create_volume(mk_volume("good", 1), |_| Ok(()))
        .unwrap();
    drop(pool);
    let path = folder
        .path()
        .join("volumes")
        .join(bad.id.as_str())
        .join("record");
    let original = fs::read(&path).unwrap();
    let mut damaged = original.clone();
    damaged[100] ^= 1;
    fs::File::create(&path)
        .unwrap()
        .write_all(&damaged)
        .unwrap();
    let pool = open(folder.path());
    assert_eq!(pool.quarantined().len(), 1);
    assert_eq!(pool.volumes(None, 10).0.len(), 1);
    for result in [
        pool.volume(&bad.id).map(drop),
        pool.delete_volume(&bad.id),
        pool.expand_volume(&bad.id, MIB, 2 * MIB).map(drop),
    ] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Corrupt);
    }
    assert_eq!(
        pool.create_volume(mk_volume("bad", 1), |_| Ok(()))
            .unwrap_err()
            .kind(),
        ErrorKind::Conflict
    );
    pool.expand_volume(&good.id, 2 * MIB, 2 * MIB).unwrap();
    fs::File::create(&path)
        .unwrap()
        .write_all(&original)
        .unwrap();
    assert_eq!(pool.volume(&bad.id).unwrap(), bad);
    assert_eq!(
        (pool.quarantined().len(), pool.volumes(None, 10).0.len()),
        (0, 2)
    );
}

#[test]
fn what_was_removed_behind_our_back_is_forgotten_when_somebody_asks_for_it() {
    let (folder, pool) = mk_pool();
    let before = pool.usage().unwrap().figures;
    let volumes = ["a", "b", "c"].map(|name| {
        let made = pool.create_volume(mk_volume(name, 1), |_| Ok(())).unwrap();
        made.id
    });
    let damaged = pool.volume(&volumes[2]).unwrap();
    let cut = pool
        .create_snapshot(mk_snapshot("s", &damaged), content)
        .unwrap()
        .id;
    let record = |id: &VolumeId| {
        folder
            .path()
            .join("volumes")
            .join(id.as_str())
            .join("record")
    };
    fs::File::create(record(&damaged.id)).unwrap();
    drop(pool);
    let pool = open(folder.path());
    assert_eq!(pool.quarantined().len(), 1);
    let rm = |part: &str, id: &str| {
        let gone = folder.path().join(part).join(id);
        let status = std::process::Command::new("rm")
            .arg("-r")
            .arg(gone)
            .status();
        assert!(status.unwrap().success());
    };
    for id in &volumes {
        rm("volumes", id.as_str());
    }
    rm("snapshots", cut.as_str());

    pool.delete_volume(&volumes[0]).unwrap();
    assert_eq!(
        pool.volume(&volumes[1]).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    pool.delete_volume(&volumes[2]).unwrap();
    pool.delete_snapshot(&cut).unwrap();

    assert_eq!(pool.volumes(None, 10).0, []);
    assert_eq!(pool.snapshots(None, 10, |_| true).0, []);
    assert_eq!(pool.quarantined(), []);
    let after = pool.usage().unwrap().figures;
    assert_eq!(
        (after.volume_sizes, after.snapshot_charges),
        (before.volume_sizes, before.snapshot_charges)
    );
}

#[test]
fn a_volume_that_is_read_while_it_is_deleted_does_not_come_back() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    const MANY: usize = 2000;
    // In memory, where a deletion takes no longer than a read.
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    pool::init(folder.path(), "n1").unwrap();
    let pool = open(folder.path());
    let names: Vec<String> = (0..MANY).map(|number| format!("v{number}")).collect();
    let now = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _reader in 0..3 {
            scope.spawn(|| {
                while let Some(name) = names.get(now.load(Ordering::Relaxed)) {
                    let _there_or_not = pool.volume(&VolumeId::from_name(name));
                }
            });
        }
        for (number, name) in names.iter().enumerate() {
            now.store(number, Ordering::Relaxed);
            let made = pool.create_volume(mk_volume(name, 1), |_| Ok(())).unwrap();
            pool.delete_volume(&made.id).unwrap();
            if number % 100 == 0 {
                pool.empty_trash().unwrap();
            }
        }
        now.store(MANY, Ordering::Relaxed);
    });
    let (left, _more) = pool.volumes(None, MANY);
    assert!(left.is_empty(), "{} came back", left.len());
}

#[test]
fn a_pool_has_one_owner() {
    let (folder, pool) = mk_pool();
    let second = Pool::open(folder.path(), &Options::default()).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::InUse);
    drop(pool);
    open(folder.path());
}

#[test]
fn a_pool_of_another_node_or_uuid_is_refused() {
    let (folder, pool) = mk_pool();
    drop(pool);
    for options in [
        Options {
            node: Some("n2".to_owned()),
            ..Options::default()
        },
        Options {
            uuid: Some("other".to_owned()),
            ..Options::default()
        },
    ] {
        let error = Pool::open(folder.path(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}

#[test]
fn init_refuses_what_may_be_a_damaged_pool_and_tolerates_foreign_files() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("vol0")).unwrap();
    fs::create_dir_all(folder.path().join("volumes/x")).unwrap();
    assert_eq!(
        pool::init(folder.path(), "n").unwrap_err().kind(),
        ErrorKind::Conflict
    );
    fs::remove_dir(folder.path().join("volumes/x")).unwrap();
    pool::init(folder.path(), "n").unwrap();
    assert_eq!(
        pool::init(folder.path(), "n").unwrap_err().kind(),
        ErrorKind::Conflict
    );
    assert!(folder.path().join("vol0").exists());
}

#[test]
fn a_pool_whose_folder_was_moved_away_changes_nothing_any_more() {
    let (folder, pool) = mk_pool();
    let elsewhere = folder.path().with_extension("moved");
    let mv = std::process::Command::new("mv")
        .arg(folder.path())
        .arg(&elsewhere)
        .status();
    assert!(mv.unwrap().success());
    fs::create_dir(folder.path()).unwrap();
    let error = pool
        .create_volume(mk_volume("a", 1), |_| Ok(()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    fs::remove_dir(folder.path()).unwrap();
    let back = std::process::Command::new("mv")
        .arg(&elsewhere)
        .arg(folder.path())
        .status();
    assert!(back.unwrap().success());
    pool.create_volume(mk_volume("a", 1), |_| Ok(())).unwrap();
}

#[test]
fn a_snapshot_is_read_only_and_outlives_its_source() {
    let (folder, pool) = mk_pool();
    let volume = pool.create_volume(mk_volume("a", 1), |_| Ok(())).unwrap();
    let snapshot = pool
        .create_snapshot(mk_snapshot("s", &volume), content)
        .unwrap();
    let path = folder
        .path()
        .join("snapshots")
        .join(snapshot.id.as_str())
        .join("image.qcow2");
    assert_eq!(
        fs::metadata(path).unwrap().permissions().mode() & 0o7777,
        0o400
    );
    pool.delete_volume(&volume.id).unwrap();
    drop(pool);
    let pool = open(folder.path());
    assert_eq!(pool.snapshot(&snapshot.id).unwrap(), snapshot);
    pool.delete_snapshot(&snapshot.id).unwrap();
    pool.empty_trash().unwrap();
    assert_eq!(
        count(folder.path(), "trash") + count(folder.path(), "snapshots"),
        0
    );
}

#[test]
fn a_snapshot_whose_image_reads_back_differently_never_exists() {
    let (folder, pool) = mk_pool();
    let volume = pool.create_volume(mk_volume("a", 1), |_| Ok(())).unwrap();
    let misread: Comparison = Box::new(|_image| Err(pool::Error::new(ErrorKind::Io, "differs")));
    let refused = pool.create_snapshot(mk_snapshot("s", &volume), |image| {
        Ok((content(image)?.0, misread))
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(
        count(folder.path(), "tmp") + count(folder.path(), "snapshots"),
        0
    );
    // It is not in the way of the next one.
    pool.create_snapshot(mk_snapshot("s", &volume), content)
        .unwrap();
}

#[test]
fn what_is_found_of_a_snapshot_is_recorded_and_of_one_that_is_gone_or_replaced_it_is_not() {
    let (folder, pool) = mk_pool();
    let volume = pool.create_volume(mk_volume("a", 1), |_| Ok(())).unwrap();
    let id = pool
        .create_snapshot(mk_snapshot("s", &volume), content)
        .unwrap()
        .id;
    let opened = pool.open_snapshot(&id).unwrap();
    let image = opened.image();
    let damaged = |record: &mut pool::record::SnapshotRecord| {
        record.damage = Some(pool::record::Damage {
            found: Timestamp(1),
            reason: "a test".to_owned(),
        });
    };
    let another = tempfile::tempfile().unwrap();
    let error = pool
        .update_snapshot(&id, Some(&another), damaged)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(pool.snapshot(&id).unwrap().damage, None);
    let marked = pool.update_snapshot(&id, Some(image), damaged).unwrap();
    assert_eq!(pool.snapshots(None, 1, |_| true).0[0].as_ref(), &marked);
    // Left by a crash in the middle of the next change.
    let left = folder.path().join("snapshots").join(id.as_str());
    fs::File::create(left.join("record.tmp")).unwrap();
    drop(pool);
    let pool = open(folder.path());
    assert!(!left.join("record.tmp").exists());
    assert_eq!(pool.snapshot(&id).unwrap(), marked);
    pool.delete_snapshot(&id).unwrap();
    let error = pool.update_snapshot(&id, Some(image), damaged).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(pool.snapshots(None, 1, |_| true).0.len(), 0);
}

#[test]
fn leftovers_in_tmp_are_swept_at_the_start() {
    let (folder, pool) = mk_pool();
    drop(pool);
    let left = folder.path().join("tmp/pvc-x.1");
    fs::create_dir(&left).unwrap();
    fs::File::create(left.join("disk.img")).unwrap();
    fs::File::create(left.join("record.tmp")).unwrap();
    open(folder.path());
    assert_eq!(count(folder.path(), "tmp"), 0);
}

#[test]
fn a_leftover_that_cannot_be_removed_keeps_no_other_one() {
    let (folder, pool) = mk_pool();
    let record = pool.create_volume(mk_volume("a", 1), |_| Ok(())).unwrap();
    let cut = pool
        .create_snapshot(mk_snapshot("s", &record), content)
        .unwrap();
    drop(pool);
    let tmp = folder.path().join("tmp");
    // Neither a folder with something foreign in it, nor what is no folder, is removed.
    fs::create_dir(tmp.join("a-foreign")).unwrap();
    fs::File::create(tmp.join("a-foreign/notes")).unwrap();
    fs::File::create(tmp.join("b-file")).unwrap();
    fs::create_dir(tmp.join("pvc-x.1")).unwrap();
    // The folder of an id of ours that is none.
    let odd = VolumeId::from_name("odd");
    fs::File::create(folder.path().join("volumes").join(odd.as_str())).unwrap();
    let records = [
        ("volumes", record.id.as_str()),
        ("snapshots", cut.id.as_str()),
    ]
    .map(|(part, id)| folder.path().join(part).join(id).join("record.tmp"));
    for record in &records {
        fs::File::create(record).unwrap();
    }

    let pool = open(folder.path());

    assert_eq!(count(folder.path(), "tmp"), 2);
    assert!(tmp.join("a-foreign/notes").exists() && tmp.join("b-file").exists());
    assert!(records.iter().all(|record| !record.exists()));
    assert_eq!(pool.volume(&record.id).unwrap(), record);
}

#[test]
fn a_record_that_was_not_put_in_place_is_swept_at_the_start() {
    let (folder, pool) = mk_pool();
    let record = pool.create_volume(mk_volume("a", 1), |_| Ok(())).unwrap();
    drop(pool);
    let object = folder.path().join("volumes").join(record.id.as_str());
    let foreign = folder.path().join("volumes/not-ours");
    fs::create_dir(&foreign).unwrap();
    for place in [&object, &foreign] {
        fs::File::create(place.join("record.tmp")).unwrap();
    }

    let pool = open(folder.path());

    assert!(!object.join("record.tmp").exists());
    assert!(foreign.join("record.tmp").exists(), "it is not ours");
    assert_eq!(pool.volume(&record.id).unwrap(), record);
}

#[test]
fn pages_follow_each_other_without_gaps() {
    let (_folder, pool) = mk_pool();
    for number in 0..10 {
        pool.create_volume(mk_volume(&format!("v{number}"), 1), |_| Ok(()))
            .unwrap();
    }
    let mut seen = Vec::new();
    loop {
        let (page, more) = pool.volumes(seen.last(), 3);
        seen.extend(page.iter().map(|volume| volume.id.clone()));
        if !more {
            break;
        }
    }
    assert_eq!(seen.len(), 10);
    assert!(seen.is_sorted());
}

#[test]
fn two_requests_never_share_the_last_gigabyte() {
    let (_folder, pool) = mk_pool();
    let available = pool.usage().unwrap().available() / MIB;
    let size = available * 6 / 10;
    let results: Vec<bool> = std::thread::scope(|scope| {
        let make = |name: &'static str| {
            let pool = &pool;
            scope.spawn(move || pool.create_volume(mk_volume(name, size), |_| Ok(())))
        };
        let both = [make("a"), make("b")];
        both.map(|thread| thread.join().unwrap())
            .iter()
            .map(Result::is_ok)
            .collect()
    });
    assert_eq!(results.iter().filter(|ok| **ok).count(), 1);
    let error = pool
        .create_volume(mk_volume("c", size), |_| Ok(()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert!(error.to_string().contains("promised to volumes"), "{error}");
}
