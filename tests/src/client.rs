//! The three CSI services over a unix socket, as blocking calls.

use std::path::Path;
use std::time::Duration;

use proto::admin::admin_client::AdminClient;
use proto::admin::{VerifySnapshotRequest, VerifySnapshotResponse};
use proto::csi::v1::controller_client::ControllerClient;
use proto::csi::v1::identity_client::IdentityClient;
use proto::csi::v1::node_client::NodeClient;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Error};
use tonic::{Code, Status};

use crate::csi;

/// Longest time one call may take; kubelet and the sidecars wait two minutes.
const CALL_LIMIT: Duration = Duration::from_secs(120);

/// A connection to one server. Calls may be made from several threads.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    identity: IdentityClient<Channel>,
    controller: ControllerClient<Channel>,
    node: NodeClient<Channel>,
    admin: AdminClient<Channel>,
}

macro_rules! calls {
    ($( $service:ident . $call:ident : $request:ident -> $response:ident ; )+) => {
        impl Client {
            $(
                #[doc = concat!("`", stringify!($call), "`.")]
                ///
                /// # Errors
                /// The server's status.
                pub fn $call(&self, request: csi::$request) -> Result<csi::$response, Status> {
                    let mut service = self.$service.clone();
                    self.runtime
                        .block_on(service.$call(request))
                        .map(tonic::Response::into_inner)
                }
            )+
        }
    };
}

calls! {
    identity.get_plugin_info: GetPluginInfoRequest -> GetPluginInfoResponse;
    identity.get_plugin_capabilities: GetPluginCapabilitiesRequest -> GetPluginCapabilitiesResponse;
    controller.create_volume: CreateVolumeRequest -> CreateVolumeResponse;
    controller.delete_volume: DeleteVolumeRequest -> DeleteVolumeResponse;
    controller.controller_publish_volume: ControllerPublishVolumeRequest -> ControllerPublishVolumeResponse;
    controller.controller_unpublish_volume: ControllerUnpublishVolumeRequest -> ControllerUnpublishVolumeResponse;
    controller.validate_volume_capabilities: ValidateVolumeCapabilitiesRequest -> ValidateVolumeCapabilitiesResponse;
    controller.list_volumes: ListVolumesRequest -> ListVolumesResponse;
    controller.get_capacity: GetCapacityRequest -> GetCapacityResponse;
    controller.controller_get_capabilities: ControllerGetCapabilitiesRequest -> ControllerGetCapabilitiesResponse;
    controller.create_snapshot: CreateSnapshotRequest -> CreateSnapshotResponse;
    controller.delete_snapshot: DeleteSnapshotRequest -> DeleteSnapshotResponse;
    controller.list_snapshots: ListSnapshotsRequest -> ListSnapshotsResponse;
    controller.get_snapshot: GetSnapshotRequest -> GetSnapshotResponse;
    controller.controller_expand_volume: ControllerExpandVolumeRequest -> ControllerExpandVolumeResponse;
    controller.controller_get_volume: ControllerGetVolumeRequest -> ControllerGetVolumeResponse;
    controller.controller_modify_volume: ControllerModifyVolumeRequest -> ControllerModifyVolumeResponse;
    controller.controller_get_volume_health: ControllerGetVolumeHealthRequest -> ControllerGetVolumeHealthResponse;
    controller.controller_list_volume_health: ControllerListVolumeHealthRequest -> ControllerListVolumeHealthResponse;
    node.node_stage_volume: NodeStageVolumeRequest -> NodeStageVolumeResponse;
    node.node_unstage_volume: NodeUnstageVolumeRequest -> NodeUnstageVolumeResponse;
    node.node_publish_volume: NodePublishVolumeRequest -> NodePublishVolumeResponse;
    node.node_unpublish_volume: NodeUnpublishVolumeRequest -> NodeUnpublishVolumeResponse;
    node.node_get_volume_stats: NodeGetVolumeStatsRequest -> NodeGetVolumeStatsResponse;
    node.node_expand_volume: NodeExpandVolumeRequest -> NodeExpandVolumeResponse;
    node.node_get_capabilities: NodeGetCapabilitiesRequest -> NodeGetCapabilitiesResponse;
    node.node_get_info: NodeGetInfoRequest -> NodeGetInfoResponse;
    node.node_get_volume_health: NodeGetVolumeHealthRequest -> NodeGetVolumeHealthResponse;
    node.node_get_storage_health: NodeGetStorageHealthRequest -> NodeGetStorageHealthResponse;
}

