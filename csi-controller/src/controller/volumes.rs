//! The steps of the RPCs about volumes.

use proto::csi::v1;
use proto::csi::v1::validate_volume_capabilities_response::Confirmed;
use proto::csi::v1::{
    ControllerExpandVolumeRequest, ControllerExpandVolumeResponse,
    ControllerGetVolumeHealthResponse, ControllerGetVolumeResponse,
    ControllerListVolumeHealthRequest, ControllerListVolumeHealthResponse, CreateVolumeRequest,
    CreateVolumeResponse, DeleteVolumeResponse, GetCapacityRequest, GetCapacityResponse,
    ListVolumesRequest, ListVolumesResponse, ValidateVolumeCapabilitiesRequest,
    ValidateVolumeCapabilitiesResponse, controller_get_volume_response, list_volumes_response,
};
use proto::errors::{Failure, Kind, Rpc, is_success};

use super::ControllerService;
use crate::answer::{self, signed};
use crate::backend::{Backend, VolumeDetail};
use crate::ids;
use crate::model::{Source, Volume};
use crate::request::create_volume::{Asked, SourceFacts};
use crate::request::text::{self, shown};
use crate::request::{page, volume};
use crate::size::{ALIGNMENT_BYTES, minimum};

impl<B: Backend> ControllerService<B> {
    pub(super) async fn make_volume(
        &self,
        request: &CreateVolumeRequest,
    ) -> Result<CreateVolumeResponse, Failure> {
        let asked = Asked::parse(request, &self.topology_key)?;
        let volume = match self.make_asked(&asked).await {
            Ok(volume) => volume,
            Err(failure) => self.made_before(&asked, failure).await?,
        };
        if let Some(difference) = asked.difference(&volume) {
            return Err(Failure::new(
                Kind::Conflict,
                format!("volume {} exists and differs: {difference}", volume.id),
            ));
        }
        Ok(CreateVolumeResponse {
            volume: Some(answer::volume(&volume, &self.topology_key)),
        })
    }

    async fn make_asked(&self, asked: &Asked) -> Result<Volume, Failure> {
        let source = match &asked.source {
            None => None,
            Some(source) => Some(self.source_facts(source).await?),
        };
        self.backend.create_volume(asked.decide(source)?).await
    }

    /// The volume that an earlier call of this name made, when this one could not even begin.
    ///
    /// Once a volume exists, its source may be deleted, grown, or found to be damaged. A caller that
    /// never got its answer calls again; were it told NOT_FOUND, OUT_OF_RANGE or DATA_LOSS now, it
    /// would forget a volume that exists. Asking after the failure, not before, leaves no gap: the source is held until
    /// the volume is there.
    async fn made_before(&self, asked: &Asked, failure: Failure) -> Result<Volume, Failure> {
        let settled_by_source = matches!(
            failure.kind,
            Kind::NotFound | Kind::OutOfRange | Kind::InvalidArgument | Kind::Corrupt
        );
        if asked.source.is_none() || !settled_by_source {
            return Err(failure);
        }
        match self.backend.get_volume(&asked.id).await {
            Ok(detail) => Ok(detail.volume),
            Err(missing) if missing.kind == Kind::NotFound => Err(failure),
            Err(other) => Err(other),
        }
    }

    async fn source_facts(&self, source: &Source) -> Result<SourceFacts, Failure> {
        match source {
            Source::Snapshot(id) if ids::is_snapshot_id(id) => {
                let snapshot = self.backend.get_snapshot(id).await?;
                if let Some(damage) = snapshot.damage {
                    return Err(Failure::new(Kind::Corrupt, damage));
                }
                if snapshot.ready_to_use {
                    return Ok(SourceFacts::from(&snapshot));
                }
                Err(Failure::new(
                    Kind::Busy,
                    format!("snapshot {id} is not ready to use yet"),
                ))
            }
            Source::Volume(id) if ids::is_volume_id(id) => Ok(SourceFacts::from(
                &self.backend.get_volume(id).await?.volume,
            )),
            Source::Snapshot(id) => Err(no_such("snapshot", id)),
            Source::Volume(id) => Err(no_such("volume", id)),
        }
    }

