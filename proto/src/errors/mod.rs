//! The one table of error codes: what kind of failure becomes which gRPC code, per RPC, and why.
//!
//! The callers of a CSI driver (external-provisioner, external-resizer, external-snapshotter,
//! kubelet) act on the code alone, and each of them acts differently. A code that is right for one
//! RPC makes another caller forget work that still runs, or repeat for ever what cannot succeed.
//! So nothing outside this module chooses a code: services say what kind of failure it was
//! ([`Failure`]), this table says what the caller is told. `docs/error-codes.md` is printed from
//! it by [`markdown()`], and a test keeps the two equal.
//!
//! Every per-RPC function matches every [`Kind`] without a wildcard: a new kind does not compile
//! until somebody has decided what it means for each caller.

mod controller_snapshot;
mod controller_volume;
mod identity;
mod markdown;
mod node;
mod query;
mod shared;

use std::fmt;

pub use markdown::markdown;
use shared::Answer;
use tonic::Code;

/// What kind of failure it was, in words that mean the same to every part of the project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The request itself is wrong; it never works unchanged.
    InvalidArgument,
    /// The object named by the request does not exist.
    NotFound,
    /// An object of the same name or at the same path exists and differs.
    Conflict,
    /// Another operation on the same object is running.
    Busy,
    /// The object is attached, published or mounted, and that forbids the operation.
    InUse,
    /// Not enough space; everything begun was undone.
    NoSpace,
    /// A size or an offset outside of what is possible for this object.
    OutOfRange,
    /// A person must do something first; the message says what.
    Precondition,
    /// The pool cannot serve now (not mounted, wrong pool, read-only, shutting down).
    Unavailable,
    /// A record or its data is damaged; it is kept as it is and reported.
    Corrupt,
    /// An operation failed and was undone; nothing of it is left.
    Io,
    /// An operation failed and its result is not known; it must be called again.
    Uncertain,
    /// The token to continue a list with is not one of ours.
    BadToken,
    /// The driver does not do this.
    Unimplemented,
    /// A fault of the driver itself.
    Internal,
}

impl Kind {
    /// Every kind, in the order in which the documentation lists them.
    pub const ALL: [Kind; 15] = [
        Kind::InvalidArgument,
        Kind::NotFound,
        Kind::Conflict,
        Kind::Busy,
        Kind::InUse,
        Kind::NoSpace,
        Kind::OutOfRange,
        Kind::Precondition,
        Kind::Unavailable,
        Kind::Corrupt,
        Kind::Io,
        Kind::Uncertain,
        Kind::BadToken,
        Kind::Unimplemented,
        Kind::Internal,
    ];

    /// One line that says what the kind means, for the documentation.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Kind::InvalidArgument => "the request itself is wrong; it never works unchanged",
            Kind::NotFound => "the object named by the request does not exist",
            Kind::Conflict => "an object of the same name or at the same path exists and differs",
            Kind::Busy => "another operation on the same object is running",
            Kind::InUse => "attached, published or mounted, and that forbids the operation",
            Kind::NoSpace => "not enough space; everything begun was undone",
            Kind::OutOfRange => "a size outside of what is possible for this object",
            Kind::Precondition => "a person must do something first; the message says what",
            Kind::Unavailable => {
                "the pool cannot serve now: not mounted, wrong pool, read-only, shutting down"
            }
            Kind::Corrupt => "a record or its data is damaged; kept as it is and reported",
            Kind::Io => "failed and undone; nothing of it is left",
            Kind::Uncertain => "failed, and the result is not known; must be called again",
            Kind::BadToken => "the token to continue a list with is not one of ours",
            Kind::Unimplemented => "the driver does not do this",
            Kind::Internal => "a fault of the driver itself",
        }
    }
}

