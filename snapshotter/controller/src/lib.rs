//! The snapshot controller of vd-csi: from a user's VolumeSnapshot to a snapshot of the driver, and back to nothing.
//!
//! ```text
//!                 program: driver, Lease, stop
//!                    |                  |
//!   binding: what the upstream     sidecar: what csi-snapshotter does
//!   snapshot-controller does            |
//!        |                              |── csi ──> the driver's socket
//!   plan (pure) ── act             plan (pure) ── act
//!        \________ requests: one write each, by version ________/
//!   world: stores, kept by watches, and queues of what has to be looked at
//! ```
//! Names, annotations, finalizers and reasons of events are those of the upstream programs (`names`), so that a cluster can change
//! over either way at any time. Text and code are our own.
#![forbid(unsafe_code)]

pub mod names;
pub mod objects;

mod binding;
mod dispatch;
mod events;
mod follow;
mod lease;
mod measures;
mod operations;
mod parameters;
mod program;
mod queue;
mod requests;
mod sidecar;
mod store;
mod time;
mod work;
mod world;

pub use program::{Mode, Options, Program};
pub use queue::Backoff;
pub use sidecar::SETTLES;
