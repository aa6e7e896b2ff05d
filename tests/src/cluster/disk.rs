//! The disk behind a node's `/var/vd`: a sparse file with a filesystem, mounted on the host where tests look at it, and from
//! there into the node.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::command::{make_folder, run};
use super::options::Disk;
use crate::scratch_fs::FsKind;
use crate::{loops, mounts, wait};

/// How long the last user of a filesystem may take to let go: also a mount namespace that was made as a copy of ours a moment ago, and
/// the kernel when it still has to write out what was written to it.
const USERS: Duration = Duration::from_secs(180);

/// The disk of the node in `folder`.
#[derive(Clone, Debug)]
pub(super) struct NodeDisk {
    folder: PathBuf,
    disk: Disk,
}

impl NodeDisk {
    pub(super) fn of(folder: &Path, disk: Disk) -> Self {
        let folder = folder.to_owned();
        Self { folder, disk }
    }

    fn image(&self) -> PathBuf {
        self.folder.join("disk.img")
    }

    /// Where it is mounted on the host.
    pub(super) fn mount_point(&self) -> PathBuf {
        self.folder.join("pool")
    }

    /// A new, empty filesystem; what was there before is gone.
    pub(super) fn make(&self) -> Result<()> {
        make_folder(&self.mount_point())?;
        let image = self.image();
        let file = File::create(&image).with_context(|| image.display().to_string())?;
        file.set_len(self.disk.bytes)?;
        let (program, options): (_, &[&str]) = match self.disk.kind {
            FsKind::Xfs => ("mkfs.xfs", &["-q", "-f", "-m", "reflink=1"]),
            FsKind::Btrfs => ("mkfs.btrfs", &["-q", "-f"]),
            FsKind::Ext4 => ("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=1"]),
        };
        let image = image.to_str().context("the folder's name is not text")?;
        let _quiet = run(program, &[options, &[image]].concat())?;
        Ok(())
    }

    /// Mounts it; one that is mounted stays as it is.
    pub(super) fn mount(&self) -> Result<()> {
        let target = self.mount_point();
        if mounts::at(&target).is_empty() {
            let image = self.image();
            let _quiet = run(
                "mount",
                &[Path::new("-o"), "loop".as_ref(), &image, &target],
            )?;
        }
        Ok(())
    }

    /// What a shutdown of the node leaves to the kernel: loop devices on files of the disk are detached, then it is
    /// unmounted and its own device goes. The node must be down.
    pub(super) fn unmount(&self) -> Result<()> {
        let target = self.mount_point();
        for mounted in mounts::at(&target).iter().rev() {
            let ours = self.loops(&mounted.device);
            // From the top: kubelet lays a device of its own over each Block volume that a pod uses.
            let mut left: Vec<loops::Loop> =
                ours.iter().flat_map(lying_on).chain(ours.clone()).collect();
            left.retain(|one| !loops::detach(&one.name, one.back_inode));
            ensure!(left.is_empty(), "loop devices do not go: {left:?}");
            let mut result = Ok(());
            let _settled = wait::holds_within(USERS, || {
                result = umount2(&target, MntFlags::empty());
                result != Err(Errno::EBUSY)
            });
            result.with_context(|| format!("unmount {}", target.display()))?;
        }
        let image = self.image();
        let gone = wait::holds_within(USERS, || own_loops(&image).is_empty());
        ensure!(
            gone,
            "{} is still attached: {:?}",
            image.display(),
            own_loops(&image)
        );
        Ok(())
    }

    /// Loop devices on files of the disk; none when it is not mounted.
    pub(super) fn users(&self) -> Vec<loops::Loop> {
        let mounted = mounts::at(&self.mount_point());
        mounted
            .last()
            .map_or_else(Vec::new, |one| self.loops(&one.device))
    }

    /// Lays the disk aside; it must not be mounted.
    pub(super) fn take_out(&self) -> Result<()> {
        let aside = self.aside();
        ensure!(!aside.exists(), "{} is taken", aside.display());
        std::fs::rename(self.image(), &aside).with_context(|| aside.display().to_string())
    }

    /// Puts what was laid aside in again.
    pub(super) fn put_back(&self) -> Result<()> {
        let aside = self.aside();
        std::fs::rename(&aside, self.image()).with_context(|| aside.display().to_string())
    }

    fn aside(&self) -> PathBuf {
        self.folder.join("disk.aside")
    }

    /// Exchanges the contents with those of another disk; neither may be mounted.
    pub(super) fn exchange(&self, other: &Self) -> Result<()> {
        ensure!(
            self.disk == other.disk,
            "the disks are not alike: {:?} and {:?}",
            self.disk,
            other.disk
        );
        self.take_out()?;
        std::fs::rename(other.image(), self.image())?;
        std::fs::rename(self.aside(), other.image())?;
        Ok(())
    }

    /// Loop devices on files of the mounted disk.
    fn loops(&self, device: &str) -> Vec<loops::Loop> {
        let root = std::fs::metadata(self.mount_point()).map(|root| root.dev());
        // Btrfs shows files another device number than the mount table does.
        let number = root.map_or_else(
            |_failed| device.to_owned(),
            |dev| {
                format!(
                    "{}:{}",
                    nix::sys::stat::major(dev),
                    nix::sys::stat::minor(dev)
                )
            },
        );
        let mut all = loops::all();
        all.retain(|one| one.back_device == number || one.back_device == device);
        all
    }
}

/// Loop devices whose file is the node of this one.
fn lying_on(below: &loops::Loop) -> Vec<loops::Loop> {
    let Ok(node) = std::fs::metadata(&below.name) else {
        return Vec::new();
    };
    let dev = node.dev();
    let device = format!(
        "{}:{}",
        nix::sys::stat::major(dev),
        nix::sys::stat::minor(dev)
    );
    let mut all = loops::all();
    all.retain(|one| one.back_device == device && one.back_inode == node.ino());
    all
}

/// The loop device of the disk itself.
fn own_loops(image: &Path) -> Vec<loops::Loop> {
    let Ok(file) = std::fs::metadata(image) else {
        return Vec::new();
    };
    let dev = file.dev();
    let number = format!(
        "{}:{}",
        nix::sys::stat::major(dev),
        nix::sys::stat::minor(dev)
    );
    let mut all = loops::all();
    all.retain(|one| one.back_inode == file.ino() && one.back_device == number);
    all
}
