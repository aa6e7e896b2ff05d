//! What is recorded of a snapshot's data: its digest, where it was asked for, and what was found wrong.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// How a snapshot's data is digested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// BLAKE3, of 256 bits.
    Blake3,
}

/// The digest of a snapshot's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataChecksum {
    /// How it is made.
    pub algorithm: Checksum,
    /// 64 hex digits; `None` until the data was read for the first time, soon after the cut.
    pub digest: Option<String>,
    /// When the data was last found to be what the digest says.
    pub verified: Option<Timestamp>,
}

impl DataChecksum {
    /// One that is still to be made.
    #[must_use]
    pub fn wanted(algorithm: Checksum) -> Self {
        Self {
            algorithm,
            digest: None,
            verified: None,
        }
    }
}

/// What was found wrong with a snapshot. Nothing is restored from it as long as this stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Damage {
    /// When it was found.
    pub found: Timestamp,
    /// What it is, for people.
    pub reason: String,
}
