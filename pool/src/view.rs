//! A pool as anybody may read it: without its ownership, while its owner works on it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::FileStat;

use crate::capacity::Figures;
use crate::durable::Folder;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::held::{self, OpenSnapshot};
use crate::id::{SnapshotId, VolumeId};
use crate::index::{Index, Quarantined, read_snapshot, read_volume};
use crate::layout::{DISK_IMAGE, Layout, MARKER};
use crate::marker::{self, Marker};
use crate::measure;
use crate::pool::{Filesystem, filesystem};
use crate::record::{SnapshotRecord, VolumeRecord};

/// A pool, opened for reading. What it shows was true at some moment since it was opened.
#[derive(Debug)]
pub struct View {
    layout: Layout,
    marker: Marker,
    index: Index,
}

/// A folder of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `volumes/`.
    Volumes,
    /// `snapshots/`.
    Snapshots,
    /// `tmp/`.
    Tmp,
    /// `trash/`.
    Trash,
}

impl View {
    /// Opens the pool at `path` and reads its records.
    ///
    /// # Errors
    /// `Unavailable` when it is no pool, `Corrupt` when its marker cannot be trusted, else the kernel's.
    pub fn open(path: &Path) -> Result<Self> {
        let root =
            Folder::open_path(path).map_err(|error| error.with_kind(ErrorKind::Unavailable))?;
        let marker = marker::read(&root, path)?;
        let layout = Layout::open(path)?;
        let index = Index::read(&layout)?;
        Ok(Self {
            layout,
            marker,
            index,
        })
    }

    /// Who the pool is.
    #[must_use]
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.layout.path()
    }

    /// The device number of the pool's filesystem.
    #[must_use]
    pub fn device(&self) -> u64 {
        self.layout.device()
    }

    /// What the pool's filesystem is.
    ///
    /// # Errors
    /// The kernel's.
    pub fn filesystem(&self) -> Result<Filesystem> {
        filesystem(self.layout.root.as_file())
    }

    /// Whether a process owns the pool now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_owned(&self) -> Result<bool> {
        let marker = self.layout.root.file(MARKER, false)?;
        // A shared lock shows the owner's and is given back at once; an owner that starts in this instant is refused
        // once and tries again.
        match Flock::lock(marker, FlockArg::LockSharedNonblock) {
            Ok(_free) => Ok(false),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(true),
            Err((_, errno)) => Err(Error::io("look at the pool's lock", errno.into())),
        }
    }

    /// All volumes whose record can be trusted, by id.
    pub fn volumes(&self) -> impl ExactSizeIterator<Item = &Arc<VolumeRecord>> {
        self.index.volumes.values()
    }

    /// All snapshots whose record can be trusted, by id.
    pub fn snapshots(&self) -> impl ExactSizeIterator<Item = &Arc<SnapshotRecord>> {
        self.index.snapshots.values()
    }

    /// What is kept but not used.
    #[must_use]
    pub fn quarantined(&self) -> &[Quarantined] {
        &self.index.quarantined
    }

    /// One volume, read anew.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`.
    pub fn volume(&self, id: &VolumeId) -> Result<VolumeRecord> {
        missing(&self.layout.volumes, id.as_str(), "volume")?;
        read_volume(&self.layout, id.as_str())
    }

    /// One snapshot, read anew.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`.
    pub fn snapshot(&self, id: &SnapshotId) -> Result<SnapshotRecord> {
        missing(&self.layout.snapshots, id.as_str(), "snapshot")?;
        read_snapshot(&self.layout, id.as_str())
    }

    /// The image of a volume, read-only.
    ///
    /// # Errors
    /// `NotFound`, else the kernel's.
    pub fn volume_image(&self, id: &VolumeId) -> Result<File> {
        self.layout
            .volumes
            .folder(id.as_str())?
            .file(DISK_IMAGE, false)
    }

    /// A snapshot's record, read anew, and the image that belongs to it. Both stay what they are as long as this is held,
    /// whatever the pool's owner does meanwhile.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` when the record cannot be trusted, or the image is missing.
    pub fn open_snapshot(&self, id: &SnapshotId) -> Result<OpenSnapshot> {
        held::open_snapshot(&self.layout, id)
    }

    /// Whether an opened snapshot is still the one in the pool: neither deleted nor replaced since.
    #[must_use]
    pub fn is_current(&self, opened: &OpenSnapshot) -> bool {
        held::is_current(&self.layout, opened)
    }

    /// The names in one of the pool's folders.
    ///
    /// # Errors
    /// The kernel's.
    pub fn names(&self, part: Part) -> Result<Vec<String>> {
        self.part(part).names()
    }

    /// What the folder of an object holds.
    ///
    /// # Errors
    /// `NotFound`, else the kernel's.
    pub fn object_files(&self, part: Part, name: &str) -> Result<Vec<(String, FileStat)>> {
        let folder = self.part(part).folder(name)?;
        let mut files = Vec::new();
        for file in folder.names()? {
            if let Some(stat) = folder.stat(&file)? {
                files.push((file, stat));
            }
        }
        Ok(files)
    }

    /// How full the pool is, what is in the making left out.
    ///
    /// # Errors
    /// The kernel's.
    pub fn figures(&self) -> Result<Figures> {
        let deleted = measure::deleted(&self.layout)?;
        let ours = measure::exact(&self.layout, &self.index, &deleted);
        let disk = nix::sys::statvfs::fstatvfs(self.layout.root.as_file())
            .during("look at the pool's free space")?;
        let unit = disk.fragment_size();
        Ok(Figures {
            size: disk.blocks() * unit,
            used: (disk.blocks() - disk.blocks_free()) * unit,
            volume_sizes: self.index.volume_sizes(),
            snapshot_charges: self.index.snapshot_charges(),
            pending: 0,
            deleted: deleted.allocated(),
            ours,
        })
    }

    fn part(&self, part: Part) -> &Folder {
        match part {
            Part::Volumes => &self.layout.volumes,
            Part::Snapshots => &self.layout.snapshots,
            Part::Tmp => &self.layout.tmp,
            Part::Trash => &self.layout.trash,
        }
    }
}

fn missing(parent: &Folder, name: &str, what: &str) -> Result<()> {
    match parent.stat(name)? {
        Some(_) => Ok(()),
        None => Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no {what} {name}"),
        )),
    }
}
