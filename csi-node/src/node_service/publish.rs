//! NodePublishVolume: the volume at the path of one pod.

use std::path::PathBuf;

use pool::attach::loop_device::{self, ImageKey, LoopDevice};
use pool::attach::mount;
use pool::attach::mount_options::MountOptions;
use pool::attach::mountinfo::Mount;
use pool::attach::target::{Found, Target, TargetBase};
use pool::fault::{Step, reached};
use pool::record::{Format, VolumeMode, VolumeRecord};
use pool::{Error, ErrorKind, Pool, Result, VolumeId};

use super::occupant::{Occupant, Owner, Seat, occupant, seats_elsewhere};
use super::request::{Access, Publish, Shape};
use super::rollback::Rollback;
use super::stage::{attach, check_fits, open_place, stage_filesystem, staging_options, taken};

/// Publishes a volume at the target. Repeating it changes nothing.
///
/// 1. What a reboot undid is made up for: kubelet does not stage again by itself.
/// 2. The target is made.
/// 3. The filesystem, or the device node, is bind-mounted onto it.
///
/// If we stop anywhere, repeating the call goes on from there. If a step fails, the steps before it are undone, but for a
/// stage that was made up for: that is what kubelet believes to be there.
pub(super) fn publish(pool: &Pool, targets: &TargetBase, request: &Publish) -> Result<()> {
    let record = pool.volume(&VolumeId::parse(&request.volume)?)?;
    check_fits(&record, &request.used.shape)?;
    let target = open_place(targets, &request.target)?;
    let key = ImageKey::of(&pool.checked_image(&record, false)?)?;
    let owner = Owner::Image(key);
    match occupant(&target, &owner)? {
        Occupant::Ours(seat) => return same(&seat, &target, request),
        Occupant::Foreign(found) => return Err(taken(&target, &found)),
        Occupant::Free(found) => refuse_leftover(&target, &found)?,
    }
    match (&request.used.shape, record.mode) {
        (Shape::Filesystem { options, .. }, VolumeMode::Filesystem(format)) => {
            publish_filesystem(pool, targets, request, &record, format, options, &target)
        }
        _ => publish_block(pool, request, &record, &owner, &target),
    }
}

/// The volume is at the target already. CSI: the same arguments are answered with OK, others with ALREADY_EXISTS.
fn same(seat: &Seat, target: &Target, request: &Publish) -> Result<()> {
    let has = |read_only: bool| {
        if read_only {
            "read-only"
        } else {
            "for writing"
        }
    };
    let conflict = |how: String| {
        let path = target.path().display();
        Err(Error::new(
            ErrorKind::Conflict,
            format!("the volume is published at {path} {how}: unpublish it first"),
        ))
    };
    if seat.read_only() != request.read_only {
        let (found, asked) = (has(seat.read_only()), has(request.read_only));
        return conflict(format!("{found} and not {asked}"));
    }
    // Options of the filesystem itself were settled when it was staged.
    match &request.used.shape {
        Shape::Filesystem { options, .. } => match options.difference(&seat.mount.options) {
            Some(option) => conflict(format!("with another answer to the mount option {option}")),
            None => Ok(()),
        },
        Shape::Block => Ok(()),
    }
}

/// What an earlier life left at the target may be empty. Anything else is somebody's.
fn refuse_leftover(target: &Target, found: &Found) -> Result<()> {
    match found {
        Found::Nothing | Found::Folder { empty: true } | Found::File { empty: true } => Ok(()),
        other => Err(taken(target, other)),
    }
}

fn publish_filesystem(
    pool: &Pool,
    targets: &TargetBase,
    request: &Publish,
    record: &VolumeRecord,
    format: Format,
    options: &MountOptions,
    target: &Target,
) -> Result<()> {
    if request.staging.is_empty() {
        return Err(Error::new(
            ErrorKind::Precondition,
            "staging_target_path is missing: this volume is published from where it is staged",
        ));
    }
    let staging = open_place(targets, &request.staging)?;
    // Mounts it if it is not there, and never takes an empty folder for a volume.
    let for_all = staging_options(&request.used, options);
    let staged = stage_or_use(pool, record, format, &staging, &for_all)?;
    let elsewhere = seats_elsewhere(&[staged.device], Some(&staged.mount))?;
    allow_another_path(request.used.access, &elsewhere)?;
    let options = if request.read_only {
        options.clone().read_only()
    } else {
        options.clone()
    };
    Rollback::run(|rollback| {
        // An empty file here is left from the volume's time as a block device, or from another driver.
        if matches!(target.inspect()?, Found::File { empty: true }) {
            target.remove()?;
        }
        if target.make_folder()? {
            rollback.push(|| target.remove().map(drop));
        }
        reached(Step::PublishTargetMade)?;
        mount::bind_folder(&staging, target, &options)?;
        rollback.push(|| mount::unmount_top(target));
        reached(Step::PublishBound)?;
        reached(Step::PublishDone)
    })
}

/// A stage that is there serves as it is: its own options were settled when it was made.
fn stage_or_use(
    pool: &Pool,
    record: &VolumeRecord,
    format: Format,
    staging: &Target,
    options: &MountOptions,
) -> Result<Seat> {
    let key = ImageKey::of(&pool.checked_image(record, false)?)?;
    match occupant(staging, &Owner::Image(key))? {
        Occupant::Ours(seat) if !seat.is_block => Ok(seat),
        _ => stage_filesystem(pool, record, format, staging, options),
    }
}

fn publish_block(
    pool: &Pool,
    request: &Publish,
    record: &VolumeRecord,
    owner: &Owner<'_>,
    target: &Target,
) -> Result<()> {
    let elsewhere = seats_elsewhere(&owner.devices()?, None)?;
    allow_another_path(request.used.access, &elsewhere)?;
    Rollback::run(|rollback| {
        let device = attach(pool, record, request.read_only, rollback)?;
        if target.make_file()? {
            rollback.push(|| target.remove().map(drop));
        }
        reached(Step::PublishTargetMade)?;
        mount::bind_device(&device, target)?;
        rollback.push(|| mount::unmount_top(target));
        reached(Step::PublishBound)?;
        check_same_device(&device, owner)?;
        reached(Step::PublishDone)
    })
}

/// A loop device that somebody detached by hand between two steps must not be handed to a pod.
fn check_same_device(device: &LoopDevice, owner: &Owner<'_>) -> Result<()> {
    let now = loop_device::by_number(device.number)?;
    if now.is_some_and(|now| matches!(owner, Owner::Image(key) if now.image == *key)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Busy,
        format!(
            "{} was detached at this moment: try again",
            device.path().display()
        ),
    ))
}

/// CSI's table for a second path on the same node.
fn allow_another_path(access: Access, elsewhere: &[Mount]) -> Result<()> {
    let places: Vec<PathBuf> = elsewhere
        .iter()
        .map(|mount| mount.mount_point.clone())
        .collect();
    match (access, places.first()) {
        (_, None) | (Access::ManyWriters, _) => Ok(()),
        (Access::Reader | Access::OneWriter, Some(at)) => Err(Error::new(
            ErrorKind::InUse,
            format!(
                "the volume is published at {}, and its access mode allows one path only",
                at.display()
            ),
        )),
    }
}
