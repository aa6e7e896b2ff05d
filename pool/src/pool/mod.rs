//! A pool: the volumes and snapshots in one directory, and the only process that may change them.
//!
//! ```text
//! open ──> Pool ── create / expand / delete / record changes ──> disk, then index, then the caller
//!   │                                                             (nothing is answered before it is durable)
//!   └─ recovery: sweep tmp/, read records, quarantine what cannot be trusted, roll expansions forward
//! ```
//! The methods are safe to call from several threads, and two calls for one object are kept apart by the disk itself
//! (`RENAME_NOREPLACE`). Which operations may run at the same time on one object is the caller's business.

mod admission;
mod delete;
mod expand;
mod object;
mod recovery;
mod repack;
mod snapshot;
mod snapshot_record;
mod trash;
mod volume;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

pub use admission::Usage;
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, fstatfs};
pub use repack::{PackedContent, Room};
pub use snapshot::{Comparison, ImportedSnapshot, NewSnapshot, SnapshotContent};
pub use volume::NewVolume;

use crate::capacity::Policy;
use crate::durable::{self, Folder};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::held::{self, OpenSnapshot};
use crate::id::{SnapshotId, VolumeId};
use crate::index::{Index, Quarantined, read_snapshot, read_volume};
use crate::layout::Layout;
use crate::marker::{Marker, Ownership};
use crate::record::{SnapshotRecord, VolumeRecord};
use crate::sys;

/// A pool that this process owns.
#[derive(Debug)]
pub struct Pool {
    layout: Layout,
    marker: Marker,
    policy: Policy,
    state: Mutex<State>,
    admission: Mutex<()>,
    /// Held by whoever empties the trash: what there cannot be removed and was told already.
    emptying: Mutex<BTreeSet<String>>,
    /// Held while a snapshot's record is replaced, with its image or without, and while its folder goes: so no record is written
    /// into what is deleted or replaced.
    snapshot_records: Mutex<()>,
    distrusted: AtomicBool,
    reflink: OnceLock<bool>,
    // Last, so that everything above is closed before another process may own the pool.
    _ownership: Ownership,
}

/// How to open a pool.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The node this process works for; `None` takes the marker's word.
    pub node: Option<String>,
    /// Refuse a pool with another UUID.
    pub uuid: Option<String>,
    /// How much may be promised.
    pub policy: Policy,
}

/// What the pool's filesystem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filesystem {
    /// XFS.
    Xfs,
    /// Btrfs: capacity is limited, not promised.
    Btrfs,
    /// ext4: cannot share blocks.
    Ext4,
    /// Something else.
    Other,
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    reserved: admission::Want,
}

