//! CreateSnapshot and DeleteSnapshot (external-snapshotter, or a snapshot controller of ours).
//!
//! external-snapshotter marks a content object as "being created" before CreateSnapshot and takes
//! the mark off only on success or a final error. CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE,
//! RESOURCE_EXHAUSTED and ABORTED are not final: while it carries the mark, deleting the
//! VolumeSnapshot waits.

use tonic::Code;

use super::Kind;
use super::shared::{Answer, FAULT, NEVER, because};

pub(super) fn create(kind: Kind) -> Answer {
    match kind {
        Kind::InvalidArgument => because(
            Code::InvalidArgument,
            "final: the VolumeSnapshot shows the message and can be deleted at once",
        ),
        Kind::NotFound => because(Code::NotFound, "the source volume does not exist; final"),
        Kind::Conflict => because(
            Code::AlreadyExists,
            "the name is taken by a snapshot of another volume, or of other parameters; final",
        ),
        Kind::Busy => because(
            Code::Aborted,
            "non-final: the mark stays while the job runs, so the VolumeSnapshot cannot be deleted \
             around a snapshot that is about to appear",
        ),
        Kind::InUse => because(
            Code::FailedPrecondition,
            "the volume can be written while it would be copied; final, nothing was left",
        ),
        Kind::NoSpace => because(
            Code::ResourceExhausted,
            "CSI's code for it. Non-final for external-snapshotter, which is why it is only \
             answered after everything was undone: the call is repeated until there is room, and \
             deleting the VolumeSnapshot needs room first, or DeleteSnapshot by its name, which \
             always works",
        ),
        Kind::OutOfRange => because(Code::OutOfRange, "a limit of the image format; final"),
        Kind::Precondition => because(
            Code::FailedPrecondition,
            "a snapshot that cannot be proved to be one point in time is refused; final, and \
             retried with backoff until the person has done what the message says",
        ),
        Kind::Unavailable => because(
            Code::Unavailable,
            "an earlier call may have cut this snapshot on the disk that is not there now; \
             non-final, so it is called again and found",
        ),
        Kind::Corrupt => because(
            Code::DataLoss,
            "the volume or a snapshot of this very name is damaged; final, shown as an event",
        ),
        Kind::Io => because(
            Code::Internal,
            "undone; final, so the mark goes and the VolumeSnapshot can be deleted",
        ),
        Kind::Uncertain => because(
            Code::Unavailable,
            "the snapshot may exist; a final code would let it be forgotten on disk",
        ),
        Kind::Internal => FAULT,
        Kind::BadToken | Kind::Unimplemented => NEVER,
    }
}

pub(super) fn delete(kind: Kind) -> Answer {
    match kind {
        Kind::InvalidArgument => because(
            Code::InvalidArgument,
            "no snapshot id was given; every error of DeleteSnapshot is retried",
        ),
        Kind::NotFound => because(
            Code::Ok,
            "what is gone is deleted; any error would keep the content object's finalizer for ever",
        ),
        Kind::Busy => because(
            Code::Aborted,
            "it is being made or restored from; retried until that is over",
        ),
        Kind::InUse => because(Code::FailedPrecondition, "CSI's code for it; retried"),
        Kind::NoSpace => because(
            Code::ResourceExhausted,
            "a full file system may refuse even the rename into trash/; retried",
        ),
        Kind::Precondition => because(
            Code::FailedPrecondition,
            "retried; it works once the person has done what the message says",
        ),
        Kind::Unavailable => because(
            Code::Unavailable,
            "the pool is not there: OK would forget the snapshot while its file still exists",
        ),
        Kind::Corrupt => because(
            Code::DataLoss,
            "a damaged snapshot is kept for a person to look at and is never deleted by inference",
        ),
        Kind::Io => because(Code::Internal, "the snapshot is still whole; retried"),
        Kind::Uncertain => because(
            Code::Unavailable,
            "it may already be deleted; the next call finds out",
        ),
        Kind::Internal => FAULT,
        Kind::Conflict | Kind::OutOfRange | Kind::BadToken | Kind::Unimplemented => NEVER,
    }
}
