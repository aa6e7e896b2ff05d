//! Volume capabilities: what a volume is to be used as.

use proto::csi::v1::VolumeCapability;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessType, MountVolume};
use proto::errors::Failure;

use super::text::shown;
use crate::model::{AccessMode, FsType, VolumeMode};
use crate::mount_flags;

/// All capabilities of a request, which one volume must have together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    pub(crate) usage: Usage,
    /// Sorted, each once.
    pub(crate) access_modes: Vec<AccessMode>,
}

/// Raw device or file system, before it is known which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    Block,
    /// The file system if the capability names one.
    Filesystem(Option<FsType>),
}

impl Usage {
    /// Whether a volume of this mode can be used so.
    pub(crate) fn fits(self, mode: VolumeMode) -> bool {
        match (self, mode) {
            (Usage::Block, VolumeMode::Block)
            | (Usage::Filesystem(None), VolumeMode::Filesystem(_)) => true,
            (Usage::Filesystem(Some(asked)), VolumeMode::Filesystem(fs)) => asked == fs,
            (Usage::Block, VolumeMode::Filesystem(_))
            | (Usage::Filesystem(_), VolumeMode::Block) => false,
        }
    }
}

/// Why capabilities cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A field is missing: no driver could use it.
    Malformed(String),
    /// Well-formed, but not what this driver does.
    Unsupported(String),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        match refusal {
            Refusal::Malformed(message) | Refusal::Unsupported(message) => {
                Failure::invalid(message)
            }
        }
    }
}

/// Reads the capabilities of a request, of which there must be at least one.
pub(crate) fn parse_all(capabilities: &[VolumeCapability]) -> Result<Capabilities, Refusal> {
    // What is malformed is told before what is not supported, wherever it stands.
    for capability in capabilities {
        parts(capability)?;
    }
    let mut usage: Option<Usage> = None;
    let mut access_modes = Vec::new();
    for capability in capabilities {
        let (next, mode) = parse(capability)?;
        usage = Some(match usage {
            None => next,
            Some(usage) => together(usage, next)?,
        });
        access_modes.push(mode);
    }
    access_modes.sort_unstable();
    access_modes.dedup();
    match usage {
        Some(usage) => Ok(Capabilities {
            usage,
            access_modes,
        }),
        None => Err(Refusal::Malformed(
            "volume_capabilities is missing".to_owned(),
        )),
    }
}

/// Reads one capability.
pub(crate) fn parse(capability: &VolumeCapability) -> Result<(Usage, AccessMode), Refusal> {
    let (access_type, mode) = parts(capability)?;
    let access_mode = match mode {
        Mode::SingleNodeWriter => AccessMode::SingleNodeWriter,
        Mode::SingleNodeReaderOnly => AccessMode::SingleNodeReaderOnly,
        Mode::SingleNodeSingleWriter => AccessMode::SingleNodeSingleWriter,
        Mode::SingleNodeMultiWriter => AccessMode::SingleNodeMultiWriter,
        Mode::Unknown
        | Mode::MultiNodeReaderOnly
        | Mode::MultiNodeSingleWriter
        | Mode::MultiNodeMultiWriter => {
            return Err(Refusal::Unsupported(format!(
                "access mode {} is not supported: a volume is a file on one node; use \
                 ReadWriteOnce or ReadWriteOncePod",
                mode.as_str_name()
            )));
        }
    };
    let usage = match access_type {
        AccessType::Block(_) => Usage::Block,
        AccessType::Mount(mount) => Usage::Filesystem(parse_mount(mount)?),
    };
    Ok((usage, access_mode))
}

fn parts(capability: &VolumeCapability) -> Result<(&AccessType, Mode), Refusal> {
    let malformed = |message: &str| Refusal::Malformed(format!("volume capability: {message}"));
    let access_type = capability
        .access_type
        .as_ref()
        .ok_or_else(|| malformed("access_type is missing; say block or mount"))?;
    let mode = capability
        .access_mode
        .as_ref()
        .ok_or_else(|| malformed("access_mode is missing"))?
        .mode;
    match Mode::try_from(mode) {
        Ok(Mode::Unknown) => Err(malformed("access_mode is UNKNOWN")),
        Ok(mode) => Ok((access_type, mode)),
        Err(unknown) => Err(malformed(&format!(
            "access_mode {} does not exist",
            unknown.0
        ))),
    }
}

fn parse_mount(mount: &MountVolume) -> Result<Option<FsType>, Refusal> {
    let unsupported = |failure: Failure| Refusal::Unsupported(failure.message);
    mount_flags::check(&mount.mount_flags).map_err(unsupported)?;
    if !mount.volume_mount_group.is_empty() {
        return Err(Refusal::Unsupported(
            "volume_mount_group is not supported: ext4 and xfs cannot be mounted as a group; \
             kubelet applies fsGroup itself"
                .to_owned(),
        ));
    }
    if mount.fs_type.is_empty() {
        return Ok(None);
    }
    fs_type(&mount.fs_type).map(Some).map_err(unsupported)
}

/// Reads the name of a file system.
pub(crate) fn fs_type(name: &str) -> Result<FsType, Failure> {
    match name {
        "ext4" => Ok(FsType::Ext4),
        "xfs" => Ok(FsType::Xfs),
        other => Err(Failure::invalid(format!(
            "file system {} is not supported; use ext4 or xfs",
            shown(other)
        ))),
    }
}

/// What two capabilities of one volume come to.
fn together(first: Usage, second: Usage) -> Result<Usage, Refusal> {
    match (first, second) {
        (Usage::Block, Usage::Block) => Ok(Usage::Block),
        (Usage::Filesystem(None), Usage::Filesystem(fs))
        | (Usage::Filesystem(fs), Usage::Filesystem(None)) => Ok(Usage::Filesystem(fs)),
        (Usage::Filesystem(Some(one)), Usage::Filesystem(Some(other))) if one == other => Ok(first),
        (Usage::Filesystem(Some(one)), Usage::Filesystem(Some(other))) => {
            Err(Refusal::Unsupported(format!(
                "volume_capabilities ask for {} and for {}; a volume has one file system",
                one.as_str(),
                other.as_str()
            )))
        }
        (Usage::Block, Usage::Filesystem(_)) | (Usage::Filesystem(_), Usage::Block) => {
            Err(Refusal::Unsupported(
                "volume_capabilities ask for block and for mount; a volume is one of them"
                    .to_owned(),
            ))
        }
    }
}