impl Pool {
    /// The path the pool was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.layout.path()
    }

    /// The device number of the pool's filesystem.
    #[must_use]
    pub fn device(&self) -> u64 {
        self.layout.device()
    }

    /// Who the pool is.
    #[must_use]
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    /// Whether the pool can be worked on now.
    ///
    /// # Errors
    /// `Unavailable`, with the reason: unmounted, another disk mounted over it, or a write that failed.
    pub fn guard(&self) -> Result<()> {
        self.layout.guard()?;
        if self.distrusted.load(Ordering::Acquire) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "a write to the pool's filesystem failed; it is opened again before anything else is changed",
            ));
        }
        Ok(())
    }

    /// After an image met an input or output error: is it that image, or the whole filesystem? One that has failed as a whole
    /// answers nothing about the marker either; the pool is then unavailable, and nothing here holds it open any longer than its
    /// operations do.
    pub fn look_again(&self) {
        let marker = crate::marker::read(&self.layout.root, self.layout.path());
        if marker.is_err_and(|error| error.kind() == ErrorKind::Io) {
            self.distrust();
        }
    }

    /// What the pool's filesystem is.
    ///
    /// # Errors
    /// The kernel's.
    pub fn filesystem(&self) -> Result<Filesystem> {
        filesystem(self.layout.root.as_file())
    }

    /// Whether files of this pool can share blocks. Found out by trying, once.
    ///
    /// # Errors
    /// The kernel's, other than its no.
    pub fn reflink(&self) -> Result<bool> {
        if let Some(known) = self.reflink.get() {
            return Ok(*known);
        }
        let found = probe_reflink(&self.layout).map_err(|error| self.name_what_ran_out(error))?;
        Ok(*self.reflink.get_or_init(|| found))
    }

    /// The same, if it was found out already. Asks the kernel nothing, so it never blocks.
    #[must_use]
    pub fn known_reflink(&self) -> Option<bool> {
        self.reflink.get().copied()
    }

    /// Whether the pool has its filesystem for itself: its folder is the root of what is mounted there. Others that write to
    /// the same filesystem take space that was promised.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_alone(&self) -> Result<bool> {
        let path = std::fs::canonicalize(self.path()).during("find the pool's folder")?;
        let mounts = crate::attach::mountinfo::MountTable::read()?;
        let top = mounts.at(&path).last();
        Ok(top.is_some_and(|mount| mount.root == Path::new("/")))
    }

    /// Whether files of this pool can be read with direct I/O in 512-byte sectors, as our devices do.
    ///
    /// # Errors
    /// The kernel's, other than its no.
    pub fn direct_io(&self) -> Result<bool> {
        use std::os::unix::fs::{FileExt, OpenOptionsExt};

        /// What any disk can align to.
        const ALIGNED: usize = 4096;
        let marker = self.path().join(crate::layout::MARKER);
        let opened = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT | libc::O_NOFOLLOW)
            .open(marker);
        let refused = |error: &std::io::Error| error.raw_os_error() == Some(libc::EINVAL);
        let file = match opened {
            Ok(file) => file,
            Err(error) if refused(&error) => return Ok(false),
            Err(error) => return Err(Error::io("open the marker with direct I/O", error)),
        };
        let mut room = vec![0_u8; 2 * ALIGNED];
        let start = room.as_ptr().align_offset(ALIGNED);
        match room
            .get_mut(start..start + 512)
            .map(|buffer| file.read_at(buffer, 0))
        {
            Some(Ok(_)) => Ok(true),
            Some(Err(error)) if refused(&error) => Ok(false),
            Some(Err(error)) => Err(Error::io("read the marker with direct I/O", error)),
            None => Ok(false),
        }
    }

    /// The volume as its record on disk says now.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` when its record cannot be trusted.
    pub fn volume(&self, id: &VolumeId) -> Result<VolumeRecord> {
        object::exists(&self.layout.volumes, id.as_str(), "volume")
            .inspect_err(|_| self.forget_volume(id))?;
        match read_volume(&self.layout, id.as_str()) {
            Ok(record) => {
                self.heal_volume(&record);
                Ok(record)
            }
            Err(error) => Err(error.context(format!("the volume {id} is kept but not used"))),
        }
    }

    /// The snapshot as its record on disk says now.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` when its record cannot be trusted.
    pub fn snapshot(&self, id: &SnapshotId) -> Result<SnapshotRecord> {
        object::exists(&self.layout.snapshots, id.as_str(), "snapshot")
            .inspect_err(|_| self.forget_snapshot(id))?;
        match read_snapshot(&self.layout, id.as_str()) {
            Ok(record) => {
                self.heal_snapshot(&record);
                Ok(record)
            }
            Err(error) => Err(error.context(format!("the snapshot {id} is kept but not used"))),
        }
    }

    /// Volumes with an id greater than `after`, in the order of their ids, at most `limit`, and whether there are more.
    #[must_use]
    pub fn volumes(
        &self,
        after: Option<&VolumeId>,
        limit: usize,
    ) -> (Vec<Arc<VolumeRecord>>, bool) {
        object::page(&self.state().index.volumes, after, limit, |_| true)
    }

    /// Snapshots with an id greater than `after` that `wanted` chooses, as [`Pool::volumes`].
    pub fn snapshots(
        &self,
        after: Option<&SnapshotId>,
        limit: usize,
        wanted: impl Fn(&SnapshotRecord) -> bool,
    ) -> (Vec<Arc<SnapshotRecord>>, bool) {
        object::page(&self.state().index.snapshots, after, limit, wanted)
    }

    /// What is kept but not used, because its record cannot be trusted.
    #[must_use]
    pub fn quarantined(&self) -> Vec<Quarantined> {
        self.state().index.quarantined.clone()
    }

    /// The image of a volume.
    ///
    /// # Errors
    /// `Corrupt` when it is missing or no regular file: it is never made anew.
    pub fn open_image(&self, id: &VolumeId, write: bool) -> Result<File> {
        object::open_image(
            &self.layout.volumes,
            id.as_str(),
            crate::layout::DISK_IMAGE,
            write,
        )
    }

    /// A snapshot's record as it is on disk now, and the image that belongs to it. Both stay what they are as long as this is
    /// held, whatever happens to the snapshot.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` when its record cannot be trusted, or its image is missing or no regular file.
    pub fn open_snapshot(&self, id: &SnapshotId) -> Result<OpenSnapshot> {
        let opened = held::open_snapshot(&self.layout, id)?;
        self.heal_snapshot(&opened.record);
        Ok(opened)
    }

    /// Whether an opened snapshot is still the one in the pool. Who reads one that was deleted or replaced, and means to tell
    /// something of it, reads for nothing, and keeps its space from everybody else. Two looks at the disk, no lock.
    #[must_use]
    pub fn is_current(&self, opened: &OpenSnapshot) -> bool {
        held::is_current(&self.layout, opened)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held leaves at worst an index that lags behind the disk.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a failed fsync nobody knows what is on the disk: nothing is changed until the pool is opened again.
    fn distrust(&self) {
        self.distrusted.store(true, Ordering::Release);
    }

    /// Replaces the record of the object `id` in its folder. The pool is only distrusted where it is not known which of the
    /// two records is on the disk: a full disk, on which the new one found no room, has changed nothing.
    fn replace_record(&self, folder: &Folder, id: &str, bytes: &[u8]) -> Result<()> {
        durable::replace_record(folder, bytes).map_err(|error| {
            if error.kind() == ErrorKind::Uncertain {
                self.distrust();
            }
            error.context(format!("change the record of {id}"))
        })
    }

    /// A volume whose record was read is in the index, unless it was deleted since: under the lock, because a deletion takes it
    /// out of there only after its folder has gone.
    fn heal_volume(&self, record: &VolumeRecord) {
        let mut state = self.state();
        if !state.index.volumes.contains_key(&record.id)
            && is_there(&self.layout.volumes, record.id.as_str()) == Some(true)
        {
            state.index.trust("volumes", record.id.as_str());
            let record = Arc::new(record.clone());
            state.index.volumes.insert(record.id.clone(), record);
        }
    }

    /// As [`Self::heal_volume`].
    fn heal_snapshot(&self, record: &SnapshotRecord) {
        let mut state = self.state();
        if !state.index.snapshots.contains_key(&record.id)
            && is_there(&self.layout.snapshots, record.id.as_str()) == Some(true)
        {
            state.index.trust("snapshots", record.id.as_str());
            let record = Arc::new(record.clone());
            state.index.snapshots.insert(record.id.clone(), record);
        }
    }

    /// A volume that is not there is not in the index either, however it went. Under the lock, because one that is made is put
    /// in there only after its folder has come.
    fn forget_volume(&self, id: &VolumeId) {
        let mut state = self.state();
        if is_there(&self.layout.volumes, id.as_str()) == Some(false) {
            state.index.volumes.remove(id);
            state.index.release("volumes", id.as_str());
        }
    }

    /// As [`Self::forget_volume`].
    fn forget_snapshot(&self, id: &SnapshotId) {
        let mut state = self.state();
        if is_there(&self.layout.snapshots, id.as_str()) == Some(false) {
            state.index.snapshots.remove(id);
            state.index.release("snapshots", id.as_str());
        }
    }
}

