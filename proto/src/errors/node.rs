//! Node RPCs, called by kubelet.
//!
//! kubelet takes CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE, RESOURCE_EXHAUSTED and ABORTED as
//! "the result is uncertain": it remembers the volume and will unpublish and unstage it. Every
//! other error is final: it removes its own files about the volume and may never call Unstage, so
//! a final code is only honest when everything was rolled back.

use tonic::Code;

use super::Kind;
use super::shared::{Answer, FAULT, NEVER, READ_CORRUPT, READ_FAILED, READ_LATER, because};

const UNDO_UNKNOWN: Answer = because(
    Code::Unavailable,
    "something may be left mounted or attached; non-final, so kubelet remembers the volume and \
     cleans up by Unpublish and Unstage",
);

const UNDONE: Answer = because(
    Code::Internal,
    "rolled back completely, so kubelet may forget the volume",
);

const RUNNING: Answer = because(
    Code::Aborted,
    "non-final: kubelet keeps the volume as uncertain and calls again, which joins the running job \
     or finds its result",
);

const NO_POOL: Answer = because(
    Code::Unavailable,
    "the pool is not there now; non-final, kubelet tries again with backoff while the pod waits",
);

const DAMAGED: Answer = because(
    Code::DataLoss,
    "the volume is damaged; final, rolled back, shown as an event of the pod, nothing is repaired \
     or formatted by guess",
);

const PERSON: Answer = because(
    Code::FailedPrecondition,
    "final, rolled back; kubelet tries again with backoff until the person has done what the \
     message says",
);

pub(super) fn stage(kind: Kind) -> Answer {
    match kind {
        Kind::InvalidArgument => because(
            Code::InvalidArgument,
            "checked before anything is touched, and before NOT_FOUND; final",
        ),
        Kind::NotFound => because(Code::NotFound, "no such volume on this node; final"),
        Kind::Conflict => because(
            Code::AlreadyExists,
            "the volume is staged at this path with another capability; final, and what is staged \
             stays as it is",
        ),
        Kind::Busy => RUNNING,
        Kind::InUse => because(
            Code::FailedPrecondition,
            "the volume is in use in a way that its access mode forbids; final, rolled back",
        ),
        Kind::NoSpace => because(
            Code::ResourceExhausted,
            "making the file system needs space; non-final, so kubelet tries again and in the end \
             unstages",
        ),
        Kind::OutOfRange => because(
            Code::OutOfRange,
            "the volume is too small for its file system; final, rolled back",
        ),
        Kind::Precondition => PERSON,
        Kind::Unavailable => NO_POOL,
        Kind::Corrupt => DAMAGED,
        Kind::Io => UNDONE,
        Kind::Uncertain => UNDO_UNKNOWN,
        Kind::Internal => FAULT,
        Kind::BadToken | Kind::Unimplemented => NEVER,
    }
}

pub(super) fn unstage(kind: Kind) -> Answer {
    match kind {
        Kind::InvalidArgument => because(
            Code::InvalidArgument,
            "the volume id or the path is missing; kubelet always sends both",
        ),
        Kind::NotFound => because(
            Code::Ok,
            "nothing is staged there: after a reboot, or once the volume was removed, an error \
             would keep the pod terminating for ever",
        ),
        Kind::Busy => RUNNING,
        Kind::InUse => because(
            Code::FailedPrecondition,
            "still published, or held open by a process; kubelet calls again",
        ),
        Kind::Precondition => PERSON,
        Kind::Unavailable => NO_POOL,
        Kind::Corrupt => READ_CORRUPT,
        Kind::Io | Kind::Uncertain => because(
            Code::Unavailable,
            "the volume may still be mounted; kubelet calls again until it is not",
        ),
        Kind::Internal => FAULT,
        Kind::Conflict
        | Kind::NoSpace
        | Kind::OutOfRange
        | Kind::BadToken
        | Kind::Unimplemented => NEVER,
    }
}

pub(super) fn publish(kind: Kind) -> Answer {
    match kind {
        Kind::InvalidArgument => because(
            Code::InvalidArgument,
            "checked before anything is touched, and before NOT_FOUND; final",
        ),
        Kind::NotFound => because(Code::NotFound, "no such volume on this node; final"),
        Kind::Conflict => because(
            Code::AlreadyExists,
            "published at this very path with other arguments, or something that is not ours is \
             there; final, and it stays as it is",
        ),
        Kind::Busy => RUNNING,
        Kind::InUse => because(
            Code::FailedPrecondition,
            "CSI's code for a second path when the access mode allows one writer; final",
        ),
        Kind::NoSpace => because(
            Code::ResourceExhausted,
            "staging was made up for here after a reboot and needs space; non-final",
        ),
        Kind::OutOfRange => because(
            Code::OutOfRange,
            "the volume is too small for its file system; final, rolled back",
        ),
        Kind::Precondition => PERSON,
        Kind::Unavailable => NO_POOL,
        Kind::Corrupt => DAMAGED,
        Kind::Io => UNDONE,
        Kind::Uncertain => UNDO_UNKNOWN,
        Kind::Internal => FAULT,
        Kind::BadToken | Kind::Unimplemented => NEVER,
    }
}