impl Client {
    /// Connects to the server on `socket`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(socket: &Path) -> Result<Self, Error> {
        // A thread of its own, so that an idle connection too hears the server say good-bye.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("build a runtime");
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?
            .connect_timeout(Duration::from_secs(5))
            .timeout(CALL_LIMIT);
        let channel = runtime.block_on(endpoint.connect())?;
        Ok(Self {
            identity: IdentityClient::new(channel.clone()),
            controller: ControllerClient::new(channel.clone()),
            node: NodeClient::new(channel.clone()),
            admin: AdminClient::new(channel),
            runtime,
        })
    }

    /// Lets the owner of the pool hold a snapshot against its record.
    ///
    /// # Errors
    /// The server's status.
    pub fn verify_snapshot(
        &self,
        pool_uuid: &str,
        snapshot_id: &str,
    ) -> Result<VerifySnapshotResponse, Status> {
        let mut service = self.admin.clone();
        let request = VerifySnapshotRequest {
            pool_uuid: pool_uuid.to_owned(),
            snapshot_id: snapshot_id.to_owned(),
        };
        self.runtime
            .block_on(service.verify_snapshot(request))
            .map(tonic::Response::into_inner)
    }

    /// `Probe`: whether the server says that it is ready.
    ///
    /// # Errors
    /// The server's status.
    pub fn probe(&self) -> Result<bool, Status> {
        let mut service = self.identity.clone();
        let answer = self.runtime.block_on(service.probe(csi::ProbeRequest {}))?;
        // The field may be left out, and then means ready.
        Ok(answer.into_inner().ready.is_none_or(bool::from))
    }

    /// Whether the server answers and is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.probe().unwrap_or(false)
    }

    /// The volume that `request` makes.
    #[track_caller]
    #[must_use]
    pub fn made_volume(&self, request: csi::CreateVolumeRequest) -> csi::Volume {
        let name = request.name.clone();
        self.create_volume(request)
            .unwrap_or_else(|status| panic!("create {name}: {}", shown(&status)))
            .volume
            .expect("the answer holds a volume")
    }

    /// The snapshot that `request` makes, ready to use.
    #[track_caller]
    #[must_use]
    pub fn made_snapshot(&self, request: csi::CreateSnapshotRequest) -> csi::Snapshot {
        let name = request.name.clone();
        let snapshot = self
            .create_snapshot(request)
            .unwrap_or_else(|status| panic!("snapshot {name}: {}", shown(&status)))
            .snapshot
            .expect("the answer holds a snapshot");
        assert!(
            snapshot.ready_to_use,
            "{name} is ready when the call returns"
        );
        snapshot
    }

    /// Deletes a volume.
    ///
    /// # Errors
    /// The server's status.
    pub fn delete(&self, volume_id: &str) -> Result<(), Status> {
        let request = csi::DeleteVolumeRequest {
            volume_id: volume_id.to_owned(),
            ..Default::default()
        };
        self.delete_volume(request).map(|_empty| ())
    }

    /// Deletes a snapshot.
    ///
    /// # Errors
    /// The server's status.
    pub fn delete_cut(&self, snapshot_id: &str) -> Result<(), Status> {
        let request = csi::DeleteSnapshotRequest {
            snapshot_id: snapshot_id.to_owned(),
            ..Default::default()
        };
        self.delete_snapshot(request).map(|_empty| ())
    }

    /// Every volume id, in the order of the list.
    #[track_caller]
    #[must_use]
    pub fn volume_ids(&self) -> Vec<String> {
        let list = self
            .list_volumes(csi::ListVolumesRequest::default())
            .unwrap_or_else(|status| panic!("list volumes: {}", shown(&status)));
        assert_eq!(list.next_token, "", "a list without a limit is whole");
        list.entries
            .into_iter()
            .map(|entry| entry.volume.expect("an entry holds a volume").volume_id)
            .collect()
    }

    /// Every snapshot id, in the order of the list.
    #[track_caller]
    #[must_use]
    pub fn snapshot_ids(&self) -> Vec<String> {
        let list = self
            .list_snapshots(csi::ListSnapshotsRequest::default())
            .unwrap_or_else(|status| panic!("list snapshots: {}", shown(&status)));
        assert_eq!(list.next_token, "", "a list without a limit is whole");
        list.entries
            .into_iter()
            .map(|entry| {
                entry
                    .snapshot
                    .expect("an entry holds a snapshot")
                    .snapshot_id
            })
            .collect()
    }

    /// Bytes that can still be given out.
    #[track_caller]
    #[must_use]
    pub fn free_bytes(&self) -> i64 {
        self.get_capacity(csi::GetCapacityRequest::default())
            .unwrap_or_else(|status| panic!("get capacity: {}", shown(&status)))
            .available_capacity
    }
}

/// A status as a test shows it.
#[must_use]
pub fn shown(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// The status of a call that must be refused with `code` and a message.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code) -> Status {
    match result {
        Ok(answer) => panic!("must be refused with {code:?}, but succeeded: {answer:?}"),
        Err(status) => {
            assert_eq!(status.code(), code, "{}", shown(&status));
            assert!(!status.message().is_empty(), "{code:?} without a message");
            status
        }
    }
}

/// The answer of a call that must succeed.
#[track_caller]
pub fn accepted<T>(result: Result<T, Status>) -> T {
    result.unwrap_or_else(|status| panic!("must succeed: {}", shown(&status)))
}
