//! Volumes and snapshots of one node, on one directory.

pub mod attach;
pub mod error;
pub mod fault;
pub mod id;
pub mod record;
pub mod sys;

pub use error::{Context, Error, ErrorKind, Result};
pub use id::{SnapshotId, VolumeId};