/// Whether an object has a folder; `None` when that cannot be told.
fn is_there(parent: &Folder, id: &str) -> Option<bool> {
    parent.stat(id).ok().map(|found| found.is_some())
}

/// What the filesystem of an open file is.
///
/// # Errors
/// The kernel's.
pub(crate) fn filesystem(file: &File) -> Result<Filesystem> {
    let magic = fstatfs(file)
        .during("look at the pool's filesystem")?
        .filesystem_type();
    Ok(match magic {
        XFS_SUPER_MAGIC => Filesystem::Xfs,
        BTRFS_SUPER_MAGIC => Filesystem::Btrfs,
        EXT4_SUPER_MAGIC => Filesystem::Ext4,
        _ => Filesystem::Other,
    })
}

fn probe_reflink(layout: &Layout) -> Result<bool> {
    let name = format!("probe-{}", uuid::Uuid::new_v4());
    let folder = layout.tmp.make_folder(&name)?;
    let answer = try_reflink(&folder);
    folder.remove_file("from")?;
    folder.remove_file("to")?;
    layout.tmp.remove_folder(&name)?;
    answer
}

fn try_reflink(folder: &Folder) -> Result<bool> {
    use std::io::Write;

    let mut from = folder.make_file("from")?;
    let to = folder.make_file("to")?;
    from.write_all(&[1; 4096])
        .during("write a probe for shared blocks")?;
    match sys::clone_file(&from, &to) {
        Ok(()) => Ok(true),
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL)
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(Error::io("probe for shared blocks", error)),
    }
}