/// Every RPC that has a row in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each variant is the CSI RPC of that name")]
pub enum Rpc {
    GetPluginInfo,
    GetPluginCapabilities,
    Probe,
    CreateVolume,
    DeleteVolume,
    ControllerPublishVolume,
    ControllerUnpublishVolume,
    ValidateVolumeCapabilities,
    ListVolumes,
    GetCapacity,
    ControllerGetCapabilities,
    CreateSnapshot,
    DeleteSnapshot,
    ListSnapshots,
    GetSnapshot,
    ControllerExpandVolume,
    ControllerGetVolume,
    ControllerModifyVolume,
    ControllerGetVolumeHealth,
    ControllerListVolumeHealth,
    NodeStageVolume,
    NodeUnstageVolume,
    NodePublishVolume,
    NodeUnpublishVolume,
    NodeGetVolumeStats,
    NodeExpandVolume,
    NodeGetCapabilities,
    NodeGetInfo,
    NodeGetVolumeHealth,
    NodeGetStorageHealth,
}

impl Rpc {
    /// Every RPC of the table, Identity, Controller and Node in this order.
    pub const ALL: [Rpc; 30] = [
        Rpc::GetPluginInfo,
        Rpc::GetPluginCapabilities,
        Rpc::Probe,
        Rpc::CreateVolume,
        Rpc::DeleteVolume,
        Rpc::ControllerPublishVolume,
        Rpc::ControllerUnpublishVolume,
        Rpc::ValidateVolumeCapabilities,
        Rpc::ListVolumes,
        Rpc::GetCapacity,
        Rpc::ControllerGetCapabilities,
        Rpc::CreateSnapshot,
        Rpc::DeleteSnapshot,
        Rpc::ListSnapshots,
        Rpc::GetSnapshot,
        Rpc::ControllerExpandVolume,
        Rpc::ControllerGetVolume,
        Rpc::ControllerModifyVolume,
        Rpc::ControllerGetVolumeHealth,
        Rpc::ControllerListVolumeHealth,
        Rpc::NodeStageVolume,
        Rpc::NodeUnstageVolume,
        Rpc::NodePublishVolume,
        Rpc::NodeUnpublishVolume,
        Rpc::NodeGetVolumeStats,
        Rpc::NodeExpandVolume,
        Rpc::NodeGetCapabilities,
        Rpc::NodeGetInfo,
        Rpc::NodeGetVolumeHealth,
        Rpc::NodeGetStorageHealth,
    ];

    /// The RPC's name as CSI spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Rpc::GetPluginInfo => "GetPluginInfo",
            Rpc::GetPluginCapabilities => "GetPluginCapabilities",
            Rpc::Probe => "Probe",
            Rpc::CreateVolume => "CreateVolume",
            Rpc::DeleteVolume => "DeleteVolume",
            Rpc::ControllerPublishVolume => "ControllerPublishVolume",
            Rpc::ControllerUnpublishVolume => "ControllerUnpublishVolume",
            Rpc::ValidateVolumeCapabilities => "ValidateVolumeCapabilities",
            Rpc::ListVolumes => "ListVolumes",
            Rpc::GetCapacity => "GetCapacity",
            Rpc::ControllerGetCapabilities => "ControllerGetCapabilities",
            Rpc::CreateSnapshot => "CreateSnapshot",
            Rpc::DeleteSnapshot => "DeleteSnapshot",
            Rpc::ListSnapshots => "ListSnapshots",
            Rpc::GetSnapshot => "GetSnapshot",
            Rpc::ControllerExpandVolume => "ControllerExpandVolume",
            Rpc::ControllerGetVolume => "ControllerGetVolume",
            Rpc::ControllerModifyVolume => "ControllerModifyVolume",
            Rpc::ControllerGetVolumeHealth => "ControllerGetVolumeHealth",
            Rpc::ControllerListVolumeHealth => "ControllerListVolumeHealth",
            Rpc::NodeStageVolume => "NodeStageVolume",
            Rpc::NodeUnstageVolume => "NodeUnstageVolume",
            Rpc::NodePublishVolume => "NodePublishVolume",
            Rpc::NodeUnpublishVolume => "NodeUnpublishVolume",
            Rpc::NodeGetVolumeStats => "NodeGetVolumeStats",
            Rpc::NodeExpandVolume => "NodeExpandVolume",
            Rpc::NodeGetCapabilities => "NodeGetCapabilities",
            Rpc::NodeGetInfo => "NodeGetInfo",
            Rpc::NodeGetVolumeHealth => "NodeGetVolumeHealth",
            Rpc::NodeGetStorageHealth => "NodeGetStorageHealth",
        }
    }
}

