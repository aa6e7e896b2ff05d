//! The Controller service of CSI over a [`Backend`].
//!
//! An RPC here reads as its steps: parse and check, ask the backend, compare, answer. The rules
//! themselves are pure functions in `request` and `size`.

mod capabilities;
mod snapshots;
mod volumes;

use std::sync::Arc;

use proto::csi::v1::controller_server::Controller;
use proto::csi::v1::{
    ControllerExpandVolumeRequest, ControllerExpandVolumeResponse,
    ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse,
    ControllerGetVolumeHealthRequest, ControllerGetVolumeHealthResponse,
    ControllerGetVolumeRequest, ControllerGetVolumeResponse, ControllerListVolumeHealthRequest,
    ControllerListVolumeHealthResponse, ControllerModifyVolumeRequest,
    ControllerModifyVolumeResponse, ControllerPublishVolumeRequest,
    ControllerPublishVolumeResponse, ControllerUnpublishVolumeRequest,
    ControllerUnpublishVolumeResponse, CreateSnapshotRequest, CreateSnapshotResponse,
    CreateVolumeRequest, CreateVolumeResponse, DeleteSnapshotRequest, DeleteSnapshotResponse,
    DeleteVolumeRequest, DeleteVolumeResponse, GetCapacityRequest, GetCapacityResponse,
    GetSnapshotRequest, GetSnapshotResponse, ListSnapshotsRequest, ListSnapshotsResponse,
    ListVolumesRequest, ListVolumesResponse, ValidateVolumeCapabilitiesRequest,
    ValidateVolumeCapabilitiesResponse,
};
use proto::errors::{Failure, Kind, Rpc};
use tonic::{Request, Response, Status};
use tracing::{Span, info_span};

use crate::backend::Backend;
use crate::endpoint::serve;
use crate::identity::DriverName;
use crate::request::text::shown;

/// The Controller service.
#[derive(Debug)]
pub struct ControllerService<B> {
    backend: Arc<B>,
    topology_key: String,
}

impl<B: Backend> ControllerService<B> {
    /// The service of the driver of this name.
    #[must_use]
    pub fn new(name: &DriverName, backend: Arc<B>) -> ControllerService<B> {
        ControllerService {
            backend,
            topology_key: name.topology_key(),
        }
    }
}

fn volume_span(rpc: Rpc, volume_id: &str) -> Span {
    info_span!("rpc", %rpc, volume_id = %shown(volume_id))
}

fn snapshot_span(rpc: Rpc, snapshot_id: &str) -> Span {
    info_span!("rpc", %rpc, snapshot_id = %shown(snapshot_id))
}

fn plain_span(rpc: Rpc) -> Span {
    info_span!("rpc", %rpc)
}

fn not_served(message: &str) -> Failure {
    Failure::new(Kind::Unimplemented, message)
}

#[tonic::async_trait]
impl<B: Backend> Controller for ControllerService<B> {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let request = request.into_inner();
        let rpc = Rpc::CreateVolume;
        let span = info_span!("rpc", %rpc, name = %shown(&request.name));
        serve(rpc, span, self.make_volume(&request)).await
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let request = request.into_inner();
        let rpc = Rpc::DeleteVolume;
        let span = volume_span(rpc, &request.volume_id);
        serve(rpc, span, self.remove_volume(&request.volume_id)).await
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Result<Response<ControllerPublishVolumeResponse>, Status> {
        let rpc = Rpc::ControllerPublishVolume;
        let span = volume_span(rpc, &request.into_inner().volume_id);
        let message = "volumes are local: there is nothing to attach; set attachRequired: false in \
                       the CSIDriver object";
        serve(rpc, span, async { Err(not_served(message)) }).await
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<ControllerUnpublishVolumeResponse>, Status> {
        let rpc = Rpc::ControllerUnpublishVolume;
        let span = volume_span(rpc, &request.into_inner().volume_id);
        let message = "volumes are local: there is nothing to detach; set attachRequired: false in \
                       the CSIDriver object";
        serve(rpc, span, async { Err(not_served(message)) }).await
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let request = request.into_inner();
        let rpc = Rpc::ValidateVolumeCapabilities;
        let span = volume_span(rpc, &request.volume_id);
        serve(rpc, span, self.validate(request)).await
    }

    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        let request = request.into_inner();
        let rpc = Rpc::ListVolumes;
        serve(rpc, plain_span(rpc), self.volumes(&request)).await
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        let request = request.into_inner();
        let rpc = Rpc::GetCapacity;
        serve(rpc, plain_span(rpc), self.room(&request)).await
    }

