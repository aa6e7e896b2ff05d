//! The backend over custom resources of Kubernetes, and what csi-controller keeps in order there.
//!
//! ```text
//! backend ── volumes, growth, snapshots ── erase   the flow of one call
//!               |         |
//!            placement  verdict  room           decided in pure functions
//!               |         |
//!            objects ── mirror ── wait          the API server: written by version, read by one watch per kind
//! ```

mod adopt;
mod backend;
mod convert;
mod erase;
mod failure;
mod growth;
pub mod keepers;
mod managed;
mod mirror;
mod objects;
pub mod placement;
mod pools;
mod quantity;
mod room;
mod snapshots;
mod verdict;
mod volumes;
mod wait;

pub use backend::KubernetesBackend;
pub use wait::Patience;
