//! Between the words of the Controller service and those of the pool.

use csi_controller::backend;
use csi_controller::model::{self, AccessMode};
use csi_node::local_node::{SnapshotRequest, VolumeRequest, describe};
use pool::record::{
    Checksum, Compression, Format, FormatState, FsType, Packed, Packing, Provisioning,
    SnapshotRecord, Source, VolumeMode, VolumeRecord,
};
use pool::{SnapshotId, VolumeId};
use proto::errors::Failure;

pub(super) fn volume_id(id: &str) -> Result<VolumeId, Failure> {
    VolumeId::parse(id).map_err(csi_node::failure::of)
}

pub(super) fn snapshot_id(id: &str) -> Result<SnapshotId, Failure> {
    SnapshotId::parse(id).map_err(csi_node::failure::of)
}

pub(super) fn volume_request(request: backend::CreateVolume) -> Result<VolumeRequest, Failure> {
    Ok(VolumeRequest {
        id: volume_id(&request.id)?,
        name: request.name,
        requested_bytes: request.requested_bytes,
        size_bytes: request.capacity_bytes,
        provisioning: match request.provisioning {
            model::Provisioning::Thin => Provisioning::Thin,
            model::Provisioning::Thick => Provisioning::Thick,
        },
        mode: new_mode(request.mode),
        access_modes: request.access_modes.into_iter().map(access_mode).collect(),
        source: match request.source {
            None => None,
            Some(model::Source::Snapshot(id)) => Some(Source::Snapshot(snapshot_id(&id)?)),
            Some(model::Source::Volume(id)) => Some(Source::Volume(volume_id(&id)?)),
        },
    })
}

pub(super) fn snapshot_request(
    request: backend::CreateSnapshot,
) -> Result<SnapshotRequest, Failure> {
    Ok(SnapshotRequest {
        id: snapshot_id(&request.id)?,
        name: request.name,
        source: volume_id(&request.source_volume_id)?,
        compression: request.compression.map(|how| match how {
            model::Compression::Zstd => Compression::Zstd,
        }),
        checksum: request.checksum.map(|checksum| match checksum {
            model::Checksum::Blake3 => Checksum::Blake3,
        }),
    })
}

pub(super) fn volume(record: &VolumeRecord, node: &str) -> model::Volume {
    model::Volume {
        id: record.id.to_string(),
        requested_bytes: record.requested_bytes,
        capacity_bytes: record.size_bytes,
        mode: mode(record.mode),
        provisioning: match record.provisioning {
            Provisioning::Thin => model::Provisioning::Thin,
            Provisioning::Thick => model::Provisioning::Thick,
        },
        source: record.source.as_ref().map(|source| match source {
            Source::Snapshot(id) => model::Source::Snapshot(id.to_string()),
            Source::Volume(id) => model::Source::Volume(id.to_string()),
        }),
        nodes: vec![proto::topology::value(node)],
    }
}

pub(super) fn snapshot(record: &SnapshotRecord, node: &str) -> model::Snapshot {
    model::Snapshot {
        id: record.id.to_string(),
        source_volume_id: record.source_volume.to_string(),
        requested_bytes: record.requested_bytes,
        image_bytes: record.virtual_bytes,
        created_unix_ns: i64::try_from(record.created.0).unwrap_or(i64::MAX),
        ready_to_use: record.damage.is_none(),
        damage: record
            .damage
            .as_ref()
            .map(|damage| describe(record, damage)),
        compression: match record.packing {
            Packing::None => None,
            Packing::Wanted(Compression::Zstd)
            | Packing::Done(Packed {
                compression: Compression::Zstd,
                ..
            }) => Some(model::Compression::Zstd),
        },
        checksum: record.checksum.as_ref().map(|_| model::Checksum::Blake3),
        mode: mode(record.mode),
        nodes: vec![proto::topology::value(node)],
    }
}

/// What is in a copy is for the node to say, which reads its source's record.
fn new_mode(mode: model::VolumeMode) -> VolumeMode {
    let fs = match mode {
        model::VolumeMode::Block => return VolumeMode::Block,
        model::VolumeMode::Filesystem(model::FsType::Ext4) => FsType::Ext4,
        model::VolumeMode::Filesystem(model::FsType::Xfs) => FsType::Xfs,
    };
    VolumeMode::Filesystem(Format {
        fs,
        state: FormatState::Unformatted,
    })
}

fn mode(mode: VolumeMode) -> model::VolumeMode {
    match mode.fs_type() {
        None => model::VolumeMode::Block,
        Some(FsType::Ext4) => model::VolumeMode::Filesystem(model::FsType::Ext4),
        Some(FsType::Xfs) => model::VolumeMode::Filesystem(model::FsType::Xfs),
    }
}

fn access_mode(mode: AccessMode) -> String {
    mode.as_str().to_owned()
}
