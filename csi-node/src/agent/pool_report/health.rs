//! How sound and how small the snapshots of a pool are, from their records. Pure.

use std::sync::Arc;

use pool::record::{DataChecksum, Packing, SnapshotRecord, Timestamp};

/// What is known of all snapshots together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// How many are known to be damaged.
    pub(super) damaged: usize,
    /// How many still have no digest of their data, and want one.
    pub(super) undigested: usize,
    /// How long ago the data of a snapshot was compared with its digest, of the one where that is longest; 0 without any.
    pub(super) oldest_check_seconds: u64,
    /// Those that are to be compressed and are not yet.
    pub(super) uncompressed: Packed,
    /// How long ago one of them was cut, of the one where that is longest; 0 without any.
    pub(super) oldest_uncompressed_seconds: u64,
    /// Those that are compressed.
    pub(super) compressed: Packed,
}

/// Snapshots, and what their images hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) snapshots: usize,
    pub(super) bytes: u64,
}

impl Packed {
    fn add(&mut self, record: &SnapshotRecord) {
        self.snapshots += 1;
        self.bytes = self.bytes.saturating_add(record.charge_bytes);
    }
}

/// What the records say at the moment `now`.
pub(super) fn of(snapshots: &[Arc<SnapshotRecord>], now: Timestamp) -> Health {
    let seconds_since = |at: Timestamp| now.0.saturating_sub(at.0) / 1_000_000_000;
    let mut health = Health::default();
    for record in snapshots {
        if matches!(record.packing, Packing::Done(_)) {
            health.compressed.add(record);
        }
        if record.damage.is_some() {
            // Nobody looks at it any more, nor compresses it.
            health.damaged += 1;
            continue;
        }
        if record.packing.is_wanted() {
            health.uncompressed.add(record);
            let age = seconds_since(record.created);
            health.oldest_uncompressed_seconds = health.oldest_uncompressed_seconds.max(age);
        }
        match &record.checksum {
            None => {}
            Some(DataChecksum {
                verified: Some(at), ..
            }) => {
                let age = seconds_since(*at);
                health.oldest_check_seconds = health.oldest_check_seconds.max(age);
            }
            Some(_) => health.undigested += 1,
        }
    }
    health
}

#[cfg(test)]
mod tests {
    use pool::record::{Compression, Damage, Packed as PackedImage, VolumeMode};
    use pool::{SnapshotId, VolumeId};

    use super::*;

    const HOUR: u64 = 3_600_000_000_000;

    fn record(created: u64, charge_bytes: u64, packing: Packing) -> SnapshotRecord {
        let volume = VolumeId::from_name("source");
        SnapshotRecord {
            id: SnapshotId::from_name("cut"),
            name: "cut".to_owned(),
            source_volume: volume.clone(),
            lineage: volume,
            created: Timestamp(created),
            requested_bytes: 0,
            virtual_bytes: 0,
            charge_bytes,
            mode: VolumeMode::Block,
            data_offset: 0,
            metadata_digest: String::new(),
            extents: 0,
            stall_us: 0,
            packing,
            checksum: None,
            damage: None,
        }
    }

    #[test]
    fn what_is_to_be_compressed_and_what_is_are_counted_with_their_bytes() {
        let wanted = Packing::Wanted(Compression::Zstd);
        let done = Packing::Done(PackedImage {
            compression: Compression::Zstd,
            file_bytes: 5,
        });
        let mut damaged = record(0, 1000, wanted);
        damaged.damage = Some(Damage {
            found: Timestamp(1),
            reason: String::new(),
        });
        let records = [
            record(0, 1, Packing::None),
            record(90 * HOUR, 10, wanted),
            record(80 * HOUR, 20, wanted),
            record(10 * HOUR, 5, done),
            damaged,
        ];
        let health = of(&records.map(Arc::new), Timestamp(100 * HOUR));
        let (snapshots, bytes) = (2, 30);
        assert_eq!(health.uncompressed, Packed { snapshots, bytes });
        assert_eq!(health.oldest_uncompressed_seconds, 20 * 3600);
        let (snapshots, bytes) = (1, 5);
        assert_eq!(health.compressed, Packed { snapshots, bytes });
        assert_eq!(of(&[], Timestamp(HOUR)), Health::default());
    }
}
