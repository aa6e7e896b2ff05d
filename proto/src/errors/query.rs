//! Controller RPCs that only read: validate, lists, capacity, get.

use tonic::Code;

use super::Kind;
use super::shared::{Answer, FAULT, NEVER, READ_CORRUPT, READ_FAILED, READ_LATER, because};

pub(super) fn validate(kind: Kind) -> Answer {
    match kind {
        Kind::InvalidArgument => because(
            Code::InvalidArgument,
            "the volume id or the capabilities are missing; capabilities that the driver does not \
             support are no error but an answer without `confirmed`",
        ),
        Kind::NotFound => because(
            Code::NotFound,
            "CSI's code for a volume that does not exist",
        ),
        Kind::Precondition | Kind::Unavailable => READ_LATER,
        Kind::Corrupt => READ_CORRUPT,
        Kind::Io | Kind::Uncertain => READ_FAILED,
        Kind::Internal => FAULT,
        Kind::Conflict
        | Kind::Busy
        | Kind::InUse
        | Kind::NoSpace
        | Kind::OutOfRange
        | Kind::BadToken
        | Kind::Unimplemented => NEVER,
    }
}

/// ListVolumes, ListSnapshots, ControllerListVolumeHealth.
pub(super) fn list(kind: Kind) -> Answer {
    match kind {
        Kind::InvalidArgument => because(
            Code::InvalidArgument,
            "a negative number of entries or an over-long filter; a filter that matches nothing is \
             an empty list",
        ),
        Kind::BadToken => because(
            Code::Aborted,
            "CSI's code for it: the caller begins the list again without a token",
        ),
        Kind::Precondition | Kind::Unavailable => READ_LATER,
        Kind::Corrupt => READ_CORRUPT,
        Kind::Io | Kind::Uncertain => READ_FAILED,
        Kind::Internal => FAULT,
        Kind::NotFound
        | Kind::Conflict
        | Kind::Busy
        | Kind::InUse
        | Kind::NoSpace
        | Kind::OutOfRange
        | Kind::Unimplemented => NEVER,
    }
}

pub(super) fn capacity(kind: Kind) -> Answer {
    match kind {
        Kind::InvalidArgument => because(
            Code::InvalidArgument,
            "the StorageClass has parameters that CreateVolume would refuse; the \
             CSIStorageCapacity object stays as it was and the error is logged",
        ),
        Kind::Precondition | Kind::Unavailable => because(
            Code::Unavailable,
            "no figure is better than a wrong one: the last CSIStorageCapacity stays until the \
             pool answers again",
        ),
        Kind::Io | Kind::Uncertain => READ_FAILED,
        Kind::Internal => FAULT,
        Kind::NotFound
        | Kind::Conflict
        | Kind::Busy
        | Kind::InUse
        | Kind::NoSpace
        | Kind::OutOfRange
        | Kind::Corrupt
        | Kind::BadToken
        | Kind::Unimplemented => NEVER,
    }
}

/// GetSnapshot, ControllerGetVolume, ControllerGetVolumeHealth.
pub(super) fn get(kind: Kind) -> Answer {
    match kind {
        Kind::InvalidArgument => because(Code::InvalidArgument, "the id is missing or over-long"),
        Kind::NotFound => because(
            Code::NotFound,
            "CSI's code for it; only answered when the pool was read and has no such object",
        ),
        Kind::Precondition | Kind::Unavailable => READ_LATER,
        Kind::Corrupt => READ_CORRUPT,
        Kind::Io | Kind::Uncertain => READ_FAILED,
        Kind::Internal => FAULT,
        Kind::Conflict
        | Kind::Busy
        | Kind::InUse
        | Kind::NoSpace
        | Kind::OutOfRange
        | Kind::BadToken
        | Kind::Unimplemented => NEVER,
    }
}
