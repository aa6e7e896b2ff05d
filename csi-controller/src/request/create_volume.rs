//! CreateVolume: what was asked for, what is to be made, and whether what exists is it.

use proto::csi::v1::volume_content_source::Type as SourceType;
use proto::csi::v1::{CreateVolumeRequest, VolumeContentSource};
use proto::errors::Failure;

use super::capability::{self, Capabilities, Usage};
use super::parameters::{self, VolumeParameters};
use super::{text, topology};
use crate::backend::CreateVolume;
use crate::ids;
use crate::model::{Claim, FsType, Placement, Snapshot, Source, Volume, VolumeMode};
use crate::size::{SizeRange, SourceSize};

/// A checked CreateVolume request. What depends on the source is decided by [`Asked::decide`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) size: SizeRange,
    pub(crate) capabilities: Capabilities,
    pub(crate) parameters: VolumeParameters,
    pub(crate) source: Option<Source>,
    pub(crate) placement: Placement,
    pub(crate) claim: Option<Claim>,
}

/// What a new volume takes over from its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceFacts {
    pub(crate) size: SourceSize,
    pub(crate) mode: VolumeMode,
}

impl From<&Snapshot> for SourceFacts {
    fn from(snapshot: &Snapshot) -> SourceFacts {
        SourceFacts {
            size: SourceSize {
                requested_bytes: snapshot.requested_bytes,
                image_bytes: snapshot.image_bytes,
            },
            mode: snapshot.mode,
        }
    }
}

impl From<&Volume> for SourceFacts {
    fn from(volume: &Volume) -> SourceFacts {
        SourceFacts {
            size: SourceSize {
                requested_bytes: volume.requested_bytes,
                image_bytes: volume.capacity_bytes,
            },
            mode: volume.mode,
        }
    }
}

impl Asked {
    /// Checks a request. `topology_key` is the driver's.
    pub(crate) fn parse(
        request: &CreateVolumeRequest,
        topology_key: &str,
    ) -> Result<Asked, Failure> {
        let name = text::name(&request.name)?;
        let capabilities = capability::parse_all(&request.volume_capabilities)?;
        parameters::check_mutable(&request.mutable_parameters)?;
        Ok(Asked {
            id: ids::volume_id(name),
            name: name.to_owned(),
            size: SizeRange::parse(request.capacity_range.as_ref())?,
            capabilities,
            parameters: parameters::parse_volume(&request.parameters)?,
            source: request
                .volume_content_source
                .as_ref()
                .map(parse_source)
                .transpose()?,
            placement: topology::parse_requirement(
                topology_key,
                request.accessibility_requirements.as_ref(),
            )?,
            claim: parameters::claim(&request.parameters),
        })
    }

    /// What is to be made, given what the source is (if there is one).
    pub(crate) fn decide(&self, source: Option<SourceFacts>) -> Result<CreateVolume, Failure> {
        let mode = self.mode(source.map(|source| source.mode))?;
        let size = self.size.decide(mode, source.map(|source| source.size))?;
        Ok(CreateVolume {
            id: self.id.clone(),
            name: self.name.clone(),
            requested_bytes: size.requested_bytes,
            capacity_bytes: size.capacity_bytes,
            mode,
            provisioning: self.parameters.provisioning,
            access_modes: self.capabilities.access_modes.clone(),
            source: self.source.clone(),
            placement: self.placement.clone(),
            claim: self.claim.clone(),
        })
    }

    /// The first way in which a volume of this name is not what was asked for. Access modes are none: a mode that a volume can have
    /// at all (on one node) fits every volume, and what a pod may do with it is decided when it is published.
    pub(crate) fn difference(&self, existing: &Volume) -> Option<String> {
        let asked = &self.parameters.provisioning;
        if !self.size.admits(existing.capacity_bytes) {
            return Some(format!(
                "it has {} bytes; asked for were at least {} and at most {} (0: any)",
                existing.capacity_bytes, self.size.required_bytes, self.size.limit_bytes
            ));
        }
        if !self.mode_fits(existing) {
            return Some(format!("it is {}", existing.mode));
        }
        if *asked != existing.provisioning {
            return Some(format!(
                "its provisioning is {}",
                existing.provisioning.as_str()
            ));
        }
        if self.source != existing.source {
            return Some(match &existing.source {
                None => "it has no content source".to_owned(),
                Some(source) => format!("its content source is {source}"),
            });
        }
        let allowed = existing.nodes.is_empty()
            || existing
                .nodes
                .iter()
                .any(|node| self.placement.allows(node));
        (!allowed).then(|| format!("it is on node {}", existing.nodes.join(", ")))
    }

    /// With a source, the file system comes with the content: only a capability that names
    /// another one contradicts it. On the content of a raw device it is whatever is asked for.
    fn mode(&self, source: Option<VolumeMode>) -> Result<VolumeMode, Failure> {
        match (self.capabilities.usage, source) {
            (Usage::Block, _) => Ok(VolumeMode::Block),
            (Usage::Filesystem(Some(asked)), Some(VolumeMode::Filesystem(has))) if asked != has => {
                Err(Failure::invalid(format!(
                    "the source carries {}, so it cannot become a volume with {}; ask for {}, or \
                     for none",
                    has.as_str(),
                    asked.as_str(),
                    has.as_str()
                )))
            }
            (Usage::Filesystem(_), Some(VolumeMode::Filesystem(has))) => {
                Ok(VolumeMode::Filesystem(has))
            }
            (Usage::Filesystem(asked), Some(VolumeMode::Block) | None) => {
                Ok(VolumeMode::Filesystem(self.fs_type(asked)))
            }
        }
    }

    /// A volume with a source may carry any file system, since that came with the content, unless
    /// the capability names one.
    fn mode_fits(&self, existing: &Volume) -> bool {
        let usage = match self.capabilities.usage {
            Usage::Filesystem(None) if self.source.is_none() => {
                Usage::Filesystem(Some(self.fs_type(None)))
            }
            usage => usage,
        };
        usage.fits(existing.mode)
    }

    /// The capability's file system, else the parameter's, else ext4.
    fn fs_type(&self, asked: Option<FsType>) -> FsType {
        asked.or(self.parameters.fs_type).unwrap_or(FsType::Ext4)
    }
}

fn parse_source(source: &VolumeContentSource) -> Result<Source, Failure> {
    match &source.r#type {
        Some(SourceType::Snapshot(snapshot)) => {
            let id = text::id(
                "volume_content_source.snapshot.snapshot_id",
                &snapshot.snapshot_id,
            )?;
            Ok(Source::Snapshot(id.to_owned()))
        }
        Some(SourceType::Volume(volume)) => {
            let id = text::id("volume_content_source.volume.volume_id", &volume.volume_id)?;
            Ok(Source::Volume(id.to_owned()))
        }
        None => Err(Failure::invalid(
            "volume_content_source is empty; name a snapshot or a volume, or leave it out",
        )),
    }
}
