//! NodeGetVolumeHealth and NodeGetStorageHealth: what is wrong, as far as the node can see.

use pool::attach::loop_device::{self, LoopDevice};
use pool::attach::mountinfo::MountTable;
use pool::attach::target::TargetBase;
use pool::{Pool, Result};
use proto::csi::v1::node_get_storage_health_response::StorageBackendHealth;
use proto::csi::v1::volume_health::VolumeHealthEntry;
use proto::csi::v1::{StorageHealthErrorType, VolumeHealthErrorType};

use super::occupant::{Owner, images};
use super::request::Place;
use super::stats::seat_at;
use crate::local_node::Problem;

/// What the pool knows of a volume, as CSI tells it.
pub(super) fn entry(problem: Problem) -> VolumeHealthEntry {
    let (status, reason, message) = match problem {
        Problem::RecordDamaged(message) => (
            VolumeHealthErrorType::Inaccessible,
            "RecordDamaged",
            message,
        ),
        Problem::ImageDamaged(message) => {
            (VolumeHealthErrorType::DataLoss, "ImageDamaged", message)
        }
        Problem::Unreadable(message) => {
            (VolumeHealthErrorType::Inaccessible, "Unreadable", message)
        }
        Problem::PoolUnavailable(message) => (
            VolumeHealthErrorType::Inaccessible,
            "PoolUnavailable",
            message,
        ),
    };
    made(status, reason, message)
}

/// What only the kernel of this node knows: how the volume is attached and mounted.
///
/// # Errors
/// `NotFound` when `place` names a path where the volume is not.
pub(super) fn on_node(
    pool: &Pool,
    targets: &TargetBase,
    place: &Place,
) -> Result<Vec<VolumeHealthEntry>> {
    if !place.path.is_empty() {
        seat_at(pool, targets, place)?;
    }
    let devices = Owner::of(pool, &place.volume)?.devices()?;
    let mut entries = Vec::new();
    for device in &devices {
        let path = device.path();
        let path = path.display();
        if !device.direct_io {
            entries.push(made(
                VolumeHealthErrorType::Degraded,
                "NoDirectIo",
                format!("{path} goes through the page cache: the disk of the pool cannot do direct I/O with 512-byte sectors"),
            ));
        }
        if stopped_writing(device)? {
            entries.push(made(
                VolumeHealthErrorType::Inaccessible,
                "FilesystemReadOnly",
                format!("the kernel made the filesystem on {path} read-only after an error: see dmesg; stop the pod, which has it checked at its next start"),
            ));
        }
    }
    Ok(entries)
}

/// The whole filesystem refuses writes although it was mounted for writing.
fn stopped_writing(device: &LoopDevice) -> Result<bool> {
    let table = MountTable::read()?;
    Ok(table
        .of_filesystem(device.device_number())
        .any(|mount| mount.super_read_only && !mount.read_only))
}

/// What is wrong with the pool as a whole.
pub(super) fn storage(
    pool: std::result::Result<&Pool, String>,
) -> Result<Vec<StorageBackendHealth>> {
    let pool = match pool {
        Ok(pool) => pool,
        Err(message) => {
            return Ok(vec![backend(
                StorageHealthErrorType::StorageUnreachable,
                "PoolUnavailable",
                message,
            )]);
        }
    };
    let images = images(pool)?;
    let slow = loop_device::all_backed_by_device(pool.device())?
        .iter()
        .filter(|device| !device.direct_io && images.contains(&device.image))
        .count();
    let mut entries = Vec::new();
    if slow > 0 {
        entries.push(backend(
            StorageHealthErrorType::StorageDegraded,
            "NoDirectIo",
            format!("{slow} volumes go through the page cache: the disk of the pool cannot do direct I/O with 512-byte sectors"),
        ));
    }
    Ok(entries)
}

fn made(status: VolumeHealthErrorType, reason: &str, message: String) -> VolumeHealthEntry {
    VolumeHealthEntry {
        status: status.into(),
        reason: reason.to_owned(),
        message,
    }
}

fn backend(status: StorageHealthErrorType, reason: &str, message: String) -> StorageBackendHealth {
    StorageBackendHealth {
        status: status.into(),
        reason: reason.to_owned(),
        message,
        volume_capability: None,
    }
}
