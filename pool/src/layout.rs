//! The folders of a pool, opened once.

use std::path::{Path, PathBuf};

use nix::sys::stat::fstat;

use crate::durable::Folder;
use crate::error::{Context, Error, ErrorKind, Result};

/// The marker file.
pub(crate) const MARKER: &str = ".vd-pool";
/// The image of a volume.
pub(crate) const DISK_IMAGE: &str = "disk.img";
/// The image of a snapshot.
pub(crate) const SNAPSHOT_IMAGE: &str = "image.qcow2";

/// The four folders.
pub(crate) const FOLDERS: [&str; 4] = ["volumes", "snapshots", "tmp", "trash"];

/// A pool's folders. All further access is relative to these descriptors.
#[derive(Debug)]
pub(crate) struct Layout {
    path: PathBuf,
    pub(crate) root: Folder,
    pub(crate) volumes: Folder,
    pub(crate) snapshots: Folder,
    pub(crate) tmp: Folder,
    pub(crate) trash: Folder,
    device: u64,
    inode: u64,
}

impl Layout {
    /// Opens the folders below `path`.
    ///
    /// # Errors
    /// `Unavailable` when one is missing: the disk is not mounted, or this is no pool.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let root = Folder::open_path(path).map_err(|error| {
            error
                .with_kind(ErrorKind::Unavailable)
                .context("the pool cannot be opened")
        })?;
        let stat = fstat(root.as_file()).during("look at the pool's folder")?;
        let open = |name: &str| {
            root.folder(name).map_err(|error| {
                error.with_kind(ErrorKind::Unavailable).context(format!(
                    "the pool {} is not whole: is its disk mounted?",
                    path.display()
                ))
            })
        };
        Ok(Self {
            path: path.to_owned(),
            volumes: open("volumes")?,
            snapshots: open("snapshots")?,
            tmp: open("tmp")?,
            trash: open("trash")?,
            root,
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }

    /// The path it was opened by.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The device number of the pool's filesystem. It can change over a reboot, never while the pool is open.
    #[must_use]
    pub(crate) fn device(&self) -> u64 {
        self.device
    }

    /// Whether the path still leads to the folder that was opened.
    ///
    /// All writes go through the open descriptors and so can never land on the filesystem below a lost mount; this
    /// check makes that state visible and refuses work that nobody would find again.
    ///
    /// # Errors
    /// `Unavailable`, and what to do.
    pub(crate) fn guard(&self) -> Result<()> {
        let lost = |what: String| Error::new(ErrorKind::Unavailable, what);
        let now = nix::sys::stat::stat(&self.path).map_err(|errno| {
            lost(format!(
                "the pool {} is gone: {errno}. Mount its disk again",
                self.path.display()
            ))
        })?;
        if (now.st_dev, now.st_ino) == (self.device, self.inode) {
            return Ok(());
        }
        Err(lost(format!(
            "{} is not the pool's folder any more: its disk was unmounted, or another one was mounted over it. Mount the pool's disk again",
            self.path.display()
        )))
    }
}
