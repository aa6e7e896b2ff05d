//! Parameters of a StorageClass and of a VolumeSnapshotClass.

use std::collections::HashMap;

use proto::errors::Failure;

use super::capability::fs_type;
use super::text::{self, shown};
use crate::model::{Checksum, Claim, Compression, FsType, Provisioning};

/// Keys below this belong to the sidecars. Those we do not know are accepted and ignored:
/// external-provisioner passes all of them to GetCapacity.
const SIDECAR_PREFIX: &str = "csi.storage.k8s.io/";
const FS_TYPE: &str = "csi.storage.k8s.io/fstype";
const CLAIM_NAME: &str = "csi.storage.k8s.io/pvc/name";
const CLAIM_NAMESPACE: &str = "csi.storage.k8s.io/pvc/namespace";
const PROVISIONING: &str = "provisioning";
const COMPRESSION: &str = "compression";
const CHECKSUM: &str = "checksum";

/// The parameters of a StorageClass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct VolumeParameters {
    pub(crate) provisioning: Provisioning,
    /// Comes after the file system that the capability names.
    pub(crate) fs_type: Option<FsType>,
}

/// Reads the parameters of a StorageClass.
pub(crate) fn parse_volume(
    parameters: &HashMap<String, String>,
) -> Result<VolumeParameters, Failure> {
    text::map("parameters", parameters)?;
    let mut parsed = VolumeParameters::default();
    for (key, value) in sorted(parameters) {
        match key {
            PROVISIONING => parsed.provisioning = provisioning(value)?,
            FS_TYPE if value.is_empty() => {}
            FS_TYPE => parsed.fs_type = Some(fs_type(value)?),
            other if other.starts_with(SIDECAR_PREFIX) => {}
            other => {
                return Err(Failure::invalid(format!(
                    "StorageClass parameter {} is not known; known are {PROVISIONING} (thin, \
                     thick) and {FS_TYPE} (ext4, xfs)",
                    shown(other)
                )));
            }
        }
    }
    Ok(parsed)
}

/// The claim that external-provisioner makes the volume for, if both halves of its name are there.
pub(crate) fn claim(parameters: &HashMap<String, String>) -> Option<Claim> {
    let part = |key| {
        parameters
            .get(key)
            .filter(|text: &&String| !text.is_empty())
    };
    Some(Claim {
        namespace: part(CLAIM_NAMESPACE)?.clone(),
        name: part(CLAIM_NAME)?.clone(),
    })
}

/// The parameters of a VolumeSnapshotClass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SnapshotParameters {
    /// How images are compressed, if they are.
    pub(crate) compression: Option<Compression>,
    /// How the data is digested, if it is.
    pub(crate) checksum: Option<Checksum>,
}

/// Reads the parameters of a VolumeSnapshotClass.
pub(crate) fn parse_snapshot(
    parameters: &HashMap<String, String>,
) -> Result<SnapshotParameters, Failure> {
    text::map("parameters", parameters)?;
    let mut parsed = SnapshotParameters::default();
    for (key, value) in sorted(parameters) {
        match key {
            COMPRESSION => parsed.compression = compression(value)?,
            CHECKSUM => parsed.checksum = checksum(value)?,
            other if other.starts_with(SIDECAR_PREFIX) => {}
            other => {
                return Err(Failure::invalid(format!(
                    "VolumeSnapshotClass parameter {} is not known; known are {COMPRESSION} (none, \
                     zstd) and {CHECKSUM} (none, blake3)",
                    shown(other)
                )));
            }
        }
    }
    Ok(parsed)
}

/// Refuses mutable parameters: there is no VolumeAttributesClass support.
pub(crate) fn check_mutable(parameters: &HashMap<String, String>) -> Result<(), Failure> {
    if parameters.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid(
        "mutable_parameters are not supported; take the VolumeAttributesClass off the claim",
    ))
}

fn compression(value: &str) -> Result<Option<Compression>, Failure> {
    match value {
        "none" => Ok(None),
        "zstd" => Ok(Some(Compression::Zstd)),
        other => Err(Failure::invalid(format!(
            "compression {} is not known; known are none and zstd",
            shown(other)
        ))),
    }
}

fn checksum(value: &str) -> Result<Option<Checksum>, Failure> {
    match value {
        "none" => Ok(None),
        "blake3" => Ok(Some(Checksum::Blake3)),
        other => Err(Failure::invalid(format!(
            "checksum {} is not known; known are none and blake3",
            shown(other)
        ))),
    }
}

fn provisioning(value: &str) -> Result<Provisioning, Failure> {
    match value {
        "thin" => Ok(Provisioning::Thin),
        "thick" => Ok(Provisioning::Thick),
        other => Err(Failure::invalid(format!(
            "provisioning {} is not known; known are thin and thick",
            shown(other)
        ))),
    }
}

/// In the order of the keys, so that a request with two faults always gets the same message.
fn sorted(parameters: &HashMap<String, String>) -> Vec<(&str, &str)> {
    let mut sorted: Vec<(&str, &str)> = parameters
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    sorted.sort_unstable();
    sorted
}