impl fmt::Display for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failed call: its kind, and a message for a person that says what to do.
///
/// The message reaches the caller and its events, so it never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Decides the code, together with the RPC.
    pub kind: Kind,
    /// Lower case, no final period; names the object and the way out.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure {
            kind,
            message: message.into(),
        }
    }

    /// The request itself is wrong ([`Kind::InvalidArgument`]).
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(Kind::InvalidArgument, message)
    }

    /// The named object does not exist ([`Kind::NotFound`]).
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(Kind::NotFound, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The code this RPC answers with after this kind of failure.
///
/// [`Code::Ok`] means that it is no failure for this RPC: deleting what is not there has
/// succeeded, and a probe of a pool that is not mounted answers "not ready". The service checks
/// that with [`is_success`] before it builds a status.
#[must_use]
pub fn code(rpc: Rpc, kind: Kind) -> Code {
    answer(rpc, kind).code
}

/// Why the RPC answers this code: what the caller then does.
#[must_use]
pub fn why(rpc: Rpc, kind: Kind) -> &'static str {
    answer(rpc, kind).why
}

/// Whether this kind is no failure at all for this RPC (see [`code`]).
#[must_use]
pub fn is_success(rpc: Rpc, kind: Kind) -> bool {
    code(rpc, kind) == Code::Ok
}

/// The gRPC status for a failure of this RPC, with a message that is never empty.
///
/// A kind that is a success for the RPC has no status; should a service ask for one all the same
/// it gets `INTERNAL`, because an error status with code OK breaks gRPC clients.
#[must_use]
pub fn status(rpc: Rpc, failure: &Failure) -> tonic::Status {
    let code = match code(rpc, failure.kind) {
        Code::Ok => Code::Internal,
        code => code,
    };
    if failure.message.is_empty() {
        return tonic::Status::new(code, format!("{rpc}: {}", failure.kind.meaning()));
    }
    tonic::Status::new(code, failure.message.as_str())
}

fn answer(rpc: Rpc, kind: Kind) -> Answer {
    match rpc {
        Rpc::GetPluginInfo
        | Rpc::GetPluginCapabilities
        | Rpc::ControllerGetCapabilities
        | Rpc::NodeGetCapabilities
        | Rpc::NodeGetInfo => identity::constant(kind),
        Rpc::Probe => identity::probe(kind),
        Rpc::CreateVolume => controller_volume::create(kind),
        Rpc::DeleteVolume => controller_volume::delete(kind),
        Rpc::ControllerExpandVolume => controller_volume::expand(kind),
        Rpc::ControllerPublishVolume
        | Rpc::ControllerUnpublishVolume
        | Rpc::ControllerModifyVolume => identity::not_served(kind),
        Rpc::CreateSnapshot => controller_snapshot::create(kind),
        Rpc::DeleteSnapshot => controller_snapshot::delete(kind),
        Rpc::ValidateVolumeCapabilities => query::validate(kind),
        Rpc::ListVolumes | Rpc::ListSnapshots | Rpc::ControllerListVolumeHealth => {
            query::list(kind)
        }
        Rpc::GetCapacity => query::capacity(kind),
        Rpc::GetSnapshot | Rpc::ControllerGetVolume | Rpc::ControllerGetVolumeHealth => {
            query::get(kind)
        }
        Rpc::NodeStageVolume => node::stage(kind),
        Rpc::NodeUnstageVolume => node::unstage(kind),
        Rpc::NodePublishVolume => node::publish(kind),
        Rpc::NodeUnpublishVolume => node::unpublish(kind),
        Rpc::NodeGetVolumeStats => node::stats(kind),
        Rpc::NodeExpandVolume => node::expand(kind),
        Rpc::NodeGetVolumeHealth | Rpc::NodeGetStorageHealth => node::health(kind),
    }
}

#[cfg(test)]
mod tests;
