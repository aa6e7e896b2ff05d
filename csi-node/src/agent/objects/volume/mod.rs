//! LocalVolume: what it asks for, and what its record says.

use api::{Failure as LastFailure, LocalVolume, LocalVolumeSpec, LocalVolumeStatus, VolumeState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt as _;
use pool::record::{Format, FormatState, FsType, Provisioning, Source, VolumeMode, VolumeRecord};
use pool::{SnapshotId, VolumeId};
use proto::errors::{Failure, Kind};

use super::managed::{Managed, Measured, Report, Seen, signed, unsigned};
use super::plan::{Data, State};
use crate::LocalNode;
use crate::agent::quantity;
use crate::local_node::{Problem, VolumeRequest};

/// What is known of a volume that exists.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) record: VolumeRecord,
    pub(crate) published: bool,
    pub(crate) used_bytes: Option<u64>,
}

impl Managed for LocalVolume {
    type Record = Volume;
    const WHAT: &'static str = "volume";

    fn named(&self) -> bool {
        VolumeId::parse(&self.name_any()).is_ok()
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
                VolumeState::Pending => State::Pending,
                VolumeState::Ready => State::Ready,
                VolumeState::Failed => State::Failed,
                VolumeState::DataMissing => State::DataMissing,
                VolumeState::Deleting => State::Deleting,
                VolumeState::Deleted => State::Deleted,
            })
    }

    fn satisfied(&self) -> bool {
        self.status.as_ref().is_some_and(|status| {
            status.state == VolumeState::Ready
                && status
                    .size_bytes
                    .is_some_and(|size| size >= self.spec.size_bytes)
        })
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
        let claim = self.spec.claim.clone()?;
        // It is named after the claim that it was made for; another one is told with its uid.
        let first = || self.name_any().strip_prefix("pvc-").map(str::to_owned);
        let uid = claim.uid.clone().or_else(first);
        Some((claim, uid))
    }

    async fn look(&self, node: &LocalNode) -> Seen<Volume> {
        let nothing = |data| Seen { data, record: None };
        let Ok(id) = VolumeId::parse(&self.name_any()) else {
            return nothing(Data::Absent);
        };
        let record = match node.volume(&id).await {
            Ok(record) => record,
            Err(failure) => return nothing(unreadable(failure)),
        };
        match node.volume_problems(&id).await.as_deref() {
            Ok([]) => {}
            Ok([problem, ..]) => return nothing(troubled(problem)),
            Err(failure) => return nothing(unreadable(failure.clone())),
        }
        let seen = Volume {
            published: node.is_published(&id).await.unwrap_or(false),
            used_bytes: node.allocated_bytes(&id).await.ok(),
            record,
        };
        Seen {
            data: Data::Present {
                difference: difference(&self.spec, &seen.record),
                grow: signed(seen.record.size_bytes) < self.spec.size_bytes
                    || signed(seen.record.requested_bytes) < self.spec.requested_bytes,
            },
            record: Some(seen),
        }
    }

    async fn make(self, node: LocalNode) -> Result<Measured, Failure> {
        node.create_volume(request(&self)?).await?;
        Ok(Measured::default())
    }

    async fn grow(self, node: LocalNode) -> Result<Measured, Failure> {
        let id = VolumeId::parse(&self.name_any()).map_err(crate::failure::of)?;
        let requested = unsigned(self.spec.requested_bytes, "requestedBytes")?;
        let size = unsigned(self.spec.size_bytes, "sizeBytes")?;
        node.expand_volume(&id, requested, size).await?;
        Ok(Measured::default())
    }

    async fn remove(self, node: LocalNode) -> Result<Measured, Failure> {
        let id = VolumeId::parse(&self.name_any()).map_err(crate::failure::of)?;
        node.delete_volume(&id).await?;
        Ok(Measured::default())
    }

    fn making(&self) -> &'static str {
        match &self.spec.source {
            None => "create_volume",
            Some(source) if source.snapshot.is_some() => "restore",
            Some(_) => "clone",
        }
    }

    fn status(&self, report: Report, seen: Option<&Volume>, _now: &Time) -> Self {
        let mut changed = self.clone();
        let status = changed
            .status
            .get_or_insert_with(LocalVolumeStatus::default);
        status.state = match report.state {
            State::Pending => VolumeState::Pending,
            State::Ready => VolumeState::Ready,
            State::Failed => VolumeState::Failed,
            State::DataMissing => VolumeState::DataMissing,
            State::Deleting => VolumeState::Deleting,
            State::Deleted => VolumeState::Deleted,
        };
        status.observed_generation = report.generation;
        status.pool_uuid = report.pool_uuid.or(status.pool_uuid.take());
        status.progress = report.progress;
        status.failure = report.failure;
        status.conditions = vec![report.condition];
        match seen {
            Some(seen) => describe(status, seen),
            None if report.state == State::Deleted => status.published = false,
            None => {}
        }
        changed
    }

    fn status_value(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::to_value(self.status.clone().unwrap_or_default())
    }
}

fn describe(status: &mut LocalVolumeStatus, seen: &Volume) {
    let spec = spec_of("", &seen.record);
    status.size_bytes = Some(spec.size_bytes);
    status.requested_bytes = Some(spec.requested_bytes);
    status.volume_mode = Some(spec.volume_mode);
    status.fs_type = spec.fs_type;
    status.provisioning = Some(spec.provisioning);
    status.source = spec.source;
    status.capacity = Some(quantity::human(seen.record.size_bytes));
    status.used = seen.used_bytes.map(quantity::human);
    status.ever_staged = seen.record.staged;
    status.published = seen.published;
}

