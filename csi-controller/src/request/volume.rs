//! Requests about a volume that exists, and about the room for new ones.

use proto::csi::v1::{
    ControllerExpandVolumeRequest, GetCapacityRequest, ValidateVolumeCapabilitiesRequest,
};
use proto::errors::Failure;

use super::capability::{self, Capabilities, Refusal, Usage};
use super::{parameters, text, topology};
use crate::backend::{CapacityQuery, ExpandVolume};
use crate::model::{FsType, Volume, VolumeMode};
use crate::size::SizeRange;

/// A checked ControllerExpandVolume request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expansion {
    pub(crate) expand: ExpandVolume,
    /// The range the volume must be in afterwards.
    pub(crate) range: SizeRange,
    /// How the volume is used, if the caller knows.
    pub(crate) usage: Option<Usage>,
}

/// Checks a ControllerExpandVolume request.
pub(crate) fn parse_expansion(
    request: &ControllerExpandVolumeRequest,
) -> Result<Expansion, Failure> {
    let id = text::id("volume_id", &request.volume_id)?;
    let range = SizeRange::parse(request.capacity_range.as_ref())?;
    let size = range.decide_expansion()?;
    let usage = match &request.volume_capability {
        None => None,
        Some(capability) => Some(capability::parse(capability)?.0),
    };
    let expand = ExpandVolume {
        id: id.to_owned(),
        requested_bytes: size.requested_bytes,
        capacity_bytes: size.capacity_bytes,
    };
    Ok(Expansion {
        expand,
        range,
        usage,
    })
}

/// Checks a GetCapacity request. Capabilities may be absent: external-provisioner sends none.
pub(crate) fn parse_capacity(
    request: &GetCapacityRequest,
    topology_key: &str,
) -> Result<CapacityQuery, Failure> {
    let parameters = parameters::parse_volume(&request.parameters)?;
    let mode = if request.volume_capabilities.is_empty() {
        None
    } else {
        Some(
            match capability::parse_all(&request.volume_capabilities)?.usage {
                Usage::Block => VolumeMode::Block,
                Usage::Filesystem(asked) => {
                    VolumeMode::Filesystem(asked.or(parameters.fs_type).unwrap_or(FsType::Ext4))
                }
            },
        )
    };
    let node = match &request.accessible_topology {
        Some(place) if !place.segments.is_empty() => {
            Some(topology::node(topology_key, place)?.to_owned())
        }
        Some(_) | None => None,
    };
    Ok(CapacityQuery {
        mode,
        provisioning: parameters.provisioning,
        node,
    })
}

/// What is wrong with the form of a ValidateVolumeCapabilities request, or the checked volume id.
pub(crate) fn check_validation(
    request: &ValidateVolumeCapabilitiesRequest,
) -> Result<&str, Failure> {
    let id = text::id("volume_id", &request.volume_id)?;
    text::map("volume_context", &request.volume_context)?;
    text::map("parameters", &request.parameters)?;
    text::map("mutable_parameters", &request.mutable_parameters)?;
    match capability::parse_all(&request.volume_capabilities) {
        Err(Refusal::Malformed(message)) => Err(Failure::invalid(message)),
        Ok(_) | Err(Refusal::Unsupported(_)) => Ok(id),
    }
}

/// Why the volume cannot be used as a ValidateVolumeCapabilities request says; `None` if it can.
pub(crate) fn objection(
    request: &ValidateVolumeCapabilitiesRequest,
    volume: &Volume,
) -> Option<String> {
    let found = || -> Result<Option<String>, Failure> {
        let Capabilities { usage, .. } = capability::parse_all(&request.volume_capabilities)?;
        let parameters = parameters::parse_volume(&request.parameters)?;
        parameters::check_mutable(&request.mutable_parameters)?;
        if !usage.fits(volume.mode) {
            return Ok(Some(format!("the volume is {}", volume.mode)));
        }
        let asked = request.parameters.contains_key("provisioning");
        if asked && parameters.provisioning != volume.provisioning {
            let provisioning = volume.provisioning.as_str();
            return Ok(Some(format!("the volume's provisioning is {provisioning}")));
        }
        Ok(None)
    };
    found().unwrap_or_else(|failure| Some(failure.message))
}
