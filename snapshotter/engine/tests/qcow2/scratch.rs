//! Filesystems to test on, made in sparse files and gone with the value, also when a test panics.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// What the tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The filesystem of the temporary folder: ext4, or at least one that every machine has.
    Host,
    /// XFS that shares blocks.
    Xfs,
    /// Btrfs as a pool has it: `chattr +C`.
    BtrfsNocow,
    /// Btrfs as it comes.
    Btrfs,
}

/// A mounted folder.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: PathBuf,
    mounted: Option<PathBuf>,
    _directory: TempDir,
}

impl Scratch {
    pub(crate) fn new(kind: Kind) -> Self {
        let directory = TempDir::new().unwrap();
        let mut scratch = Self {
            folder: directory.path().join("files"),
            mounted: None,
            _directory: directory,
        };
        std::fs::create_dir(&scratch.folder).unwrap();
        let make = match kind {
            Kind::Host => return scratch,
            Kind::Xfs => "mkfs.xfs",
            Kind::Btrfs | Kind::BtrfsNocow => "mkfs.btrfs",
        };
        let disk = scratch._directory.path().join("disk");
        File::create_new(&disk).unwrap().set_len(8 << 30).unwrap();
        run(Command::new(make).arg("-q").arg(&disk));
        run(Command::new("mount")
            .args(["-o", "loop"])
            .args([&disk, &scratch.folder]));
        scratch.mounted = Some(scratch.folder.clone());
        if kind == Kind::BtrfsNocow {
            pool::sys::set_nocow(&File::open(&scratch.folder).unwrap()).unwrap();
        }
        scratch
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A new file of `size` bytes of hole.
    pub(crate) fn file(&self, name: &str, size: u64) -> File {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.path(name))
            .unwrap();
        file.set_len(size).unwrap();
        file
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(folder) = &self.mounted {
            // The loop device goes with the mount. Lazily, because a failed test may still have files open.
            let unmounted = Command::new("umount").arg("--lazy").arg(folder).status();
            assert!(
                std::thread::panicking() || unmounted.is_ok_and(|status| status.success()),
                "{} stays mounted",
                folder.display()
            );
        }
    }
}

/// A loop device with direct I/O over a file, gone with the value.
#[derive(Debug)]
pub(crate) struct LoopDevice(pub(crate) PathBuf);

impl LoopDevice {
    pub(crate) fn over(file: &Path) -> Self {
        let found = run(Command::new("losetup")
            .args(["--find", "--show", "--direct-io=on"])
            .arg(file));
        Self(PathBuf::from(found.trim()))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("-d").arg(&self.0).status();
        assert!(
            std::thread::panicking() || detached.is_ok_and(|status| status.success()),
            "{} stays attached",
            self.0.display()
        );
    }
}

/// Runs a command that has to succeed, and returns what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
