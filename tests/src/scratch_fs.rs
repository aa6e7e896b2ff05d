//! A filesystem in a sparse file, mounted through a loop device, gone when it goes out of scope.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use crate::{loops, mounts, tools, wait};

/// One gibibyte.
pub const GIB: u64 = 1 << 30;
/// One mebibyte.
pub const MIB: u64 = 1 << 20;

/// How long copies of a mount in namespaces that are just being made may live.
const RELEASE_LIMIT: Duration = Duration::from_secs(30);

/// The kinds of filesystem that a pool may lie on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsKind {
    /// XFS with reflink.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// ext4: no reflink.
    Ext4,
}

impl FsKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Xfs, Self::Btrfs, Self::Ext4];
    /// Those that can share extents between files.
    pub const REFLINK: [Self; 2] = [Self::Xfs, Self::Btrfs];

    /// The name that mount(2) knows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Ext4 => "ext4",
        }
    }

    fn make(self, device: &str) {
        let (program, options): (_, &[&str]) = match self {
            Self::Xfs => ("mkfs.xfs", &["-q", "-f", "-m", "reflink=1", "-K"]),
            Self::Btrfs => ("mkfs.btrfs", &["-q", "-f", "-K"]),
            Self::Ext4 => ("mkfs.ext4", &["-q", "-F", "-E", "nodiscard"]),
        };
        let _quiet = tools::run(program, &[options, &[device]].concat());
    }
}

/// A folder of the test's own, with a filesystem mounted in it.
#[derive(Debug)]
pub struct ScratchFs {
    folder: TempDir,
    /// The inode number of the file that holds the filesystem.
    image: u64,
    kind: FsKind,
    device: PathBuf,
}

impl ScratchFs {
    /// Makes a filesystem of `bytes`, of which only what is written takes space, and mounts it.
    #[must_use]
    pub fn new(kind: FsKind, bytes: u64) -> Self {
        let folder = scratch_folder();
        let image = folder.path().join("filesystem.img");
        Self::made(folder, &image, kind, bytes)
    }

    /// The same on a disk of the test's own: its bytes lie in a file in the folder `disk`.
    #[must_use]
    pub fn on_disk(disk: &Path, kind: FsKind, bytes: u64) -> Self {
        Self::made(scratch_folder(), &disk.join("filesystem.img"), kind, bytes)
    }

    fn made(folder: TempDir, image: &Path, kind: FsKind, bytes: u64) -> Self {
        let file = File::create(image).expect("create the filesystem's image");
        file.set_len(bytes).expect("size the filesystem's image");
        let device = loops::attach(image);
        // From here on Drop knows the device and detaches it whatever happens.
        let made = Self {
            folder,
            image: file.metadata().expect("look at the image").ino(),
            kind,
            device,
        };
        std::fs::create_dir(made.mount_point()).expect("make the mount point");
        kind.make(made.device.to_str().expect("a plain path"));
        made.mount();
        made
    }

    /// The test's own folder, outside of the scratch filesystem.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The kind of filesystem.
    #[must_use]
    pub fn kind(&self) -> FsKind {
        self.kind
    }

    /// Where the filesystem is mounted (or would be).
    #[must_use]
    pub fn mount_point(&self) -> PathBuf {
        self.folder.path().join("pool")
    }

    /// The loop device that the filesystem lies on.
    #[must_use]
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Whether it is mounted now.
    #[must_use]
    pub fn is_mounted(&self) -> bool {
        !mounts::at(&self.mount_point()).is_empty()
    }

