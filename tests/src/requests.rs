//! CSI requests as the sidecars and kubelet make them.

use crate::csi;
use csi::volume_capability::access_mode::Mode;
use csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use csi::volume_content_source::{SnapshotSource, Type, VolumeSource};

/// What external-provisioner sends for `ReadWriteOnce` to a driver with `SINGLE_NODE_MULTI_WRITER`.
const USUAL_MODE: Mode = Mode::SingleNodeMultiWriter;

/// A raw block volume.
#[must_use]
pub fn block() -> csi::VolumeCapability {
    capability(AccessType::Block(BlockVolume {}))
}

/// A filesystem of type `fs_type`; empty leaves the choice to the driver.
#[must_use]
pub fn filesystem(fs_type: &str) -> csi::VolumeCapability {
    capability(AccessType::Mount(MountVolume {
        fs_type: fs_type.to_owned(),
        ..Default::default()
    }))
}

fn capability(access: AccessType) -> csi::VolumeCapability {
    csi::VolumeCapability {
        access_type: Some(access),
        access_mode: Some(AccessMode {
            mode: USUAL_MODE.into(),
        }),
    }
}

/// The ways a volume can be used, by name.
#[must_use]
pub fn uses() -> [(&'static str, csi::VolumeCapability); 3] {
    [
        ("block", block()),
        ("ext4", filesystem("ext4")),
        ("xfs", filesystem("xfs")),
    ]
}

/// `capability` with another access mode.
#[must_use]
pub fn with_mode(mut capability: csi::VolumeCapability, mode: Mode) -> csi::VolumeCapability {
    capability.access_mode = Some(AccessMode { mode: mode.into() });
    capability
}

/// A filesystem capability with mount flags.
#[must_use]
pub fn with_flags(mut capability: csi::VolumeCapability, flags: &[&str]) -> csi::VolumeCapability {
    if let Some(AccessType::Mount(mount)) = &mut capability.access_type {
        mount.mount_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }
    capability
}

/// Whether `capability` asks for a block volume.
#[must_use]
pub fn is_block(capability: &csi::VolumeCapability) -> bool {
    matches!(capability.access_type, Some(AccessType::Block(_)))
}

/// At least `bytes`.
#[must_use]
pub fn at_least(bytes: u64) -> Option<csi::CapacityRange> {
    between(bytes, 0)
}

/// Between `required` and `limit` bytes; 0 means no limit.
#[must_use]
pub fn between(required: u64, limit: u64) -> Option<csi::CapacityRange> {
    Some(csi::CapacityRange {
        required_bytes: signed(required),
        limit_bytes: signed(limit),
    })
}

/// A size as the protocol carries it.
#[must_use]
pub fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).expect("a size of the protocol")
}

/// A new volume of at least `bytes`.
#[must_use]
pub fn volume(name: &str, bytes: u64, how: csi::VolumeCapability) -> csi::CreateVolumeRequest {
    csi::CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: at_least(bytes),
        volume_capabilities: vec![how],
        ..Default::default()
    }
}

/// `request` with one more class parameter.
#[must_use]
pub fn with_parameter(
    mut request: csi::CreateVolumeRequest,
    key: &str,
    value: &str,
) -> csi::CreateVolumeRequest {
    let _before = request.parameters.insert(key.to_owned(), value.to_owned());
    request
}

/// `request` with the content of a snapshot.
#[must_use]
pub fn from_snapshot(
    mut request: csi::CreateVolumeRequest,
    snapshot_id: &str,
) -> csi::CreateVolumeRequest {
    request.volume_content_source = Some(csi::VolumeContentSource {
        r#type: Some(Type::Snapshot(SnapshotSource {
            snapshot_id: snapshot_id.to_owned(),
        })),
    });
    request
}

/// `request` with the content of a volume.
#[must_use]
pub fn from_volume(
    mut request: csi::CreateVolumeRequest,
    volume_id: &str,
) -> csi::CreateVolumeRequest {
    request.volume_content_source = Some(csi::VolumeContentSource {
        r#type: Some(Type::Volume(VolumeSource {
            volume_id: volume_id.to_owned(),
        })),
    });
    request
}

/// A snapshot of a volume.
#[must_use]
pub fn snapshot(name: &str, volume_id: &str) -> csi::CreateSnapshotRequest {
    csi::CreateSnapshotRequest {
        name: name.to_owned(),
        source_volume_id: volume_id.to_owned(),
        ..Default::default()
    }
}

/// A snapshot of a volume that is compressed afterwards.
#[must_use]
pub fn compressed_snapshot(name: &str, volume_id: &str) -> csi::CreateSnapshotRequest {
    let mut request = snapshot(name, volume_id);
    let _before = request
        .parameters
        .insert("compression".to_owned(), "zstd".to_owned());
    request
}

/// Growth of a volume to at least `bytes`.
#[must_use]
pub fn expand(
    volume_id: &str,
    bytes: u64,
    how: csi::VolumeCapability,
) -> csi::ControllerExpandVolumeRequest {
    csi::ControllerExpandVolumeRequest {
        volume_id: volume_id.to_owned(),
        capacity_range: at_least(bytes),
        volume_capability: Some(how),
        ..Default::default()
    }
}
