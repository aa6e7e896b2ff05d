//! The half of the upstream csi-snapshotter: what the driver is asked to do for a content, and what it has answered.
//!
//! ```text
//! contents, classes ──> plan (pure) ──> csi: one call ──> answer (pure) ──> status, by version
//! ```
//! Certainty: before CreateSnapshot is called the content is marked, and the mark goes only when it is known whether there is a
//! snapshot. A driver can promise that its ids are the names by which snapshots are asked for, as ours does: then DeleteSnapshot settles
//! it even if CreateSnapshot never answers.

mod act;
mod alive;
mod answer;
mod csi;
mod input;
mod plan;
mod unsettled;

pub(crate) use self::act::Sidecar;
pub(crate) use self::alive::lost;
pub(crate) use self::csi::{Driver, Identity, Measures};
pub use self::unsettled::SETTLES;
pub(crate) use self::unsettled::Unsettled;
