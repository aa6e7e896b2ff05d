//! NodeUnstageVolume: unmounts the shared mount and releases the loop devices.

use std::path::PathBuf;

use pool::attach::loop_device::{self, LoopDevice};
use pool::attach::mount;
use pool::attach::target::TargetBase;
use pool::fault::{Step, reached};
use pool::{Error, ErrorKind, Pool, Result};

use super::occupant::{Occupant, Owner, Seat, occupant, seats_elsewhere};
use super::request::Place;

/// Undoes a stage, as far as there is something to undo. The staging folder is kubelet's and stays.
///
/// # Errors
/// `InUse` while the volume is published somewhere, or a process holds it.
pub(super) fn unstage(pool: &Pool, targets: &TargetBase, place: &Place) -> Result<()> {
    let owner = Owner::of(pool, &place.volume)?;
    let mut devices = owner.devices()?;
    if let Some(staging) = targets.open(&place.path)? {
        // A stack is only left by other drivers and by hand, but then all of it is to go.
        while let Occupant::Ours(seat) = occupant(&staging, &owner)? {
            refuse_if_published(&seat)?;
            mount::unmount_top(&staging)?;
            if !devices.contains(&seat.device) {
                devices.push(seat.device);
            }
        }
    }
    reached(Step::UnstageUnmounted)?;
    for device in devices {
        loop_device::detach(&device)?;
    }
    loop_device::remove_unused(&place.volume)?;
    reached(Step::UnstageDetached)
}

fn refuse_if_published(staged: &Seat) -> Result<()> {
    let device: &[LoopDevice] = std::slice::from_ref(&staged.device);
    let others: Vec<PathBuf> = seats_elsewhere(device, Some(&staged.mount))?
        .into_iter()
        .map(|mount| mount.mount_point)
        .collect();
    match others.first() {
        None => Ok(()),
        Some(at) => Err(Error::new(
            ErrorKind::InUse,
            format!(
                "the volume is still mounted at {}: unpublish it there first",
                at.display()
            ),
        )),
    }
}
