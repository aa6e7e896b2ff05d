//! Requests of kubelet, checked. Everything wrong with a request itself is found here, before anything is looked up.

use pool::attach::mount_options::MountOptions;
use pool::record::FsType;
use proto::csi::v1;
use proto::csi::v1::volume_capability::AccessType;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::errors::Failure;

use crate::failure;

/// CSI's limit for strings, in bytes. Paths have their own.
const LONGEST_ID: usize = 128;

/// How a pod uses a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) access: Access,
    pub(super) shape: Shape,
}

/// How many may use a volume on the one node where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// `SINGLE_NODE_READER_ONLY`.
    Reader,
    /// `SINGLE_NODE_WRITER` and `SINGLE_NODE_SINGLE_WRITER`: at one path.
    OneWriter,
    /// `SINGLE_NODE_MULTI_WRITER`: at any number of paths.
    ManyWriters,
}

/// What a pod sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Block,
    Filesystem {
        /// The one that was asked for, if any.
        fs: Option<FsType>,
        options: MountOptions,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) volume: String,
    pub(super) staging: String,
    pub(super) used: Use,
}

#[derive(Clone, Debug)]
pub(super) struct Publish {
    pub(super) volume: String,
    /// Empty when kubelet names none, which is enough for a block volume.
    pub(super) staging: String,
    pub(super) target: String,
    pub(super) used: Use,
    pub(super) read_only: bool,
}

/// A volume and a path where it is or was.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) volume: String,
    pub(super) path: String,
}

#[derive(Clone, Debug)]
pub(super) struct Expand {
    pub(super) place: Place,
    pub(super) required_bytes: u64,
    /// 0 is no limit.
    pub(super) limit_bytes: u64,
}

pub(super) fn stage(request: v1::NodeStageVolumeRequest) -> Result<Stage, Failure> {
    let volume = volume_id(request.volume_id)?;
    let staging = path("staging_target_path", request.staging_target_path)?;
    let used = capability(request.volume_capability)?;
    Ok(Stage {
        volume,
        staging,
        used,
    })
}

pub(super) fn publish(request: v1::NodePublishVolumeRequest) -> Result<Publish, Failure> {
    let volume = volume_id(request.volume_id)?;
    let target = path("target_path", request.target_path)?;
    let used = capability(request.volume_capability)?;
    let read_only = request.readonly
        || used.access == Access::Reader
        || matches!(&used.shape, Shape::Filesystem { options, .. } if options.is_read_only());
    Ok(Publish {
        volume,
        staging: request.staging_target_path,
        target,
        used,
        read_only,
    })
}

/// For the calls that name a volume and a path and nothing else.
pub(super) fn place(volume: String, field: &'static str, named: String) -> Result<Place, Failure> {
    Ok(Place {
        volume: volume_id(volume)?,
        path: path(field, named)?,
    })
}

pub(super) fn expand(request: v1::NodeExpandVolumeRequest) -> Result<Expand, Failure> {
    let place = place(request.volume_id, "volume_path", request.volume_path)?;
    let range = request.capacity_range.unwrap_or_default();
    let required_bytes = bytes("required_bytes", range.required_bytes)?;
    let limit_bytes = bytes("limit_bytes", range.limit_bytes)?;
    if limit_bytes != 0 && limit_bytes < required_bytes {
        return Err(Failure::invalid(format!(
            "limit_bytes {limit_bytes} is less than required_bytes {required_bytes}"
        )));
    }
    if request.volume_capability.is_some() {
        capability(request.volume_capability)?;
    }
    Ok(Expand {
        place,
        required_bytes,
        limit_bytes,
    })
}

pub(super) fn volume_id(id: String) -> Result<String, Failure> {
    if id.is_empty() {
        return Err(Failure::invalid("volume_id is missing"));
    }
    if id.len() > LONGEST_ID {
        return Err(Failure::invalid(format!(
            "volume_id has {} bytes; at most {LONGEST_ID} are allowed",
            id.len()
        )));
    }
    Ok(id)
}

/// The form of a path is checked where it is opened.
fn path(field: &str, path: String) -> Result<String, Failure> {
    if path.is_empty() {
        return Err(Failure::invalid(format!("{field} is missing")));
    }
    Ok(path)
}

fn bytes(field: &str, value: i64) -> Result<u64, Failure> {
    u64::try_from(value).map_err(|_negative| Failure::invalid(format!("{field} is negative")))
}

fn capability(capability: Option<v1::VolumeCapability>) -> Result<Use, Failure> {
    let capability = capability.ok_or_else(|| Failure::invalid("volume_capability is missing"))?;
    let access_type = capability
        .access_type
        .ok_or_else(|| Failure::invalid("volume_capability has no access type: block or mount"))?;
    let mode = capability
        .access_mode
        .ok_or_else(|| Failure::invalid("volume_capability has no access mode"))?
        .mode;
    let shape = match access_type {
        AccessType::Block(_) => Shape::Block,
        AccessType::Mount(mount) => filesystem(&mount)?,
    };
    Ok(Use {
        access: access(mode)?,
        shape,
    })
}

fn access(mode: i32) -> Result<Access, Failure> {
    match Mode::try_from(mode) {
        Ok(Mode::SingleNodeReaderOnly) => Ok(Access::Reader),
        Ok(Mode::SingleNodeWriter | Mode::SingleNodeSingleWriter) => Ok(Access::OneWriter),
        Ok(Mode::SingleNodeMultiWriter) => Ok(Access::ManyWriters),
        Ok(
            mode @ (Mode::MultiNodeReaderOnly
            | Mode::MultiNodeSingleWriter
            | Mode::MultiNodeMultiWriter),
        ) => Err(Failure::invalid(format!(
            "access mode {} is not supported: a volume is on one node only",
            mode.as_str_name()
        ))),
        Ok(Mode::Unknown) | Err(_) => {
            Err(Failure::invalid(format!("access mode {mode} is not known")))
        }
    }
}

fn filesystem(mount: &v1::volume_capability::MountVolume) -> Result<Shape, Failure> {
    let fs = match mount.fs_type.as_str() {
        "" => None,
        "ext4" => Some(FsType::Ext4),
        "xfs" => Some(FsType::Xfs),
        other => {
            let shown: String = other.chars().take(64).collect();
            return Err(Failure::invalid(format!(
                "filesystem {shown:?} is not supported; known: ext4, xfs"
            )));
        }
    };
    if !mount.volume_mount_group.is_empty() {
        return Err(Failure::invalid(
            "volume_mount_group is not supported; kubelet applies fsGroup itself",
        ));
    }
    let options = MountOptions::parse(&mount.mount_flags).map_err(failure::of)?;
    Ok(Shape::Filesystem { fs, options })
}

#[cfg(test)]
mod tests;
