//! NodeStageVolume: the record, the filesystem, the loop device, the mount that all pods of the node share.

use std::fs::File;

use pool::attach::filesystem;
use pool::attach::loop_device::{self, ImageKey, LoopDevice, Usage};
use pool::attach::mount;
use pool::attach::mount_options::MountOptions;
use pool::attach::target::{Found, Target, TargetBase};
use pool::fault::{Step, reached};
use pool::record::{Format, FormatState, VolumeMode, VolumeRecord};
use pool::{Error, ErrorKind, Pool, Result, VolumeId};

use super::occupant::{Occupant, Owner, Seat, occupant};
use super::request::{Access, Shape, Stage, Use};
use super::rollback::Rollback;

/// Stages a volume. Repeating it changes nothing.
///
/// 1. The record says that the volume was staged: from here on nobody may take it for unused.
/// 2. A volume without a filesystem gets one ([`filesystem::ensure_made`]).
/// 3. A loop device is bound to the image.
/// 4. The filesystem is checked, and grown where that is only possible before a mount.
/// 5. It is mounted, and grown to its device.
///
/// If we stop anywhere, repeating the call goes on from there: nothing that is there already is made again. If a step
/// fails, the steps before it are undone, but for 1 and 2.
pub(super) fn stage(pool: &Pool, targets: &TargetBase, request: &Stage) -> Result<()> {
    let record = pool.volume(&VolumeId::parse(&request.volume)?)?;
    check_fits(&record, &request.used.shape)?;
    let staging = open_place(targets, &request.staging)?;
    match (&request.used.shape, record.mode) {
        (Shape::Filesystem { options, .. }, VolumeMode::Filesystem(format)) => {
            let options = staging_options(&request.used, options);
            stage_filesystem(pool, &record, format, &staging, &options).map(drop)
        }
        _ => stage_block(pool, &record, &staging, &request.used),
    }
}

/// Opens the folder that holds a path of a request.
pub(super) fn open_place(targets: &TargetBase, path: &str) -> Result<Target> {
    targets.open(path)?.ok_or_else(|| {
        Error::new(
            ErrorKind::Precondition,
            format!("the folder that is to hold {path:?} does not exist: make it first"),
        )
    })
}

/// A volume is used as what it was made for.
pub(super) fn check_fits(record: &VolumeRecord, shape: &Shape) -> Result<()> {
    let text = match (shape, record.mode) {
        (Shape::Block, VolumeMode::Block) => return Ok(()),
        (Shape::Filesystem { fs: None, .. }, VolumeMode::Filesystem(_)) => return Ok(()),
        (
            Shape::Filesystem {
                fs: Some(asked), ..
            },
            VolumeMode::Filesystem(has),
        ) => {
            if *asked == has.fs {
                return Ok(());
            }
            format!("has {} and not {asked}", has.fs)
        }
        (Shape::Block, VolumeMode::Filesystem(has)) => {
            format!("is a filesystem volume ({}) and not a block volume", has.fs)
        }
        (Shape::Filesystem { .. }, VolumeMode::Block) => {
            "is a block volume and has no filesystem to mount".to_owned()
        }
    };
    Err(Error::new(
        ErrorKind::Precondition,
        format!("volume {} {text}: use it as it was created", record.id),
    ))
}

/// What is said about reading only belongs to a publish; only a volume that nobody may write is mounted so for all.
pub(super) fn staging_options(used: &Use, options: &MountOptions) -> MountOptions {
    if used.access == Access::Reader {
        options.clone().read_only()
    } else {
        options.clone()
    }
}

fn stage_block(pool: &Pool, record: &VolumeRecord, staging: &Target, used: &Use) -> Result<()> {
    match staging.inspect()? {
        // kubelet's folder stays empty; the volume is published straight from its device.
        Found::Nothing | Found::Folder { .. } => {}
        other => return Err(taken(staging, &other)),
    }
    let read_only = used.access == Access::Reader;
    Rollback::run(|rollback| attach(pool, record, read_only, rollback).map(drop))
}

/// Marks the volume as staged and binds its image to a loop device.
pub(super) fn attach(
    pool: &Pool,
    record: &VolumeRecord,
    read_only: bool,
    rollback: &mut Rollback<'_>,
) -> Result<LoopDevice> {
    let image = open_image(pool, record, read_only)?;
    mark_staged(pool, record)?;
    attach_image(&image, record, read_only, rollback)
}

fn attach_image(
    image: &File,
    record: &VolumeRecord,
    read_only: bool,
    rollback: &mut Rollback<'_>,
) -> Result<LoopDevice> {
    let attached = loop_device::attach(image, &record.id.to_string(), read_only)?;
    let device = attached.device;
    if attached.fresh {
        rollback.push(move || loop_device::detach(&device));
    }
    reached(Step::StageAttached)?;
    Ok(device)
}

