//! NodeGetVolumeStats.

use pool::attach::filesystem::{self, Usage};
use pool::attach::target::TargetBase;
use pool::{ErrorKind, Pool, Result, VolumeId};

use super::occupant::{Occupant, Owner, Seat, occupant};
use super::request::Place;
use super::unpublish::not_there;

/// What is told of a volume.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stats {
    /// The size of a device in bytes. How much of it a guest uses, only the guest knows.
    Device(u64),
    /// What its filesystem says.
    Filesystem(Usage),
}

/// Measures the volume that is mounted at the path.
///
/// # Errors
/// `NotFound` when there is no such volume or it is not there.
pub(super) fn stats(pool: &Pool, targets: &TargetBase, place: &Place) -> Result<Stats> {
    let (seat, target) = seat_at(pool, targets, place)?;
    if seat.is_block {
        return Ok(Stats::Device(seat.device.bytes()?));
    }
    // A mere reference is enough to measure, and works where the root folder cannot be read.
    Ok(Stats::Filesystem(filesystem::usage(target.reference()?)?))
}

/// The mount of the volume at the path, which is told from one of another volume there.
pub(super) fn seat_at(
    pool: &Pool,
    targets: &TargetBase,
    place: &Place,
) -> Result<(Seat, pool::attach::target::Target)> {
    let id = VolumeId::parse(&place.volume)?;
    pool.volume(&id)?;
    let owner = Owner::of(pool, id.as_str())?;
    // A path that can be nobody's is one where the volume is not.
    let target = match targets.open(&place.path) {
        Ok(Some(target)) => target,
        Ok(None) => return Err(not_there(place)),
        Err(error) if error.kind() == ErrorKind::InvalidInput => return Err(not_there(place)),
        Err(error) => return Err(error),
    };
    match occupant(&target, &owner)? {
        Occupant::Ours(seat) => Ok((seat, target)),
        Occupant::Free(_) | Occupant::Foreign(_) => Err(not_there(place)),
    }
}
