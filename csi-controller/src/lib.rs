//! The CSI Identity and Controller services, written once over a small backend.
//!
//! Requests are parsed and checked at the edge, in pure functions; a [`Backend`] gets decided
//! values; gRPC codes come from the one table in `proto::errors`. This crate links no disk code:
//! what keeps the volumes is behind [`Backend`]. The backend over custom resources is in
//! `kubernetes`, a feature of its own, so that one node alone needs no Kubernetes client.
//!
//! Secrets that callers send are never read, and requests are never logged.

pub mod backend;
pub mod ids;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod model;
pub mod mount_flags;
pub mod open_files;
pub mod size;
pub mod socket;

mod answer;
mod controller;
mod endpoint;
mod identity;
mod request;

pub use backend::Backend;
pub use controller::ControllerService;
pub use identity::{DriverName, IdentityService, Readiness};