/// What an object for this record would ask for.
pub(crate) fn spec_of(node: &str, record: &VolumeRecord) -> LocalVolumeSpec {
    let (volume_mode, fs_type) = mode_of(record.mode);
    LocalVolumeSpec {
        node_name: node.to_owned(),
        name: record.name.clone(),
        requested_bytes: signed(record.requested_bytes),
        size_bytes: signed(record.size_bytes),
        volume_mode,
        fs_type,
        provisioning: match record.provisioning {
            Provisioning::Thin => api::Provisioning::Thin,
            Provisioning::Thick => api::Provisioning::Thick,
        },
        access_modes: record.access_modes.clone(),
        source: record.source.as_ref().map(|source| match source {
            Source::Snapshot(id) => api::Source {
                snapshot: Some(id.to_string()),
                volume: None,
            },
            Source::Volume(id) => api::Source {
                snapshot: None,
                volume: Some(id.to_string()),
            },
        }),
        claim: None,
        delete: false,
    }
}

pub(super) fn mode_of(mode: VolumeMode) -> (api::VolumeMode, Option<api::FsType>) {
    let fs = mode.fs_type().map(|fs| match fs {
        FsType::Ext4 => api::FsType::Ext4,
        FsType::Xfs => api::FsType::Xfs,
    });
    match fs {
        None => (api::VolumeMode::Block, None),
        Some(fs) => (api::VolumeMode::Filesystem, Some(fs)),
    }
}

/// The first field in which an object and the record differ. Sizes are no difference: they grow, and an object may be older
/// than its volume.
fn difference(spec: &LocalVolumeSpec, record: &VolumeRecord) -> Option<String> {
    let there = spec_of(&spec.node_name, record);
    let sorted = |modes: &[String]| {
        let mut modes = modes.to_vec();
        modes.sort_unstable();
        modes.dedup();
        modes
    };
    let fields = [
        ("name", spec.name == there.name),
        ("volumeMode", spec.volume_mode == there.volume_mode),
        ("fsType", spec.fs_type == there.fs_type),
        ("provisioning", spec.provisioning == there.provisioning),
        (
            "accessModes",
            sorted(&spec.access_modes) == sorted(&there.access_modes),
        ),
        ("source", spec.source == there.source),
    ];
    let (field, _) = fields.into_iter().find(|(_, same)| !same)?;
    Some(format!(
        "{field} is {}, the object asks for {}",
        shown(&there, field),
        shown(spec, field)
    ))
}

fn shown(spec: &LocalVolumeSpec, field: &str) -> String {
    let value = serde_json::to_value(spec).unwrap_or_default();
    value
        .get(field)
        .map_or_else(|| "not set".to_owned(), ToString::to_string)
}

fn request(volume: &LocalVolume) -> Result<VolumeRequest, Failure> {
    let spec = &volume.spec;
    let source = match &spec.source {
        None => None,
        Some(source) => Some(source_of(source)?),
    };
    let state = if source.is_some() {
        FormatState::Inherited
    } else {
        FormatState::Unformatted
    };
    let format = |fs| VolumeMode::Filesystem(Format { fs, state });
    let mode = match (spec.volume_mode, spec.fs_type) {
        (api::VolumeMode::Block, None) => VolumeMode::Block,
        (api::VolumeMode::Filesystem, Some(api::FsType::Ext4)) => format(FsType::Ext4),
        (api::VolumeMode::Filesystem, Some(api::FsType::Xfs)) => format(FsType::Xfs),
        (api::VolumeMode::Block, Some(_)) | (api::VolumeMode::Filesystem, None) => {
            return Err(Failure::invalid(
                "spec.fsType goes with volumeMode Filesystem, and only with it",
            ));
        }
    };
    Ok(VolumeRequest {
        id: VolumeId::parse(&volume.name_any()).map_err(crate::failure::of)?,
        name: spec.name.clone(),
        requested_bytes: unsigned(spec.requested_bytes, "requestedBytes")?,
        size_bytes: unsigned(spec.size_bytes, "sizeBytes")?,
        provisioning: match spec.provisioning {
            api::Provisioning::Thin => Provisioning::Thin,
            api::Provisioning::Thick => Provisioning::Thick,
        },
        mode,
        access_modes: spec.access_modes.clone(),
        source,
    })
}

fn source_of(source: &api::Source) -> Result<Source, Failure> {
    match (&source.snapshot, &source.volume) {
        (Some(id), None) => SnapshotId::parse(id)
            .map(Source::Snapshot)
            .map_err(crate::failure::of),
        (None, Some(id)) => VolumeId::parse(id)
            .map(Source::Volume)
            .map_err(crate::failure::of),
        _ => Err(Failure::invalid(
            "a source is either a snapshot or a volume",
        )),
    }
}

/// What a record that cannot be read means.
pub(super) fn unreadable(failure: Failure) -> Data {
    match failure.kind {
        Kind::NotFound => Data::Absent,
        Kind::Corrupt => Data::Damaged(failure.message),
        _ => Data::Unknown(failure),
    }
}

fn troubled(problem: &Problem) -> Data {
    match problem {
        Problem::RecordDamaged(reason) | Problem::ImageDamaged(reason) => {
            Data::Damaged(reason.clone())
        }
        Problem::Unreadable(reason) | Problem::PoolUnavailable(reason) => {
            Data::Unknown(Failure::new(Kind::Unavailable, reason.clone()))
        }
    }
}

#[cfg(test)]
mod tests;
