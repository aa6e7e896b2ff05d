//! What is deleted is freed, whatever else lies there; and as long as it is not, it is counted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod objects;

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use pool::capacity::{Policy, Reserve};
use pool::size::MIB;
use pool::{ErrorKind, NewSnapshot, Options, Pool, SnapshotId, View};
use tempfile::TempDir;

use crate::objects::{mk_pool, mk_snapshot, mk_volume, names, write};

/// The only thing in the trash.
fn in_trash(folder: &Path) -> PathBuf {
    let entries: Vec<_> = fs::read_dir(folder.join("trash")).unwrap().collect();
    assert_eq!(entries.len(), 1);
    entries[0].as_ref().unwrap().path()
}

#[test]
fn what_is_not_ours_in_the_trash_stays_and_keeps_nothing_else_from_being_freed() {
    let (folder, pool) = mk_pool();
    let first = pool
        .create_volume(mk_volume("first", 8), |_| Ok(()))
        .unwrap();
    write(&pool, &first, 8);
    pool.delete_volume(&first.id).unwrap();
    let with_guest = in_trash(folder.path());
    fs::File::create(with_guest.join("notes.txt"))
        .unwrap()
        .write_all(b"mine")
        .unwrap();
    // Before and behind all others, whatever their names are.
    let trash = folder.path().join("trash");
    fs::File::create(trash.join("!file")).unwrap();
    fs::File::create(trash.join("~file")).unwrap();
    for number in 0..3 {
        let name = format!("volume {number}");
        let made = pool.create_volume(mk_volume(&name, 8), |_| Ok(())).unwrap();
        pool.delete_volume(&made.id).unwrap();
    }
    for _again in 0..2 {
        let error = pool.empty_trash().unwrap_err();
        assert!(error.to_string().contains("remove trash/!file"), "{error}");
        let folder = with_guest.file_name().unwrap().to_str().unwrap();
        assert_eq!(names(&trash), ["!file", folder, "~file"]);
        assert_eq!(names(&with_guest), ["notes.txt"]);
    }
    // Room is found all the same.
    pool.create_volume(mk_volume("last", 8), |_| Ok(()))
        .unwrap();
    fs::remove_file(trash.join("!file")).unwrap();
    fs::remove_file(trash.join("~file")).unwrap();
    fs::remove_file(with_guest.join("notes.txt")).unwrap();
    pool.empty_trash().unwrap();
    assert_eq!(names(&trash), Vec::<String>::new());
}

#[test]
fn a_trash_that_cannot_be_emptied_is_no_reason_to_say_anything_but_that_there_is_no_room() {
    let (folder, pool) = mk_pool();
    fs::File::create(folder.path().join("trash/file")).unwrap();
    let huge = mk_volume("huge", 16 << 20);
    let error = pool.create_volume(huge, |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
}

#[test]
fn a_deleted_image_that_is_read_is_kept_and_counted_until_it_is_not_read_any_more() {
    let (folder, pool) = mk_pool();
    let volume = pool.create_volume(mk_volume("a", 8), |_| Ok(())).unwrap();
    let cut = mk_snapshot(&pool, "cut", &volume);
    let reader = View::open(folder.path())
        .unwrap()
        .open_snapshot(&cut.id)
        .unwrap();
    assert!(pool.is_current(&reader));
    pool.delete_snapshot(&cut.id).unwrap();
    assert!(!pool.is_current(&reader));
    pool.empty_trash().unwrap();
    let figures = pool.usage().unwrap().figures;
    assert_eq!(figures.deleted, 4 * MIB);
    assert_eq!(figures.snapshot_charges, 0);
    assert_eq!(
        View::open(folder.path())
            .unwrap()
            .figures()
            .unwrap()
            .deleted,
        4 * MIB
    );
    let mut bytes = vec![0; 4 << 20];
    reader.image().read_exact_at(&mut bytes, 0).unwrap();
    assert!(
        bytes.iter().all(|byte| *byte == 9),
        "whole to its last byte"
    );
    drop(reader);
    pool.empty_trash().unwrap();
    assert_eq!(pool.usage().unwrap().figures.deleted, 0);
    assert_eq!(names(&folder.path().join("trash")), Vec::<String>::new());
}

/// A disk that nobody else writes to.
struct Disk(TempDir);

impl Disk {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        mount(
            Some("tmpfs"),
            folder.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .unwrap();
        Self(folder)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let gone = umount2(self.0.path(), MntFlags::MNT_DETACH);
        assert!(std::thread::panicking() || gone.is_ok(), "{gone:?}");
    }
}

#[test]
fn a_refusal_says_what_is_promised_without_what_was_asked_for() {
    let disk = Disk::new("1280m");
    pool::init(disk.0.path(), "n1").unwrap();
    let options = Options {
        policy: Policy {
            overcommit: 1.0,
            reserve: Reserve::Bytes(256 * MIB),
        },
        ..Options::default()
    };
    let pool = Pool::open(disk.0.path(), &options).unwrap();
    let volume = pool.create_volume(mk_volume("a", 300), |_| Ok(())).unwrap();
    write(&pool, &volume, 40);
    for name in ["b", "c"] {
        let asked = pool.create_volume(mk_volume(name, 1 << 20), |_| Ok(()));
        let text = asked.unwrap_err().to_string();
        assert!(text.contains("no room for 1.0 TiB"), "{text}");
        assert!(
            text.contains("300.0 MiB are promised to volumes, 0 B to snapshots"),
            "{text}"
        );
    }
    let rest = pool.usage().unwrap().available() / MIB;
    pool.create_volume(mk_volume("rest", rest), |_| Ok(()))
        .unwrap();
    let new = NewSnapshot {
        id: SnapshotId::from_name("cut"),
        name: "cut".to_owned(),
        source: volume,
        shares_blocks: false,
        compression: None,
        checksum: None,
    };
    let refused = pool.create_snapshot(new, |_image| unreachable!("there is no room"));
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("no room for 41.0 MiB"), "{text}");
    assert!(
        text.contains("are promised to volumes, 0 B to snapshots"),
        "{text}"
    );
}