    pub(super) async fn remove_volume(&self, id: &str) -> Result<DeleteVolumeResponse, Failure> {
        let id = text::required("volume_id", id)?;
        if ids::is_volume_id(id) {
            match self.backend.delete_volume(id).await {
                Err(failure) if !is_success(Rpc::DeleteVolume, failure.kind) => {
                    return Err(failure);
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(DeleteVolumeResponse {})
    }

    pub(super) async fn grow_volume(
        &self,
        request: &ControllerExpandVolumeRequest,
    ) -> Result<ControllerExpandVolumeResponse, Failure> {
        let expansion = volume::parse_expansion(request)?;
        let before = self.find(&expansion.expand.id).await?.volume;
        if let Some(usage) = expansion.usage
            && !usage.fits(before.mode)
        {
            return Err(Failure::invalid(format!(
                "volume_capability does not fit: volume {} is {}",
                before.id, before.mode
            )));
        }
        let after = self.backend.expand_volume(expansion.expand).await?;
        if !expansion.range.admits(after.capacity_bytes) {
            return Err(Failure::new(
                Kind::OutOfRange,
                format!(
                    "volume {} has {} bytes, and a volume never shrinks to a limit of {}",
                    after.id, after.capacity_bytes, expansion.range.limit_bytes
                ),
            ));
        }
        Ok(ControllerExpandVolumeResponse {
            capacity_bytes: signed(after.capacity_bytes),
            // Always: for a raw device too the node must see that it has grown, and only the
            // node knows whether there is a file system to grow.
            node_expansion_required: true,
        })
    }

    pub(super) async fn validate(
        &self,
        request: ValidateVolumeCapabilitiesRequest,
    ) -> Result<ValidateVolumeCapabilitiesResponse, Failure> {
        let id = volume::check_validation(&request)?;
        let detail = self.find(id).await?;
        if let Some(message) = volume::objection(&request, &detail.volume) {
            return Ok(ValidateVolumeCapabilitiesResponse {
                confirmed: None,
                message,
            });
        }
        let confirmed = Confirmed {
            volume_context: request.volume_context,
            volume_capabilities: request.volume_capabilities,
            parameters: request.parameters,
            mutable_parameters: request.mutable_parameters,
        };
        Ok(ValidateVolumeCapabilitiesResponse {
            confirmed: Some(confirmed),
            message: String::new(),
        })
    }

    pub(super) async fn volume(&self, id: &str) -> Result<ControllerGetVolumeResponse, Failure> {
        let detail = self.find(text::id("volume_id", id)?).await?;
        Ok(ControllerGetVolumeResponse {
            volume: Some(answer::volume(&detail.volume, &self.topology_key)),
            status: Some(controller_get_volume_response::VolumeStatus {
                published_node_ids: detail.published_node_ids,
            }),
        })
    }

    pub(super) async fn volumes(
        &self,
        request: &ListVolumesRequest,
    ) -> Result<ListVolumesResponse, Failure> {
        let page = page::parse(
            request.max_entries,
            &request.starting_token,
            ids::is_volume_id,
        )?;
        let found = self
            .backend
            .list_volumes(page.after.as_deref(), page.max)
            .await?;
        let entry = |volume: &Volume| list_volumes_response::Entry {
            volume: Some(answer::volume(volume, &self.topology_key)),
            status: None,
        };
        Ok(ListVolumesResponse {
            entries: found.items.iter().map(entry).collect(),
            next_token: page::token(found.next.as_deref()),
        })
    }

    pub(super) async fn room(
        &self,
        request: &GetCapacityRequest,
    ) -> Result<GetCapacityResponse, Failure> {
        let query = volume::parse_capacity(request, &self.topology_key)?;
        let minimum = query.mode.map_or(ALIGNMENT_BYTES, minimum);
        let capacity = self.backend.capacity(query).await?;
        // Down to a size that a volume can have: a claim for all that is offered must fit.
        let maximum = capacity.maximum_bytes - capacity.maximum_bytes % ALIGNMENT_BYTES;
        Ok(GetCapacityResponse {
            available_capacity: signed(capacity.available_bytes),
            maximum_volume_size: Some(signed(maximum)),
            minimum_volume_size: Some(signed(minimum)),
        })
    }

    pub(super) async fn health(
        &self,
        id: &str,
    ) -> Result<ControllerGetVolumeHealthResponse, Failure> {
        let id = text::id("volume_id", id)?;
        if !ids::is_volume_id(id) {
            return Err(no_such("volume", id));
        }
        let health = self.backend.volume_health(id).await?;
        Ok(ControllerGetVolumeHealthResponse {
            volume_health: Some(answer::health(&health)),
        })
    }

    pub(super) async fn healths(
        &self,
        request: &ControllerListVolumeHealthRequest,
    ) -> Result<ControllerListVolumeHealthResponse, Failure> {
        let page = page::parse(
            request.max_entries,
            &request.starting_token,
            ids::is_volume_id,
        )?;
        let found = self
            .backend
            .list_volume_health(page.after.as_deref(), page.max)
            .await?;
        let entries: Vec<v1::VolumeHealth> = found.items.iter().map(answer::health).collect();
        let next_token = page::token(found.next.as_deref());
        Ok(ControllerListVolumeHealthResponse {
            entries,
            next_token,
        })
    }

    async fn find(&self, id: &str) -> Result<VolumeDetail, Failure> {
        if !ids::is_volume_id(id) {
            return Err(no_such("volume", id));
        }
        self.backend.get_volume(id).await
    }
}

/// The failure for an id of a form that we never make.
pub(super) fn no_such(what: &str, id: &str) -> Failure {
    Failure::not_found(format!("{what} {} does not exist", shown(id)))
}
