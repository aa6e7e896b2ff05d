//! A pool whose disk is full. Needs root: it mounts a small disk in memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::Write;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use pool::record::{Provisioning, VolumeMode};
use pool::size::MIB;
use pool::{ErrorKind, NewVolume, Options, Pool, VolumeId};
use tempfile::TempDir;

struct SmallDisk(TempDir);

impl SmallDisk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (from, flags) = (Some("tmpfs"), MsFlags::empty());
        mount(from, folder.path(), Some("tmpfs"), flags, Some("size=4m")).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room there is, until the answer is dropped.
    fn fill(&self) -> Filled {
        let path = self.path().join("somebody-elses");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        Filled(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount2(self.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

struct Filled(std::path::PathBuf);

impl Drop for Filled {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn a_record_that_finds_no_room_is_refused_and_nothing_else_changes() {
    let disk = SmallDisk::new();
    pool::init(disk.path(), "n1").unwrap();
    let pool = Pool::open(disk.path(), &Options::default()).unwrap();
    let made = pool
        .create_volume(
            NewVolume {
                id: VolumeId::from_name("a"),
                name: "a".to_owned(),
                requested_bytes: MIB,
                size_bytes: MIB,
                provisioning: Provisioning::Thin,
                mode: VolumeMode::Block,
                access_modes: Vec::new(),
                source: None,
                lineage: None,
            },
            |_empty| Ok(()),
        )
        .unwrap();
    let filled = disk.fill();

    let stage = || pool.update_volume(&made.id, |record| record.staged = true);
    let error = stage().unwrap_err();

    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    pool.guard().expect("the pool is trusted as before");
    assert_eq!(pool.volume(&made.id).unwrap(), made);
    let folder = disk.path().join("volumes").join(made.id.as_str());
    assert!(!folder.join("record.tmp").exists());
    drop(filled);
    assert!(stage().unwrap().staged);
}
