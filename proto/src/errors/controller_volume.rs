//! CreateVolume (external-provisioner), DeleteVolume (external-provisioner) and
//! ControllerExpandVolume (external-resizer).
//!
//! external-provisioner sorts the errors of CreateVolume into four: RESOURCE_EXHAUSTED makes it
//! give the claim back to the scheduler; CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE and ABORTED
//! mean "still running in the background", so it calls again even after the claim was deleted;
//! INVALID_ARGUMENT is not retried before the maximum interval; all others are final.

use tonic::Code;

use super::Kind;
use super::shared::{Answer, FAULT, NEVER, because};

const MAYBE_MADE: Answer = because(
    Code::Unavailable,
    "a final code would let a deleted claim be forgotten together with a volume that may exist; a \
     non-final one is called until it is known",
);

pub(super) fn create(kind: Kind) -> Answer {
    match kind {
        Kind::InvalidArgument => because(
            Code::InvalidArgument,
            "infeasible for external-provisioner: it waits its longest interval, or for a changed \
             StorageClass, instead of repeating what cannot work",
        ),
        Kind::NotFound => because(
            Code::NotFound,
            "the content source is missing; final, retried with backoff on the same node, since \
             the source may still appear",
        ),
        Kind::Conflict => because(
            Code::AlreadyExists,
            "the name is taken by a volume that differs; final, and the message names the first \
             difference",
        ),
        Kind::Busy => because(
            Code::Aborted,
            "external-provisioner keeps the claim and calls again even if the claim is deleted \
             meanwhile, so the result of the running job is never orphaned",
        ),
        Kind::InUse => because(
            Code::FailedPrecondition,
            "the source volume is in use in a way that forbids a copy; final, retried with backoff",
        ),
        Kind::NoSpace => because(
            Code::ResourceExhausted,
            "external-provisioner takes the selected node off the claim and the scheduler chooses \
             another; right only because nothing was left behind here",
        ),
        Kind::OutOfRange => because(
            Code::OutOfRange,
            "no size fits the range, or it is smaller than the source; final, and CSI asks for a \
             code that the user can tell from a full pool",
        ),
        Kind::Precondition => because(
            Code::FailedPrecondition,
            "final, retried with backoff on the same node: it works once the person has done what \
             the message says",
        ),
        Kind::Unavailable => because(
            Code::Unavailable,
            "an earlier call of this name may have left its volume on the disk that is not there \
             now; only a non-final code makes external-provisioner call again and find it",
        ),
        Kind::Corrupt => because(
            Code::DataLoss,
            "the record of this very name, or the source, is damaged; final, shown as an event, \
             and nothing empty is put in its place",
        ),
        Kind::Io => because(
            Code::Internal,
            "undone, so final is right: a claim deleted now leaves no volume behind",
        ),
        Kind::Uncertain => MAYBE_MADE,
        Kind::Internal => FAULT,
        Kind::BadToken | Kind::Unimplemented => NEVER,
    }
}

pub(super) fn delete(kind: Kind) -> Answer {
    match kind {
        Kind::InvalidArgument => because(
            Code::InvalidArgument,
            "no volume id was given; every error of DeleteVolume is retried, none deletes the \
             PersistentVolume",
        ),
        Kind::NotFound => because(
            Code::Ok,
            "what is gone is deleted; any error here would keep the PersistentVolume for ever",
        ),
        Kind::Busy => because(
            Code::Aborted,
            "another operation on the volume runs; external-provisioner retries",
        ),
        Kind::InUse => because(
            Code::FailedPrecondition,
            "CSI's code for a volume in use; retried until the node has unpublished it",
        ),
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
            "the pool is not there: OK would forget the volume while its data still exists",
        ),
        Kind::Corrupt => because(
            Code::DataLoss,
            "a damaged volume is kept for a person to look at and is never deleted by inference",
        ),
        Kind::Io => because(Code::Internal, "the volume is still whole; retried"),
        Kind::Uncertain => because(
            Code::Unavailable,
            "it may already be deleted; the next call finds out",
        ),
        Kind::Internal => FAULT,
        Kind::Conflict | Kind::OutOfRange | Kind::BadToken | Kind::Unimplemented => NEVER,
    }
}

pub(super) fn expand(kind: Kind) -> Answer {
    match kind {
        Kind::InvalidArgument => because(
            Code::InvalidArgument,
            "infeasible for external-resizer: slow retries, and the user may lower the request \
             again",
        ),
        Kind::NotFound => because(
            Code::NotFound,
            "infeasible for external-resizer: slow retries for a volume that is gone",
        ),
        Kind::Busy => because(
            Code::Aborted,
            "non-final: external-resizer keeps the expansion as begun and calls again",
        ),
        Kind::InUse => because(
            Code::FailedPrecondition,
            "external-resizer marks the claim as in use and waits until no pod uses it",
        ),
        Kind::NoSpace => because(
            Code::OutOfRange,
            "infeasible for external-resizer: it calls again slowly, so the volume grows once the \
             pool has room, and the user may lower the request; RESOURCE_EXHAUSTED is non-final for \
             it, and a request that is too large could never be taken back; nothing was changed",
        ),
        Kind::OutOfRange => because(
            Code::OutOfRange,
            "infeasible for external-resizer: the size can never be reached, and the user may \
             lower the request again",
        ),
        Kind::Precondition => because(
            Code::FailedPrecondition,
            "final, retried with backoff until the person has done what the message says",
        ),
        Kind::Unavailable => because(
            Code::Unavailable,
            "non-final: called again when the pool is back, an expansion begun is finished then",
        ),
        Kind::Corrupt => because(
            Code::DataLoss,
            "final, shown as an event; a damaged volume is not touched",
        ),
        Kind::Io => because(
            Code::Internal,
            "failed before it was recorded that the volume is to grow: nothing has changed; final, \
             retried with backoff",
        ),
        Kind::Uncertain => because(
            Code::Unavailable,
            "the volume grows: it is recorded, and never undone; non-final, so the next call goes on \
             and settles the size on the claim",
        ),
        Kind::Internal => FAULT,
        Kind::Conflict | Kind::BadToken | Kind::Unimplemented => NEVER,
    }
}
