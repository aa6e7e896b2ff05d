//! A csi-controller in the test's own process, called as a sidecar calls it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use csi_controller::kubernetes::{KubernetesBackend, Patience};
use csi_controller::{Backend, ControllerService, DriverName};
use kube::Client;
use proto::csi::v1::controller_server::Controller as _;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume};
use proto::csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use proto::csi::v1::{
    CapacityRange, ControllerExpandVolumeRequest, CreateSnapshotRequest, CreateVolumeRequest,
    CreateVolumeResponse, DeleteSnapshotRequest, DeleteVolumeRequest, Topology,
    TopologyRequirement, VolumeCapability, VolumeContentSource,
};
use tonic::{Request, Status};

pub const KEY: &str = "topology.vd.csi.io/node";

pub struct Driver {
    pub service: ControllerService<KubernetesBackend>,
    pub backend: Arc<KubernetesBackend>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A driver whose calls wait long: a test that hangs is a failure of its own.
pub async fn driver(client: &Client) -> Driver {
    patient(client, Duration::from_secs(120), Duration::from_secs(120)).await
}

/// A driver that knows all objects.
pub async fn patient(client: &Client, call: Duration, silence: Duration) -> Driver {
    let backend = Arc::new(KubernetesBackend::new(
        client.clone(),
        Patience { call, silence },
    ));
    let task = tokio::spawn({
        let backend = Arc::clone(&backend);
        async move { backend.run().await }
    });
    backend.ready().await;
    let name = DriverName::new("vd.csi.io").unwrap();
    Driver {
        service: ControllerService::new(&name, Arc::clone(&backend)),
        backend,
        task,
    }
}

impl Driver {
    pub async fn create(
        &self,
        request: CreateVolumeRequest,
    ) -> Result<CreateVolumeResponse, Status> {
        let answer = self.service.create_volume(Request::new(request)).await?;
        Ok(answer.into_inner())
    }

    /// The id of a new volume.
    pub async fn make(&self, request: CreateVolumeRequest) -> String {
        self.create(request)
            .await
            .unwrap()
            .volume
            .unwrap()
            .volume_id
    }

    pub async fn delete(&self, id: &str) -> Result<(), Status> {
        let request = DeleteVolumeRequest {
            volume_id: id.to_owned(),
            ..DeleteVolumeRequest::default()
        };
        self.service.delete_volume(Request::new(request)).await?;
        Ok(())
    }

    pub async fn expand(&self, id: &str, bytes: i64) -> Result<i64, Status> {
        let request = ControllerExpandVolumeRequest {
            volume_id: id.to_owned(),
            capacity_range: Some(CapacityRange {
                required_bytes: bytes,
                limit_bytes: 0,
            }),
            ..ControllerExpandVolumeRequest::default()
        };
        let answer = self
            .service
            .controller_expand_volume(Request::new(request))
            .await?;
        Ok(answer.into_inner().capacity_bytes)
    }

    pub async fn cut(&self, name: &str, volume: &str) -> Result<proto::csi::v1::Snapshot, Status> {
        let request = CreateSnapshotRequest {
            name: name.to_owned(),
            source_volume_id: volume.to_owned(),
            ..CreateSnapshotRequest::default()
        };
        let answer = self.service.create_snapshot(Request::new(request)).await?;
        Ok(answer.into_inner().snapshot.unwrap())
    }

    pub async fn delete_snapshot(&self, id: &str) -> Result<(), Status> {
        let request = DeleteSnapshotRequest {
            snapshot_id: id.to_owned(),
            ..DeleteSnapshotRequest::default()
        };
        self.service.delete_snapshot(Request::new(request)).await?;
        Ok(())
    }

    /// Which of these are in the list of volumes now.
    pub async fn listed(&self) -> Vec<String> {
        let page = self.backend.list_volumes(None, usize::MAX).await.unwrap();
        page.items.into_iter().map(|volume| volume.id).collect()
    }
}

/// A raw volume of this size on any of these nodes.
pub fn request(name: &str, bytes: i64, nodes: &[&str]) -> CreateVolumeRequest {
    let topology = |node: &&str| Topology {
        segments: [(KEY.to_owned(), proto::topology::value(node))].into(),
    };
    CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(CapacityRange {
            required_bytes: bytes,
            limit_bytes: 0,
        }),
        volume_capabilities: vec![VolumeCapability {
            access_mode: Some(AccessMode {
                mode: Mode::SingleNodeMultiWriter.into(),
            }),
            access_type: Some(AccessType::Block(BlockVolume {})),
        }],
        accessibility_requirements: Some(TopologyRequirement {
            requisite: nodes.iter().map(topology).collect(),
            preferred: nodes.iter().map(topology).collect(),
        }),
        ..CreateVolumeRequest::default()
    }
}

/// The same, for a claim.
pub fn for_claim(
    mut request: CreateVolumeRequest,
    namespace: &str,
    name: &str,
) -> CreateVolumeRequest {
    request.parameters = HashMap::from([
        (
            "csi.storage.k8s.io/pvc/namespace".to_owned(),
            namespace.to_owned(),
        ),
        ("csi.storage.k8s.io/pvc/name".to_owned(), name.to_owned()),
    ]);
    request
}

pub fn from_snapshot(mut request: CreateVolumeRequest, id: &str) -> CreateVolumeRequest {
    let source = Type::Snapshot(SnapshotSource {
        snapshot_id: id.to_owned(),
    });
    request.volume_content_source = Some(VolumeContentSource {
        r#type: Some(source),
    });
    request
}

pub fn from_volume(mut request: CreateVolumeRequest, id: &str) -> CreateVolumeRequest {
    let source = Type::Volume(VolumeSource {
        volume_id: id.to_owned(),
    });
    request.volume_content_source = Some(VolumeContentSource {
        r#type: Some(source),
    });
    request
}
