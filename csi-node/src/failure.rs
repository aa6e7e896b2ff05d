//! What went wrong on the disk, in the words that callers of the driver understand.

use pool::ErrorKind;
use proto::errors::{Failure, Kind};

/// The failure for an error of the pool.
#[must_use]
#[allow(clippy::needless_pass_by_value, reason = "used with map_err")]
pub fn of(error: pool::Error) -> Failure {
    Failure::new(kind(error.kind()), error.to_string())
}

fn kind(kind: ErrorKind) -> Kind {
    match kind {
        ErrorKind::InvalidInput => Kind::InvalidArgument,
        ErrorKind::NotFound => Kind::NotFound,
        ErrorKind::Conflict => Kind::Conflict,
        ErrorKind::Busy => Kind::Busy,
        ErrorKind::InUse => Kind::InUse,
        ErrorKind::NoSpace => Kind::NoSpace,
        ErrorKind::OutOfRange => Kind::OutOfRange,
        ErrorKind::Precondition => Kind::Precondition,
        ErrorKind::Unavailable => Kind::Unavailable,
        ErrorKind::Corrupt => Kind::Corrupt,
        ErrorKind::Io => Kind::Io,
        ErrorKind::Uncertain => Kind::Uncertain,
        ErrorKind::Internal => Kind::Internal,
    }
}
