//! How sound the snapshots of a pool are, from their records. Pure.

use std::sync::Arc;

use pool::record::{DataChecksum, SnapshotRecord, Timestamp};

/// What is known of all snapshots together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// How many are known to be damaged.
    pub(super) damaged: usize,
    /// How many still have no digest of their data, and want one.
    pub(super) undigested: usize,
    /// How long ago the data of a snapshot was compared with its digest, of the one where that is longest; 0 without any.
    pub(super) oldest_check_seconds: u64,
}

/// What the records say at the moment `now`.
pub(super) fn of(snapshots: &[Arc<SnapshotRecord>], now: Timestamp) -> Health {
    let mut health = Health::default();
    for record in snapshots {
        if record.damage.is_some() {
            // Nobody looks at it any more.
            health.damaged += 1;
            continue;
        }
        match &record.checksum {
            None => {}
            Some(DataChecksum {
                verified: Some(at), ..
            }) => {
                let age = now.0.saturating_sub(at.0) / 1_000_000_000;
                health.oldest_check_seconds = health.oldest_check_seconds.max(age);
            }
            Some(_) => health.undigested += 1,
        }
    }
    health
}
