//! NodeUnpublishVolume: the target is unmounted and removed.

use pool::attach::loop_device;
use pool::attach::mount;
use pool::attach::target::TargetBase;
use pool::fault::{Step, reached};
use pool::{Error, ErrorKind, Pool, Result};

use super::occupant::{Occupant, Owner, occupant};
use super::request::Place;
use super::stage::taken;

/// Undoes a publish, as far as there is something to undo. Only mounts of this volume and an empty target are removed.
///
/// # Errors
/// `InUse` when a process is in it; `Conflict` when something else lies at the target.
pub(super) fn unpublish(pool: &Pool, targets: &TargetBase, place: &Place) -> Result<()> {
    let Some(target) = targets.open(&place.path)? else {
        return Ok(());
    };
    let owner = Owner::of(pool, &place.volume)?;
    let mut released = Vec::new();
    loop {
        match occupant(&target, &owner)? {
            Occupant::Ours(seat) => {
                mount::unmount_top(&target)?;
                released.push(seat.device);
            }
            Occupant::Foreign(found) => return Err(taken(&target, &found)),
            Occupant::Free(_) => break,
        }
    }
    reached(Step::UnpublishUnmounted)?;
    if !target.remove()? {
        return Err(taken(&target, &target.inspect()?));
    }
    reached(Step::UnpublishTargetRemoved)?;
    // Nobody else would ever release the device that was made for readers, or the one of a volume that is gone.
    let is_gone = matches!(owner, Owner::Gone(_));
    for device in released.iter().filter(|device| device.read_only || is_gone) {
        match loop_device::detach(device) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::InUse => {
                tracing::debug!(%error, "the device is still used");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The error for a path where the volume is not.
pub(super) fn not_there(place: &Place) -> Error {
    let shown: String = place.path.chars().take(256).collect();
    Error::new(
        ErrorKind::NotFound,
        format!("volume {} is not at {shown:?}", place.volume),
    )
}
