//! The record beside each image: what exists, and what we promised about it.
//!
//! A record is the authority on its object; everything else (indexes, custom resources) is derived from it.
//! `docs/on-disk-format.md` specifies the bytes.

mod envelope;
mod integrity;
mod snapshot;
mod volume;

use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use envelope::encode_as;
pub use envelope::{FORMAT_VERSION, Kind, decode, encode};
pub use integrity::{Checksum, Damage, DataChecksum};
use serde::{Deserialize, Serialize};
pub use snapshot::{Compression, Packed, Packing, SnapshotRecord};
pub use volume::{Format, FormatState, FsType, Provisioning, Source, VolumeMode, VolumeRecord};

/// A moment in nanoseconds since 1970 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Now, by the wall clock; 0 for a clock before 1970.
    #[must_use]
    pub fn now() -> Self {
        let elapsed = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }
}
