//! Volumes and snapshots of one node, on one directory.
//!
//! ```text
//! /var/vd/.vd-pool            marker: which pool this is, of which node; locked by its one owner
//! /var/vd/volumes/<id>/       disk.img, record          each appears by ONE rename from tmp/
//! /var/vd/snapshots/<id>/     image.qcow2, record       each appears by ONE rename from tmp/
//! /var/vd/tmp/                unfinished objects        swept at start
//! /var/vd/trash/              deleted objects           emptied in the background
//! ```
//! What this crate keeps true: what was acknowledged is on the disk; what was not is whole or absent after a crash; what
//! cannot be trusted is kept and reported; nothing of ours ever lands outside the pool.
//!
//! Everything here blocks. The crate knows neither CSI nor Kubernetes nor an async runtime.

pub mod attach;
pub mod capacity;
mod device;
mod durable;
pub mod error;
pub mod fault;
mod held;
pub mod id;
mod index;
mod layout;
pub mod marker;
mod measure;
mod pool;
pub mod record;
pub mod size;
pub mod sys;
mod view;

pub use error::{Context, Error, ErrorKind, Result};
pub use held::OpenSnapshot;
pub use id::{SnapshotId, VolumeId};
pub use index::Quarantined;
pub use marker::{Found, Marker, init, look};
pub use pool::{
    Comparison, Filesystem, ImportedSnapshot, NewSnapshot, NewVolume, Options, PackedContent, Pool,
    Room, SnapshotContent, Usage,
};
pub use view::{Part, View};
