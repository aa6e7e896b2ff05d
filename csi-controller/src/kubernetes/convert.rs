//! Between the words of the Controller service and those of the custom resources.
//!
//! What exists is told from `status`, which is the record on the node's disk; from `spec` only as long as there is none.

use api::{
    ClaimReference, LocalSnapshot, LocalSnapshotSpec, LocalVolume, LocalVolumeSpec,
    READY_CONDITION, UNANSWERED_ANNOTATION,
};
use kube::ResourceExt;
use proto::errors::{Failure, Kind};

use super::managed::{Managed, Stage};
use super::verdict::unusable;
use crate::backend::{CreateSnapshot, CreateVolume, VolumeDetail};
use crate::model::{
    Checksum, Compression, FsType, HealthProblem, HealthStatus, Provisioning, Snapshot, Source,
    Volume, VolumeHealth, VolumeMode,
};

/// The object for a volume on this node.
pub(crate) fn new_volume(request: &CreateVolume, node: &str) -> Result<LocalVolume, Failure> {
    let (volume_mode, fs_type) = match request.mode {
        VolumeMode::Block => (api::VolumeMode::Block, None),
        VolumeMode::Filesystem(FsType::Ext4) => {
            (api::VolumeMode::Filesystem, Some(api::FsType::Ext4))
        }
        VolumeMode::Filesystem(FsType::Xfs) => {
            (api::VolumeMode::Filesystem, Some(api::FsType::Xfs))
        }
    };
    let spec = LocalVolumeSpec {
        node_name: node.to_owned(),
        name: request.name.clone(),
        requested_bytes: to_signed(request.requested_bytes)?,
        size_bytes: to_signed(request.capacity_bytes)?,
        volume_mode,
        fs_type,
        provisioning: match request.provisioning {
            Provisioning::Thin => api::Provisioning::Thin,
            Provisioning::Thick => api::Provisioning::Thick,
        },
        access_modes: request
            .access_modes
            .iter()
            .map(|mode| mode.as_str().to_owned())
            .collect(),
        source: request.source.as_ref().map(|source| match source {
            Source::Snapshot(id) => api::Source {
                snapshot: Some(id.clone()),
                volume: None,
            },
            Source::Volume(id) => api::Source {
                snapshot: None,
                volume: Some(id.clone()),
            },
        }),
        claim: request.claim.as_ref().map(|claim| ClaimReference {
            namespace: claim.namespace.clone(),
            name: claim.name.clone(),
            uid: claim_uid(&request.id).map(str::to_owned),
        }),
        delete: false,
    };
    let mut object = LocalVolume::new(&request.id, spec);
    if object.spec.source.is_some() {
        object
            .annotations_mut()
            .insert(UNANSWERED_ANNOTATION.to_owned(), "true".to_owned());
    }
    Ok(object)
}

/// The uid of the claim that a volume of this id was made for, if external-provisioner named it.
pub(crate) fn claim_uid(id: &str) -> Option<&str> {
    id.strip_prefix("pvc-")
}

/// The object for a snapshot on this node.
pub(crate) fn new_snapshot(request: &CreateSnapshot, node: &str) -> LocalSnapshot {
    let spec = LocalSnapshotSpec {
        node_name: node.to_owned(),
        name: request.name.clone(),
        source_volume: request.source_volume_id.clone(),
        compression: request.compression.map(|how| match how {
            Compression::Zstd => api::Compression::Zstd,
        }),
        checksum: request.checksum.map(|checksum| match checksum {
            Checksum::Blake3 => api::Checksum::Blake3,
        }),
        delete: false,
    };
    LocalSnapshot::new(&request.id, spec)
}

/// A volume that exists.
pub(crate) fn volume(object: &LocalVolume) -> Volume {
    let spec = &object.spec;
    let recorded = object
        .status
        .as_ref()
        .filter(|status| status.size_bytes.is_some());
    let (size, requested, mode, fs_type, provisioning, source) = match recorded {
        Some(status) => (
            status.size_bytes.unwrap_or(spec.size_bytes),
            status.requested_bytes.unwrap_or(spec.requested_bytes),
            status.volume_mode.unwrap_or(spec.volume_mode),
            status.fs_type.or(spec.fs_type),
            status.provisioning.unwrap_or(spec.provisioning),
            status.source.as_ref(),
        ),
        None => (
            spec.size_bytes,
            spec.requested_bytes,
            spec.volume_mode,
            spec.fs_type,
            spec.provisioning,
            spec.source.as_ref(),
        ),
    };
    Volume {
        id: object.name_any(),
        requested_bytes: to_unsigned(requested),
        capacity_bytes: to_unsigned(size),
        mode: self::mode(mode, fs_type),
        provisioning: match provisioning {
            api::Provisioning::Thin => Provisioning::Thin,
            api::Provisioning::Thick => Provisioning::Thick,
        },
        source: source.and_then(self::source),
        nodes: vec![proto::topology::value(&spec.node_name)],
    }
}