pub(super) fn unpublish(kind: Kind) -> Answer {
    match kind {
        Kind::InvalidArgument => because(
            Code::InvalidArgument,
            "the volume id or the path is missing; kubelet always sends both",
        ),
        Kind::NotFound => because(
            Code::Ok,
            "nothing is published there: kubelet calls it for paths that never existed, and an \
             error would keep the pod terminating for ever",
        ),
        Kind::Conflict => because(
            Code::FailedPrecondition,
            "something that is not ours is at the path; it is never removed, and kubelet shows the \
             message until a person has looked",
        ),
        Kind::Busy => RUNNING,
        Kind::InUse => because(
            Code::FailedPrecondition,
            "held open by a process; kubelet calls again",
        ),
        Kind::Precondition => PERSON,
        Kind::Unavailable => NO_POOL,
        Kind::Corrupt => READ_CORRUPT,
        Kind::Io | Kind::Uncertain => because(
            Code::Unavailable,
            "the volume may still be mounted at the path; kubelet calls again until it is not",
        ),
        Kind::Internal => FAULT,
        Kind::NoSpace | Kind::OutOfRange | Kind::BadToken | Kind::Unimplemented => NEVER,
    }
}

pub(super) fn stats(kind: Kind) -> Answer {
    match kind {
        Kind::InvalidArgument => because(
            Code::InvalidArgument,
            "the volume id or the path is missing, checked before NOT_FOUND",
        ),
        Kind::NotFound => because(
            Code::NotFound,
            "no such volume, or it is not at this path; kubelet leaves the figures out and asks \
             again in a minute",
        ),
        Kind::Busy => RUNNING,
        Kind::Precondition | Kind::Unavailable => READ_LATER,
        Kind::Corrupt => READ_CORRUPT,
        Kind::Io | Kind::Uncertain => READ_FAILED,
        Kind::Internal => FAULT,
        Kind::Conflict
        | Kind::InUse
        | Kind::NoSpace
        | Kind::OutOfRange
        | Kind::BadToken
        | Kind::Unimplemented => NEVER,
    }
}

pub(super) fn expand(kind: Kind) -> Answer {
    match kind {
        Kind::InvalidArgument => because(
            Code::InvalidArgument,
            "the volume id or the path is missing, or the size is no size; checked before \
             NOT_FOUND; infeasible for kubelet",
        ),
        Kind::NotFound => because(
            Code::NotFound,
            "no such volume, or it is not at this path; infeasible for kubelet",
        ),
        Kind::Busy => RUNNING,
        Kind::InUse => because(
            Code::FailedPrecondition,
            "kubelet waits until the volume is mounted anew instead of repeating it",
        ),
        Kind::NoSpace => because(
            Code::ResourceExhausted,
            "growing the file system writes metadata; non-final, kubelet calls again",
        ),
        Kind::OutOfRange => because(
            Code::OutOfRange,
            "the image was not grown to that size, or the file system cannot be; infeasible for \
             kubelet",
        ),
        Kind::Precondition => because(
            Code::FailedPrecondition,
            "kubelet waits until the volume is mounted anew; the message says what to do",
        ),
        Kind::Unavailable => NO_POOL,
        Kind::Corrupt => because(
            Code::DataLoss,
            "the file system is damaged; final, shown as an event, left as it is",
        ),
        Kind::Io => because(
            Code::Internal,
            "the file system has its old size; kubelet calls again with backoff",
        ),
        Kind::Uncertain => because(
            Code::Unavailable,
            "it may have grown; non-final, the next call finds out",
        ),
        Kind::Internal => FAULT,
        Kind::Conflict | Kind::BadToken | Kind::Unimplemented => NEVER,
    }
}

/// NodeGetVolumeHealth, NodeGetStorageHealth.
pub(super) fn health(kind: Kind) -> Answer {
    match kind {
        Kind::InvalidArgument => because(Code::InvalidArgument, "the volume id is missing"),
        Kind::NotFound => because(
            Code::NotFound,
            "no such volume, or it is not at this path; a volume that is known to be ill is an \
             answer and not an error",
        ),
        Kind::Precondition | Kind::Unavailable => READ_LATER,
        Kind::Io | Kind::Uncertain => READ_FAILED,
        Kind::Internal => FAULT,
        Kind::Conflict
        | Kind::Busy
        | Kind::InUse
        | Kind::NoSpace
        | Kind::OutOfRange
        | Kind::Corrupt
        | Kind::BadToken
        | Kind::Unimplemented => NEVER,
    }
}