/// The image, checked against the record. It is opened for writing only when a device for writing has to be made: a
/// volume that is attached stays usable when the pool has become read-only.
fn open_image(pool: &Pool, record: &VolumeRecord, read_only: bool) -> Result<File> {
    let image = pool.checked_image(record, false)?;
    let attached = loop_device::find(ImageKey::of(&image)?)?
        .iter()
        .any(|device| !device.read_only);
    if read_only || attached {
        Ok(image)
    } else {
        pool.checked_image(record, true)
    }
}

fn mark_staged(pool: &Pool, record: &VolumeRecord) -> Result<()> {
    if !record.staged {
        pool.update_volume(&record.id, |record| record.staged = true)?;
    }
    reached(Step::StageRecorded)
}

/// Mounts the volume's filesystem at `staging`, unless it is there already.
pub(super) fn stage_filesystem(
    pool: &Pool,
    record: &VolumeRecord,
    format: Format,
    staging: &Target,
    options: &MountOptions,
) -> Result<Seat> {
    let key = ImageKey::of(&pool.checked_image(record, false)?)?;
    let owner = Owner::Image(key);
    match occupant(staging, &owner)? {
        Occupant::Ours(seat) if !seat.is_block => {
            return same_options(seat, staging, options);
        }
        Occupant::Free(Found::Nothing | Found::Folder { empty: true }) => {}
        Occupant::Free(found) | Occupant::Foreign(found) => return Err(taken(staging, &found)),
        Occupant::Ours(seat) => return Err(taken(staging, &Found::Mounted(vec![seat.mount]))),
    }
    Rollback::run(|rollback| {
        if staging.make_folder()? {
            rollback.push(|| staging.remove().map(drop));
        }
        mount_new(pool, record, format, staging, options, rollback)
    })?;
    match occupant(staging, &owner)? {
        Occupant::Ours(seat) => Ok(seat),
        other => Err(Error::new(
            ErrorKind::Uncertain,
            format!(
                "{} was mounted and is not any more: {other:?}",
                staging.path().display()
            ),
        )),
    }
}

fn mount_new<'a>(
    pool: &Pool,
    record: &VolumeRecord,
    format: Format,
    staging: &'a Target,
    options: &MountOptions,
    rollback: &mut Rollback<'a>,
) -> Result<()> {
    let fs = format.fs;
    let image = match format.state {
        FormatState::Unformatted | FormatState::Formatting => pool.checked_image(record, true)?,
        FormatState::Formatted | FormatState::Inherited => open_image(pool, record, false)?,
    };
    mark_staged(pool, record)?;
    filesystem::ensure_made(&image, record, format, |state| {
        record_state(pool, &record.id, state)
    })?;
    let device = attach_image(&image, record, false, rollback)?;
    // Mounted at another path by a stage that was never undone, or by a pod that runs and whose mount kubelet has taken away
    // from the node meanwhile: it is in use, and was checked then.
    let is_mounted = matches!(loop_device::usage(&device)?, Usage::Mounted(_))
        || loop_device::is_claimed(&device)?;
    if !options.is_read_only() && !is_mounted {
        filesystem::check(&device.path(), fs)?;
        filesystem::grow_before_mount(&device, fs)?;
    }
    reached(Step::StageChecked)?;
    mount::mount_filesystem(&device, fs, options, staging)?;
    rollback.push(|| mount::unmount_top(staging));
    reached(Step::StageMounted)?;
    if !options.is_read_only() {
        let root = staging.open_folder()?;
        filesystem::grow(&root, fs, &device)?;
    }
    reached(Step::StageGrown)
}

fn record_state(pool: &Pool, id: &VolumeId, state: FormatState) -> Result<()> {
    pool.update_volume(id, |record| {
        if let VolumeMode::Filesystem(format) = &mut record.mode {
            format.state = state;
        }
    })
    .map(drop)
}

fn same_options(seat: Seat, staging: &Target, options: &MountOptions) -> Result<Seat> {
    if seat.read_only() == options.is_read_only() {
        return Ok(seat);
    }
    let how = if seat.read_only() {
        "read-only"
    } else {
        "for writing"
    };
    Err(Error::new(
        ErrorKind::Conflict,
        format!(
            "the volume is staged at {} {how}: unstage it first",
            staging.path().display()
        ),
    ))
}

pub(super) fn taken(target: &Target, found: &Found) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!(
            "{} is taken: {found}; it was left alone",
            target.path().display()
        ),
    )
}
