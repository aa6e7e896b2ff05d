//! A disk that can be full: what lies beneath a filesystem, or a log, fails although that filesystem has room.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;
use tempfile::TempDir;

/// A folder in memory of a size that can be changed. Writes beyond it fail.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// A disk of `bytes`.
    #[track_caller]
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("vd-test-disk-")
            .tempdir()
            .expect("make a folder");
        let made = Self { folder };
        made.mount(MsFlags::empty(), bytes);
        made
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Bytes that are used.
    #[must_use]
    pub fn used(&self) -> u64 {
        let disk = statvfs(self.path()).expect("look at the disk");
        (disk.blocks() - disk.blocks_free()) * disk.fragment_size()
    }

    /// Makes it larger or smaller, not below what is used.
    #[track_caller]
    pub fn resize(&self, bytes: u64) {
        self.mount(MsFlags::MS_REMOUNT, bytes);
    }

    #[track_caller]
    fn mount(&self, flags: MsFlags, bytes: u64) {
        let size = format!("size={bytes}");
        mount(
            Some("tmpfs"),
            self.path(),
            Some("tmpfs"),
            flags,
            Some(size.as_str()),
        )
        .expect("mount a disk in memory");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if umount2(self.path(), MntFlags::empty()).is_ok() {
            return;
        }
        let detached = umount2(self.path(), MntFlags::MNT_DETACH);
        let what = format!("{} is still in use ({detached:?})", self.path().display());
        // What stands on a disk must go before it.
        assert!(std::thread::panicking(), "{what}");
        eprintln!("{what}");
    }
}
