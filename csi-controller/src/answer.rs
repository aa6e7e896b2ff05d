//! Answers, from our values to what goes over the wire.

use prost_types::Timestamp;
use proto::csi::v1;
use proto::csi::v1::volume_content_source::{SnapshotSource, Type as SourceType, VolumeSource};
use proto::csi::v1::volume_health::VolumeHealthEntry;

use crate::model::{HealthStatus, Snapshot, Source, Volume, VolumeHealth};

const NANOSECONDS_PER_SECOND: i64 = 1_000_000_000;

/// A volume; `topology_key` is the driver's.
pub(crate) fn volume(volume: &Volume, topology_key: &str) -> v1::Volume {
    v1::Volume {
        capacity_bytes: signed(volume.capacity_bytes),
        volume_id: volume.id.clone(),
        volume_context: std::collections::HashMap::new(),
        content_source: volume.source.as_ref().map(content_source),
        accessible_topology: volume
            .nodes
            .iter()
            .map(|node| v1::Topology {
                segments: [(topology_key.to_owned(), node.clone())].into(),
            })
            .collect(),
    }
}

/// A snapshot. Its topology is left out: CSI allows it only with a capability that is not
/// announced, since no released sidecar knows it.
pub(crate) fn snapshot(snapshot: &Snapshot) -> v1::Snapshot {
    v1::Snapshot {
        size_bytes: signed(snapshot.requested_bytes),
        snapshot_id: snapshot.id.clone(),
        source_volume_id: snapshot.source_volume_id.clone(),
        creation_time: Some(timestamp(snapshot.created_unix_ns)),
        ready_to_use: snapshot.ready_to_use,
        group_snapshot_id: String::new(),
        accessible_topology: Vec::new(),
    }
}

/// The health of a volume.
pub(crate) fn health(health: &VolumeHealth) -> v1::VolumeHealth {
    v1::VolumeHealth {
        volume_id: health.volume_id.clone(),
        health_statuses: health
            .problems
            .iter()
            .map(|problem| VolumeHealthEntry {
                status: health_status(problem.status).into(),
                reason: problem.reason.clone(),
                message: problem.message.clone(),
            })
            .collect(),
    }
}

/// Bytes as CSI counts them. What is above 2^63 - 1, which no disk has, is told as that.
pub(crate) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn health_status(status: HealthStatus) -> v1::VolumeHealthErrorType {
    match status {
        HealthStatus::Degraded => v1::VolumeHealthErrorType::Degraded,
        HealthStatus::Inaccessible => v1::VolumeHealthErrorType::Inaccessible,
        HealthStatus::DataLoss => v1::VolumeHealthErrorType::DataLoss,
    }
}

fn content_source(source: &Source) -> v1::VolumeContentSource {
    let source = match source {
        Source::Snapshot(id) => SourceType::Snapshot(SnapshotSource {
            snapshot_id: id.clone(),
        }),
        Source::Volume(id) => SourceType::Volume(VolumeSource {
            volume_id: id.clone(),
        }),
    };
    v1::VolumeContentSource {
        r#type: Some(source),
    }
}

fn timestamp(unix_ns: i64) -> Timestamp {
    let nanos = unix_ns.rem_euclid(NANOSECONDS_PER_SECOND);
    Timestamp {
        seconds: unix_ns.div_euclid(NANOSECONDS_PER_SECOND),
        nanos: i32::try_from(nanos).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::{signed, timestamp};

    #[test]
    fn a_time_is_split_into_seconds_and_nanoseconds() {
        for (unix_ns, seconds, nanos) in [
            (1_500_000_001, 1, 500_000_001),
            (0, 0, 0),
            (-1, -1, 999_999_999),
        ] {
            let time = timestamp(unix_ns);
            assert_eq!((time.seconds, time.nanos), (seconds, nanos), "{unix_ns}");
        }
    }

    #[test]
    fn a_size_is_never_negative() {
        assert_eq!(signed(1 << 40), 1 << 40);
        assert_eq!(signed(u64::MAX), i64::MAX);
    }
}
