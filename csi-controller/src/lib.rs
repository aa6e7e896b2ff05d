//! The CSI Identity and Controller services, written once over a small backend.
//!
//! Requests are parsed and checked at the edge, in pure functions; a [`Backend`] gets decided
//! values; gRPC codes come from the one table in `proto::errors`. This crate links no disk code
//! and no Kubernetes client: what keeps the volumes is behind [`Backend`].

pub mod backend;
pub mod model;

pub use backend::Backend;
