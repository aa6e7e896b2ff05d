//! What opening a pool does before anything else: make the disk say what the records say.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, OnceLock};

use super::{Options, Pool, State, admission, object};
use crate::device;
use crate::durable::{self, Folder};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::fault::{self, Step, reached};
use crate::held;
use crate::id::{SnapshotId, VolumeId};
use crate::index::Index;
use crate::layout::{DISK_IMAGE, Layout, SNAPSHOT_IMAGE};
use crate::marker::{self, Marker};
use crate::record::VolumeRecord;

impl Pool {
    /// Opens a pool, takes its ownership and recovers it. Every step can be interrupted and repeated.
    ///
    /// 1. The marker is read and compared, the ownership taken.
    /// 2. Filesystems inside our volumes that a dead process left frozen are thawed.
    /// 3. The filesystem is synced, so that what is read below is on the disk; `tmp/` is swept.
    /// 4. All records are read; what cannot be trusted is quarantined in place.
    /// 5. Interrupted expansions are rolled forward.
    ///
    /// # Errors
    /// `Unavailable` when this is no pool, or another one than `options` say; `InUse` when it is owned, mostly by another
    /// process; `Corrupt` when the marker cannot be trusted. Nothing is changed then.
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        let root =
            Folder::open_path(path).map_err(|error| error.with_kind(ErrorKind::Unavailable))?;
        let marker = marker::read(&root, path)?;
        check_marker(&marker, path, options)?;
        let ownership = marker::own(&root, path)?;
        let layout = Layout::open(path)?;
        fault::set_pool(root.as_file());
        reached(Step::RecoveryOwned)?;
        device::thaw_all(layout.device())?;
        reached(Step::RecoveryThawed)?;
        durable::sync_filesystem(&layout.root)?;
        sweep(&layout);
        reached(Step::RecoverySwept)?;
        let index = Index::read(&layout)?;
        reached(Step::RecoveryRead)?;
        let pool = Self {
            layout,
            marker,
            policy: options.policy,
            state: Mutex::new(State {
                index,
                reserved: admission::Want::default(),
            }),
            admission: Mutex::new(()),
            emptying: Mutex::default(),
            snapshot_records: Mutex::new(()),
            distrusted: AtomicBool::new(false),
            reflink: OnceLock::new(),
            _ownership: ownership,
        };
        pool.finish_expansions();
        reached(Step::RecoveryRolledForward)?;
        Ok(pool)
    }

    /// An expansion that cannot be finished now (no space for a thick one) is left for its next call: the volume is as
    /// usable as before.
    fn finish_expansions(&self) {
        let interrupted: Vec<VolumeRecord> = self
            .state()
            .index
            .volumes
            .values()
            .filter(|volume| volume.growing_to_bytes.is_some())
            .map(|volume| VolumeRecord::clone(volume))
            .collect();
        for record in interrupted {
            match self.roll_forward(&record, 0) {
                Ok(_) => tracing::info!(volume = %record.id, "finished an interrupted expansion"),
                Err(error) => {
                    tracing::warn!(volume = %record.id, %error, "an interrupted expansion waits for its next call");
                }
            }
        }
    }
}

fn check_marker(marker: &Marker, path: &Path, options: &Options) -> Result<()> {
    if let Some(node) = &options.node
        && *node != marker.node
    {
        return Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "the pool {} belongs to the node {:?}, this is {node:?}: a disk of another node, or a renamed node. Nothing was changed",
                path.display(),
                marker.node
            ),
        ));
    }
    if let Some(uuid) = &options.uuid
        && *uuid != marker.uuid
    {
        return Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "{} holds the pool {}, but this process works for {uuid}: another disk is mounted there. Mount the right one, or restart to change pools",
                path.display(),
                marker.uuid
            ),
        ));
    }
    Ok(())
}

/// Removes what interrupted operations left in `tmp/` and beside records. Nothing there was ever acknowledged. Failure is
/// no reason to refuse the pool (a read-only one still serves what is published), nor to leave the rest; unknown files stay.
fn sweep(layout: &Layout) {
    let in_tmp = for_each(&layout.tmp, |name| {
        sweep_one(layout, name).context_with(|| format!("remove tmp/{name}"))
    });
    let synced = layout.tmp.sync();
    // What an interrupted replacement of a record left. A folder whose name is no id of ours is not looked into.
    let of_volumes = for_each(&layout.volumes, |name| {
        sweep_record(&layout.volumes, name, VolumeId::parse(name).is_ok())
    });
    let of_snapshots = for_each(&layout.snapshots, |name| {
        sweep_record(&layout.snapshots, name, SnapshotId::parse(name).is_ok())
    });
    let swept = in_tmp.and(synced).and(of_volumes).and(of_snapshots);
    if let Err(error) = swept {
        tracing::warn!(%error, "leftovers of interrupted operations stay");
    }
}

/// Does `act` for each name in a folder, also after one has failed, and answers the first error.
fn for_each(folder: &Folder, act: impl Fn(&str) -> Result<()>) -> Result<()> {
    let mut first = Ok(());
    for name in folder.names()? {
        first = first.and(act(&name));
    }
    first
}

fn sweep_record(parent: &Folder, name: &str, is_ours: bool) -> Result<()> {
    if !is_ours {
        return Ok(());
    }
    let folder = parent.folder(name)?;
    folder.remove_file(durable::temporary_record())
}

fn sweep_one(layout: &Layout, name: &str) -> Result<()> {
    let folder = layout.tmp.folder(name)?;
    // An image that was replaced, and is still read: in the trash it counts as long as it is.
    if folder.stat(SNAPSHOT_IMAGE)?.is_some()
        && held::alone(folder.file(SNAPSHOT_IMAGE, false)?)?.is_none()
    {
        return durable::rename(&layout.tmp, name, &layout.trash, name);
    }
    for file in [SNAPSHOT_IMAGE, "from", "to"] {
        folder.remove_file(file)?;
    }
    object::remove_object(&layout.tmp, &folder, name, DISK_IMAGE)
}
