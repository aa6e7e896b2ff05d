//! What is in a pool, read once at the start and kept in step with the disk by the pool's one owner.

use std::collections::BTreeMap;
use std::sync::Arc;

use nix::sys::stat::FileStat;
use serde::de::DeserializeOwned;

use crate::durable::{self, Folder};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::{SnapshotId, VolumeId};
use crate::layout::{DISK_IMAGE, Layout, SNAPSHOT_IMAGE};
use crate::record::{self, Kind, SnapshotRecord, VolumeRecord};

/// All objects of a pool, by id.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Volumes that can be used.
    pub(crate) volumes: BTreeMap<VolumeId, Arc<VolumeRecord>>,
    /// Snapshots that can be used.
    pub(crate) snapshots: BTreeMap<SnapshotId, Arc<SnapshotRecord>>,
    /// Folders that are kept and not touched, because their record cannot be trusted.
    pub(crate) quarantined: Vec<Quarantined>,
}

/// A folder whose record cannot be trusted. It is kept, reported, and read again when somebody asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// `volumes/<name>` or `snapshots/<name>`.
    pub path: String,
    /// The folder's name; an id, unless a person put the folder there.
    pub name: String,
    /// Why.
    pub reason: String,
    /// What it may come to hold, in bytes. It counts as long as it is kept: its guest may be running, and once the record
    /// can be trusted again the promise must still hold.
    pub charge_bytes: u64,
}

impl Index {
    /// Reads all records of a pool.
    ///
    /// # Errors
    /// Only when a folder cannot be listed; a damaged record is in the answer.
    pub(crate) fn read(layout: &Layout) -> Result<Self> {
        let mut index = Self::default();
        for name in layout.volumes.names()? {
            match read_volume(layout, &name) {
                Ok(record) => drop(index.volumes.insert(record.id.clone(), Arc::new(record))),
                Err(error) => {
                    let charge =
                        image_bytes(&layout.volumes, &name, DISK_IMAGE, |stat| stat.st_size);
                    index.quarantine("volumes", &name, &error, charge);
                }
            }
        }
        for name in layout.snapshots.names()? {
            match read_snapshot(layout, &name) {
                Ok(record) => drop(index.snapshots.insert(record.id.clone(), Arc::new(record))),
                Err(error) => {
                    let charge = image_bytes(&layout.snapshots, &name, SNAPSHOT_IMAGE, |stat| {
                        stat.st_blocks.saturating_mul(512)
                    });
                    index.quarantine("snapshots", &name, &error, charge);
                }
            }
        }
        Ok(index)
    }

    fn quarantine(&mut self, parent: &str, name: &str, error: &Error, charge_bytes: u64) {
        let path = format!("{parent}/{name}");
        tracing::error!(path, %error, "the record cannot be trusted; the folder is kept and not used");
        self.quarantined.push(Quarantined {
            path,
            name: name.to_owned(),
            reason: error.to_string(),
            charge_bytes,
        });
    }

    /// The record in this folder can be trusted.
    pub(crate) fn trust(&mut self, parent: &str, name: &str) {
        if self.release(parent, name) {
            tracing::info!(parent, name, "the record can be trusted again");
        }
    }

    /// Nothing is kept in this folder any more. Whether something was.
    pub(crate) fn release(&mut self, parent: &str, name: &str) -> bool {
        let path = format!("{parent}/{name}");
        let before = self.quarantined.len();
        self.quarantined.retain(|folder| folder.path != path);
        self.quarantined.len() < before
    }

    fn quarantined_in(&self, parent: &str) -> u64 {
        let kept = self.quarantined.iter();
        kept.filter(|folder| folder.path.starts_with(parent))
            .map(|folder| folder.charge_bytes)
            .sum()
    }

    /// The same records, without a copy of each.
    pub(crate) fn share(&self) -> Self {
        Self {
            volumes: self.volumes.clone(),
            snapshots: self.snapshots.clone(),
            quarantined: Vec::new(),
        }
    }

    /// The sum of the sizes of all volumes, those that cannot be used included, in bytes.
    #[must_use]
    pub(crate) fn volume_sizes(&self) -> u64 {
        let used: u64 = self
            .volumes
            .values()
            .map(|volume| volume.charge_bytes())
            .sum();
        used + self.quarantined_in("volumes/")
    }

    /// The sum of the charges of all snapshots, those that cannot be used included, in bytes.
    #[must_use]
    pub(crate) fn snapshot_charges(&self) -> u64 {
        let used: u64 = self
            .snapshots
            .values()
            .map(|snapshot| snapshot.charge_bytes)
            .sum();
        used + self.quarantined_in("snapshots/")
    }
}

/// Reads the record of the volume in the folder `volumes/<name>`.
pub(crate) fn read_volume(layout: &Layout, name: &str) -> Result<VolumeRecord> {
    let id = VolumeId::parse(name).map_err(not_ours)?;
    let record: VolumeRecord = read_object(&layout.volumes, name, Kind::Volume)?;
    same_id(record.id == id, name)?;
    Ok(record)
}

/// Reads the record of the snapshot in the folder `snapshots/<name>`.
pub(crate) fn read_snapshot(layout: &Layout, name: &str) -> Result<SnapshotRecord> {
    let id = SnapshotId::parse(name).map_err(not_ours)?;
    let record: SnapshotRecord = read_object(&layout.snapshots, name, Kind::Snapshot)?;
    same_id(record.id == id, name)?;
    Ok(record)
}

/// Reads the record of a snapshot in its folder.
pub(crate) fn read_snapshot_in(folder: &Folder, id: &SnapshotId) -> Result<SnapshotRecord> {
    let record: SnapshotRecord = read_record(folder, id.as_str(), Kind::Snapshot)?;
    same_id(record.id == *id, id.as_str())?;
    Ok(record)
}

fn read_object<T: DeserializeOwned>(parent: &Folder, name: &str, kind: Kind) -> Result<T> {
    read_record(&parent.folder(name)?, name, kind)
}

fn read_record<T: DeserializeOwned>(folder: &Folder, name: &str, kind: Kind) -> Result<T> {
    let bytes = durable::read_record(folder).map_err(|error| match error.kind() {
        // The folder is there, its record is not: damage, not absence.
        ErrorKind::NotFound => error.with_kind(ErrorKind::Corrupt),
        _ => error,
    });
    record::decode(kind, &bytes?).context_with(|| format!("the record of {name} cannot be trusted"))
}

/// What the image in a folder that cannot be trusted says of its size; nothing for one that is not there.
fn image_bytes(parent: &Folder, name: &str, image: &str, of: impl FnOnce(&FileStat) -> i64) -> u64 {
    let Ok(Some(stat)) = parent.stat(&format!("{name}/{image}")) else {
        return 0;
    };
    u64::try_from(of(&stat)).unwrap_or(0)
}

fn same_id(same: bool, name: &str) -> Result<()> {
    if same {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        format!("the record in the folder {name} is that of another object"),
    ))
}

fn not_ours(error: Error) -> Error {
    error
        .with_kind(ErrorKind::Corrupt)
        .context("a folder that is not ours")
}