    /// Mounts it. A process that another test forked while [`Self::wait_released`] had the device open has it too, and alone, until
    /// it executes its own program: that is waited for.
    #[track_caller]
    pub fn mount(&self) {
        let mut result = Ok(());
        let _settled = wait::holds_within(Duration::from_secs(1), || {
            result = mount(
                Some(&self.device),
                &self.mount_point(),
                Some(self.kind.name()),
                MsFlags::empty(),
                None::<&str>,
            );
            result != Err(nix::errno::Errno::EBUSY)
        });
        result.expect("mount the scratch filesystem");
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.mount_point(), open).expect("set the mode of its root");
    }

    /// Unmounts it; it must not be in use. Returns when the kernel has let go of it.
    ///
    /// A process that another test forked a moment ago shares all files that were open here, until it executes its own
    /// program: that is waited for.
    #[track_caller]
    pub fn unmount(&self) {
        let mut result = Ok(());
        let _settled = wait::holds_within(Duration::from_secs(1), || {
            result = umount2(&self.mount_point(), MntFlags::empty());
            result != Err(nix::errno::Errno::EBUSY)
        });
        result.expect("unmount the scratch filesystem");
        self.wait_released();
    }

    /// Waits until no mounted filesystem lies on the device. A mount namespace that is made at this moment (a container
    /// that starts, a node of a cluster) begins as a copy of ours; while it has the mount, the filesystem lives on, and
    /// mounting the device gives the old one again, with its failed state.
    #[track_caller]
    pub fn wait_released(&self) {
        // A mounted filesystem holds its device exclusively (open(2), O_EXCL on a block device).
        let released = wait::holds_within(RELEASE_LIMIT, || {
            let mut exclusive = File::options();
            exclusive
                .read(true)
                .custom_flags(nix::fcntl::OFlag::O_EXCL.bits());
            exclusive.open(&self.device).is_ok()
        });
        assert!(
            released,
            "{} is still mounted in another mount namespace",
            self.device.display()
        );
    }

    /// Takes it out of the tree although it is in use, as `umount -l` does.
    #[track_caller]
    pub fn unmount_lazily(&self) {
        umount2(&self.mount_point(), MntFlags::MNT_DETACH).expect("detach the scratch filesystem");
    }

    /// Makes it read-only or writable again.
    #[track_caller]
    pub fn remount(&self, read_only: bool) {
        let option = if read_only {
            "remount,ro"
        } else {
            "remount,rw"
        };
        let _quiet = tools::run(
            "mount",
            &[
                "-o",
                option,
                self.mount_point().to_str().expect("a plain path"),
            ],
        );
    }

    /// Pulls the plug: what was not synced is lost. XFS and ext4 only; nothing may use it afterwards but [`Self::unmount`].
    #[track_caller]
    pub fn shut_down(&self) {
        let _quiet = tools::run(
            "xfs_io",
            &[
                "-x",
                "-c",
                "shutdown",
                self.mount_point().to_str().expect("a plain path"),
            ],
        );
    }

    /// Device number of the mounted filesystem as the kernel shows it for files on it, `major:minor`.
    #[must_use]
    pub fn device_number(&self) -> String {
        match std::fs::metadata(self.mount_point()) {
            Ok(root) => {
                let dev = root.dev();
                let (major, minor) = (nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
                format!("{major}:{minor}")
            }
            // Shut down: not even its root can be looked at.
            Err(_) => {
                let mounted = mounts::at(&self.mount_point());
                mounted.last().expect("it is mounted").device.clone()
            }
        }
    }

    /// The loop devices on files of this filesystem, also when it has failed and can say nothing of its files any more.
    #[must_use]
    pub fn loops(&self) -> Vec<loops::Loop> {
        let mount_point = self.mount_point();
        let number = std::fs::metadata(&mount_point).map(|metadata| {
            let dev = metadata.dev();
            format!(
                "{}:{}",
                nix::sys::stat::major(dev),
                nix::sys::stat::minor(dev)
            )
        });
        let mut found = loops::all();
        found.retain(|one| match &number {
            Ok(number) if self.is_mounted() => one.back_device == *number,
            _failed_or_not_mounted => Path::new(&one.back_file).starts_with(&mount_point),
        });
        found
    }

    /// Takes apart everything that the test, or a server that was killed, left: mounts first, then loop devices, newest
    /// first. Touches only what lies in the test's own folder. Also what a reboot does to a node.
    pub fn take_apart_users(&self) {
        for mount in mounts::below(self.folder.path()).into_iter().rev() {
            // What lies on top of the kubelet's paths goes; the scratch filesystem itself stays.
            if mount.target != self.mount_point() {
                let _gone = detach_with_retry(&mount.target);
            }
        }
        let kubelets_own = loops::below(&self.folder.path().join("kubelet"));
        for one in kubelets_own.iter().chain(&self.loops()) {
            if !loops::detach(&one.name, one.back_inode) {
                eprintln!("{} does not go", one.name.display());
            }
        }
    }
}

impl Drop for ScratchFs {
    fn drop(&mut self) {
        self.take_apart_users();
        for _stacked in mounts::at(&self.mount_point()) {
            let _gone = detach_with_retry(&self.mount_point());
        }
        // Only a device that still carries our own image is ours to detach.
        for one in loops::all() {
            if one.name == self.device && one.back_inode == self.image {
                let _gone = loops::detach(&one.name, one.back_inode);
            }
        }
    }
}

fn scratch_folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("vd-test-")
        .tempdir()
        .expect("make a scratch folder")
}

/// Unmounts `target`, waiting for its last user; at last takes it out of the tree by force.
fn detach_with_retry(target: &Path) -> bool {
    let gone = wait::holds_within(Duration::from_secs(3), || {
        umount2(target, MntFlags::empty()) != Err(nix::errno::Errno::EBUSY)
    });
    if gone {
        return true;
    }
    eprintln!("{} is still in use: detaching it", target.display());
    umount2(target, MntFlags::MNT_DETACH).is_ok()
}
