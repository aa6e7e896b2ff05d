//! LocalSnapshot: what it asks for, and what its record says.

use api::{
    Failure as LastFailure, LocalSnapshot, LocalSnapshotSpec, LocalSnapshotStatus, SnapshotState,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use pool::record::{Checksum, Compression, Packed, Packing, SnapshotRecord};
use pool::{SnapshotId, VolumeId};
use proto::errors::Failure;

use super::managed::{Managed, Measured, Report, Seen, signed};
use super::plan::{Data, State};
use super::volume::{mode_of, unreadable};
use crate::LocalNode;
use crate::agent::quantity;
use crate::local_node::{SnapshotRequest, describe as describe_damage};

impl Managed for LocalSnapshot {
    type Record = SnapshotRecord;
    const WHAT: &'static str = "snapshot";

    fn named(&self) -> bool {
        SnapshotId::parse(&self.name_any()).is_ok()
    }

    fn wants_deletion(&self) -> bool {
        self.spec.delete
    }

    fn node_name(&self) -> &str {
        &self.spec.node_name
    }

    fn state(&self) -> State {
        self.status
            .as_ref()
            .map_or(State::Pending, |status| match status.state {
                SnapshotState::Pending => State::Pending,
                SnapshotState::Ready => State::Ready,
                SnapshotState::Failed => State::Failed,
                SnapshotState::DataMissing => State::DataMissing,
                SnapshotState::Deleting => State::Deleting,
                SnapshotState::Deleted => State::Deleted,
            })
    }

    fn satisfied(&self) -> bool {
        self.state() == State::Ready
    }

    fn failure(&self) -> Option<&LastFailure> {
        self.status.as_ref()?.failure.as_ref()
    }

    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map_or(&[], |status| &status.conditions)
    }

    fn claim(&self) -> Option<(api::ClaimReference, Option<String>)> {
        None
    }

    async fn look(&self, node: &LocalNode) -> Seen<SnapshotRecord> {
        let Ok(id) = SnapshotId::parse(&self.name_any()) else {
            return Seen {
                data: Data::Absent,
                record: None,
            };
        };
        match node.snapshot(&id).await {
            Ok(record) => Seen {
                data: data_of(&self.spec, &record),
                record: Some(record),
            },
            Err(failure) => Seen {
                data: unreadable(failure),
                record: None,
            },
        }
    }

    async fn make(self, node: LocalNode) -> Result<Measured, Failure> {
        let request = SnapshotRequest {
            id: SnapshotId::parse(&self.name_any()).map_err(crate::failure::of)?,
            name: self.spec.name.clone(),
            source: VolumeId::parse(&self.spec.source_volume).map_err(crate::failure::of)?,
            compression: self.spec.compression.map(|how| match how {
                api::Compression::Zstd => Compression::Zstd,
            }),
            checksum: self.spec.checksum.map(|checksum| match checksum {
                api::Checksum::Blake3 => Checksum::Blake3,
            }),
        };
        let record = node.create_snapshot(request).await?;
        Ok(Measured {
            cut: Some((record.stall_us, record.extents)),
        })
    }

    async fn grow(self, _node: LocalNode) -> Result<Measured, Failure> {
        // A snapshot never grows, and nothing ever plans this.
        Ok(Measured::default())
    }

    async fn remove(self, node: LocalNode) -> Result<Measured, Failure> {
        let id = SnapshotId::parse(&self.name_any()).map_err(crate::failure::of)?;
        node.delete_snapshot(&id).await?;
        Ok(Measured::default())
    }

    fn making(&self) -> &'static str {
        "create_snapshot"
    }

    fn status(&self, report: Report, record: Option<&SnapshotRecord>, _now: &Time) -> Self {
        let mut changed = self.clone();
        let status = changed
            .status
            .get_or_insert_with(LocalSnapshotStatus::default);
        status.state = match report.state {
            State::Pending => SnapshotState::Pending,
            State::Ready => SnapshotState::Ready,
            State::Failed => SnapshotState::Failed,
            State::DataMissing => SnapshotState::DataMissing,
            State::Deleting => SnapshotState::Deleting,
            State::Deleted => SnapshotState::Deleted,
        };
        status.ready_to_use = report.state == State::Ready;
        status.observed_generation = report.generation;
        status.pool_uuid = report.pool_uuid.or(status.pool_uuid.take());
        status.progress = report.progress;
        status.failure = report.failure;
        status.conditions = vec![report.condition];
        if let Some(record) = record {
            describe(status, record);
        }
        changed
    }

    fn status_value(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::to_value(self.status.clone().unwrap_or_default())
    }
}

fn describe(status: &mut LocalSnapshotStatus, record: &SnapshotRecord) {
    let (volume_mode, fs_type) = mode_of(record.mode);
    let created = Timestamp::from_nanosecond(i128::from(record.created.0));
    status.creation_time = created.ok().map(Time);
    status.creation_unix_ns = Some(signed(record.created.0));
    status.requested_bytes = Some(signed(record.requested_bytes));
    status.image_bytes = Some(signed(record.virtual_bytes));
    status.charge_bytes = Some(signed(record.charge_bytes));
    status.size = Some(quantity::human(record.virtual_bytes));
    status.volume_mode = Some(volume_mode);
    status.fs_type = fs_type;
    if let Some(checksum) = &record.checksum {
        status.data_digest.clone_from(&checksum.digest);
        // Whole seconds, as the API server keeps them.
        let verified = checksum.verified.map(|at| at.0 / 1_000_000_000);
        let verified = verified.and_then(|seconds| Timestamp::from_second(signed(seconds)).ok());
        status.verified_time = verified.map(Time);
    }
}

fn data_of(spec: &LocalSnapshotSpec, record: &SnapshotRecord) -> Data {
    match &record.damage {
        Some(damage) => Data::Damaged(describe_damage(record, damage)),
        None => Data::Present {
            difference: difference(spec, record),
            grow: false,
        },
    }
}

/// What an object for this record would ask for.
pub(crate) fn spec_of(node: &str, record: &SnapshotRecord) -> LocalSnapshotSpec {
    LocalSnapshotSpec {
        node_name: node.to_owned(),
        name: record.name.clone(),
        source_volume: record.source_volume.to_string(),
        compression: match record.packing {
            Packing::None => None,
            Packing::Wanted(Compression::Zstd)
            | Packing::Done(Packed {
                compression: Compression::Zstd,
                ..
            }) => Some(api::Compression::Zstd),
        },
        checksum: record
            .checksum
            .as_ref()
            .map(|checksum| match checksum.algorithm {
                Checksum::Blake3 => api::Checksum::Blake3,
            }),
        delete: false,
    }
}

fn difference(spec: &LocalSnapshotSpec, record: &SnapshotRecord) -> Option<String> {
    let there = spec_of(&spec.node_name, record);
    let fields = [
        ("name", &spec.name, &there.name),
        ("sourceVolume", &spec.source_volume, &there.source_volume),
    ];
    if let Some((field, asked, is)) = fields.into_iter().find(|(_, asked, is)| asked != is) {
        return Some(format!("{field} is {is:?}, the object asks for {asked:?}"));
    }
    let spelled = |checksum: Option<api::Checksum>| match checksum {
        None => "none",
        Some(api::Checksum::Blake3) => "blake3",
    };
    let (asked, is) = (spelled(spec.checksum), spelled(there.checksum));
    (asked != is).then(|| format!("checksum is {is}, the object asks for {asked}"))
}
