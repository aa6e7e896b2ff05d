//! NodeExpandVolume: device and filesystem take the size that the controller gave to the image.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pool::attach::filesystem;
use pool::attach::loop_device::{self, LoopDevice};
use pool::attach::mountinfo::MountTable;
use pool::attach::target::TargetBase;
use pool::record::{VolumeMode, VolumeRecord};
use pool::{Error, ErrorKind, Pool, Result, VolumeId};

use super::occupant::Owner;
use super::request::{Expand, Place};
use super::stats::seat_at;

/// Grows what is smaller than the image, and answers the image's size in bytes. Repeating it changes nothing.
///
/// # Errors
/// `NotFound` when the volume is not at the path, `OutOfRange` when the controller did not grow it so far.
pub(super) fn expand(pool: &Pool, targets: &TargetBase, request: &Expand) -> Result<u64> {
    let place = &request.place;
    let record = pool.volume(&VolumeId::parse(&place.volume)?)?;
    check_range(&record, request)?;
    let image = pool.checked_image(&record, false)?;
    let devices = Owner::of(pool, &place.volume)?.devices()?;
    match record.mode {
        VolumeMode::Block => check_block_place(pool, targets, place, &devices)?,
        VolumeMode::Filesystem(_) => drop(seat_at(pool, targets, place)?),
    }
    for device in &devices {
        loop_device::set_capacity(device, &image)?;
    }
    if let VolumeMode::Filesystem(format) = record.mode {
        let (seat, _target) = seat_at(pool, targets, place)?;
        let root = open_writable(&seat.device)?;
        filesystem::grow(&root, format.fs, &seat.device)?;
    }
    Ok(record.size_bytes)
}

fn check_range(record: &VolumeRecord, request: &Expand) -> Result<()> {
    let size = record.size_bytes;
    if request.required_bytes > size {
        return Err(Error::new(
            ErrorKind::OutOfRange,
            format!(
                "volume {} has {size} bytes and {} are asked for: the controller grows it first",
                record.id, request.required_bytes
            ),
        ));
    }
    if request.limit_bytes != 0 && request.limit_bytes < size {
        return Err(Error::new(
            ErrorKind::OutOfRange,
            format!(
                "volume {} has {size} bytes, more than the limit of {}; volumes never shrink",
                record.id, request.limit_bytes
            ),
        ));
    }
    Ok(())
}

/// kubelet names the staging folder of a block volume too, where nothing is ever mounted. It will do for a volume that
/// is attached.
fn check_block_place(
    pool: &Pool,
    targets: &TargetBase,
    place: &Place,
    devices: &[LoopDevice],
) -> Result<()> {
    match seat_at(pool, targets, place) {
        Ok(_) => Ok(()),
        Err(error)
            if error.kind() == ErrorKind::NotFound
                && !devices.is_empty()
                && Path::new(&place.path).is_absolute()
                && Path::new(&place.path).is_dir() =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// The root of the filesystem on `device`, through a mount that may be written: a path of a pod that may only read
/// cannot be used to grow.
fn open_writable(device: &LoopDevice) -> Result<File> {
    let table = MountTable::read()?;
    for mount in table
        .of_filesystem(device.device_number())
        .filter(|mount| !mount.read_only && !mount.super_read_only)
    {
        // Hidden below another mount, or a single file of it.
        if let Ok(root) = File::open(&mount.mount_point)
            && root
                .metadata()
                .is_ok_and(|found| found.dev() == device.rdev)
        {
            return Ok(root);
        }
    }
    Err(Error::new(
        ErrorKind::Precondition,
        format!(
            "the filesystem on {} is mounted read-only everywhere: it grows when it is mounted for writing",
            device.path().display()
        ),
    ))
}