    async fn controller_get_capabilities(
        &self,
        _request: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        Ok(Response::new(capabilities::answer()))
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        let request = request.into_inner();
        let rpc = Rpc::CreateSnapshot;
        let span = info_span!(
            "rpc",
            %rpc,
            name = %shown(&request.name),
            volume_id = %shown(&request.source_volume_id)
        );
        serve(rpc, span, self.cut_snapshot(&request)).await
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Result<Response<DeleteSnapshotResponse>, Status> {
        let request = request.into_inner();
        let rpc = Rpc::DeleteSnapshot;
        let span = snapshot_span(rpc, &request.snapshot_id);
        serve(rpc, span, self.remove_snapshot(&request.snapshot_id)).await
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let request = request.into_inner();
        let rpc = Rpc::ListSnapshots;
        serve(rpc, plain_span(rpc), self.snapshots(&request)).await
    }

    async fn get_snapshot(
        &self,
        request: Request<GetSnapshotRequest>,
    ) -> Result<Response<GetSnapshotResponse>, Status> {
        let request = request.into_inner();
        let rpc = Rpc::GetSnapshot;
        let span = snapshot_span(rpc, &request.snapshot_id);
        serve(rpc, span, self.snapshot(&request.snapshot_id)).await
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        let rpc = Rpc::ControllerExpandVolume;
        let span = volume_span(rpc, &request.volume_id);
        serve(rpc, span, self.grow_volume(&request)).await
    }

    async fn controller_get_volume(
        &self,
        request: Request<ControllerGetVolumeRequest>,
    ) -> Result<Response<ControllerGetVolumeResponse>, Status> {
        let request = request.into_inner();
        let rpc = Rpc::ControllerGetVolume;
        let span = volume_span(rpc, &request.volume_id);
        serve(rpc, span, self.volume(&request.volume_id)).await
    }

    async fn controller_modify_volume(
        &self,
        request: Request<ControllerModifyVolumeRequest>,
    ) -> Result<Response<ControllerModifyVolumeResponse>, Status> {
        let rpc = Rpc::ControllerModifyVolume;
        let span = volume_span(rpc, &request.into_inner().volume_id);
        let message = "volumes have no mutable parameters; take the VolumeAttributesClass off the \
                       claim";
        serve(rpc, span, async { Err(not_served(message)) }).await
    }

    async fn controller_get_volume_health(
        &self,
        request: Request<ControllerGetVolumeHealthRequest>,
    ) -> Result<Response<ControllerGetVolumeHealthResponse>, Status> {
        let request = request.into_inner();
        let rpc = Rpc::ControllerGetVolumeHealth;
        let span = volume_span(rpc, &request.volume_id);
        serve(rpc, span, self.health(&request.volume_id)).await
    }

    async fn controller_list_volume_health(
        &self,
        request: Request<ControllerListVolumeHealthRequest>,
    ) -> Result<Response<ControllerListVolumeHealthResponse>, Status> {
        let request = request.into_inner();
        let rpc = Rpc::ControllerListVolumeHealth;
        serve(rpc, plain_span(rpc), self.healths(&request)).await
    }
}

#[cfg(test)]
mod tests;
