//! The half of the upstream csi-snapshotter: what the driver is asked to do for a content, and what it has answered.
//!
//! ```text
//! contents, classes ──> plan (pure) ──> csi: one call ──> answer (pure) ──> status, by version
//! ```
//! Certainty: before CreateSnapshot is called the content is marked, and the mark goes only when it is known whether there is a
//! snapshot. Of the own driver the id is known beforehand, so DeleteSnapshot settles it even if CreateSnapshot never answers.

mod act;
mod answer;
mod csi;
mod input;
mod plan;
mod unsettled;

pub(crate) use self::act::Sidecar;
pub(crate) use self::csi::{Driver, Measures};