/// A volume that exists, and where it is in use. The id of a node is its name.
pub(crate) fn detail(object: &LocalVolume) -> VolumeDetail {
    let published = object
        .status
        .as_ref()
        .is_some_and(|status| status.published);
    VolumeDetail {
        volume: volume(object),
        published_node_ids: if published {
            vec![object.spec.node_name.clone()]
        } else {
            Vec::new()
        },
    }
}

/// A snapshot that exists.
pub(crate) fn snapshot(object: &LocalSnapshot) -> Snapshot {
    let status = object.status.clone().unwrap_or_default();
    Snapshot {
        id: object.name_any(),
        source_volume_id: object.spec.source_volume.clone(),
        requested_bytes: to_unsigned(status.requested_bytes.unwrap_or_default()),
        image_bytes: to_unsigned(status.image_bytes.unwrap_or_default()),
        created_unix_ns: status.creation_unix_ns.unwrap_or_default(),
        ready_to_use: status.ready_to_use,
        damage: damage(object),
        compression: object.spec.compression.map(|how| match how {
            api::Compression::Zstd => Compression::Zstd,
        }),
        checksum: object.spec.checksum.map(|checksum| match checksum {
            api::Checksum::Blake3 => Checksum::Blake3,
        }),
        mode: mode(
            status.volume_mode.unwrap_or(api::VolumeMode::Block),
            status.fs_type,
        ),
        nodes: vec![proto::topology::value(&object.spec.node_name)],
    }
}

/// Why nothing can be restored from a snapshot, now or later.
fn damage(object: &LocalSnapshot) -> Option<String> {
    match object.stage() {
        Stage::Failed | Stage::DataMissing => {
            let failure = unusable(object);
            (failure.kind == Kind::Corrupt).then_some(failure.message)
        }
        Stage::Pending | Stage::Ready | Stage::Deleting | Stage::Deleted => None,
    }
}

/// What is known to be wrong with a volume. `pool` is what keeps its node's pool from serving.
pub(crate) fn health(object: &LocalVolume, pool: Option<String>) -> VolumeHealth {
    let mut problems = Vec::new();
    let mut add = |status, reason: &str, message: String| {
        problems.push(HealthProblem {
            status,
            reason: reason.to_owned(),
            message,
        });
    };
    match object.stage() {
        Stage::DataMissing => add(HealthStatus::DataLoss, "DataMissing", object.problem()),
        Stage::Failed => {
            let conditions = object.conditions().iter();
            let reason = conditions
                .filter(|condition| condition.type_ == READY_CONDITION)
                .map(|condition| condition.reason.as_str())
                .find(|reason| !reason.is_empty());
            add(
                HealthStatus::Inaccessible,
                reason.unwrap_or("Failed"),
                object.problem(),
            );
        }
        Stage::Pending | Stage::Ready | Stage::Deleting | Stage::Deleted => {}
    }
    if let Some(why) = pool {
        add(HealthStatus::Inaccessible, "PoolUnavailable", why);
    }
    VolumeHealth {
        volume_id: object.name_any(),
        problems,
    }
}

fn source(source: &api::Source) -> Option<Source> {
    match source {
        api::Source {
            snapshot: Some(id), ..
        } => Some(Source::Snapshot(id.clone())),
        api::Source {
            volume: Some(id), ..
        } => Some(Source::Volume(id.clone())),
        api::Source { .. } => None,
    }
}

fn mode(mode: api::VolumeMode, fs_type: Option<api::FsType>) -> VolumeMode {
    match (mode, fs_type) {
        (api::VolumeMode::Block, _) => VolumeMode::Block,
        (api::VolumeMode::Filesystem, Some(api::FsType::Xfs)) => {
            VolumeMode::Filesystem(FsType::Xfs)
        }
        (api::VolumeMode::Filesystem, Some(api::FsType::Ext4) | None) => {
            VolumeMode::Filesystem(FsType::Ext4)
        }
    }
}

/// Sizes of objects are never negative; what claims to be is none.
pub(crate) fn to_unsigned(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or_default()
}

/// # Errors
/// `OutOfRange` above 2^63 - 1, which no disk has.
pub(crate) fn to_signed(bytes: u64) -> Result<i64, Failure> {
    i64::try_from(bytes).map_err(|_too_large| {
        Failure::new(
            Kind::OutOfRange,
            format!("{bytes} bytes are more than any disk has"),
        )
    })
}
