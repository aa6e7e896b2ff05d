//! RPCs that answer from constants, the probe, and RPCs that this driver does not serve.

use tonic::Code;

use super::Kind;
use super::shared::{Answer, FAULT, NEVER, because};

/// GetPluginInfo, GetPluginCapabilities, ControllerGetCapabilities, NodeGetCapabilities,
/// NodeGetInfo.
pub(super) fn constant(kind: Kind) -> Answer {
    match kind {
        Kind::Internal => FAULT,
        Kind::InvalidArgument
        | Kind::NotFound
        | Kind::Conflict
        | Kind::Busy
        | Kind::InUse
        | Kind::NoSpace
        | Kind::OutOfRange
        | Kind::Precondition
        | Kind::Unavailable
        | Kind::Corrupt
        | Kind::Io
        | Kind::Uncertain
        | Kind::BadToken
        | Kind::Unimplemented => NEVER,
    }
}

pub(super) fn probe(kind: Kind) -> Answer {
    const NOT_READY: Answer = because(
        Code::Ok,
        "answered as ready=false: the sidecars wait on that, while on an error status their \
         process ends and Kubernetes restarts it in a loop; the reason is logged",
    );
    match kind {
        Kind::Busy | Kind::Precondition | Kind::Unavailable => NOT_READY,
        Kind::Corrupt => because(
            Code::FailedPrecondition,
            "the pool's own marker is damaged: CSI's code for a plugin that is not healthy; the \
             liveness probe makes it visible",
        ),
        Kind::Io | Kind::Uncertain => because(
            Code::FailedPrecondition,
            "the pool's disk fails: CSI's code for a plugin that is not healthy",
        ),
        Kind::Internal => FAULT,
        Kind::InvalidArgument
        | Kind::NotFound
        | Kind::Conflict
        | Kind::InUse
        | Kind::NoSpace
        | Kind::OutOfRange
        | Kind::BadToken
        | Kind::Unimplemented => NEVER,
    }
}

/// ControllerPublishVolume, ControllerUnpublishVolume, ControllerModifyVolume.
pub(super) fn not_served(kind: Kind) -> Answer {
    match kind {
        Kind::Unimplemented => because(
            Code::Unimplemented,
            "the capability is not announced, so no sidecar calls it: local volumes need no \
             attach step and have no mutable parameters",
        ),
        Kind::Internal => FAULT,
        Kind::InvalidArgument
        | Kind::NotFound
        | Kind::Conflict
        | Kind::Busy
        | Kind::InUse
        | Kind::NoSpace
        | Kind::OutOfRange
        | Kind::Precondition
        | Kind::Unavailable
        | Kind::Corrupt
        | Kind::Io
        | Kind::Uncertain
        | Kind::BadToken => NEVER,
    }
}
