//! How the service maps its backend's answers to CSI. The rules of requests are tested beside
//! them, in `request`.

mod memory;
mod snapshots;
mod volumes;

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::csi::v1::controller_server::Controller;
use proto::csi::v1::controller_service_capability::Type;
use proto::csi::v1::controller_service_capability::rpc::Type as RpcType;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use proto::csi::v1::{
    CapacityRange, ControllerGetCapabilitiesRequest, ControllerModifyVolumeRequest,
    ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest, CreateSnapshotRequest,
    CreateVolumeRequest, Snapshot, Volume, VolumeCapability,
};
use tonic::{Code, Request, Response, Status};

use memory::Memory;

use super::ControllerService;
use crate::identity::DriverName;

const KEY: &str = "topology.vd.csi.io/node";
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;

type Service = ControllerService<Memory>;

fn service() -> (Service, Arc<Memory>) {
    let memory = Arc::new(Memory::default());
    let name = DriverName::new("vd.csi.io").expect("name");
    (ControllerService::new(&name, Arc::clone(&memory)), memory)
}

fn capability(access_type: AccessType) -> VolumeCapability {
    let access_mode = Some(AccessMode {
        mode: Mode::SingleNodeWriter.into(),
    });
    VolumeCapability {
        access_mode,
        access_type: Some(access_type),
    }
}

fn block() -> VolumeCapability {
    capability(AccessType::Block(BlockVolume {}))
}

fn mount(fs_type: &str) -> VolumeCapability {
    let mount = MountVolume {
        fs_type: fs_type.to_owned(),
        ..MountVolume::default()
    };
    capability(AccessType::Mount(mount))
}

fn create(name: &str, bytes: i64, capability: VolumeCapability) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(CapacityRange {
            required_bytes: bytes,
            limit_bytes: 0,
        }),
        volume_capabilities: vec![capability],
        ..CreateVolumeRequest::default()
    }
}

async fn make(service: &Service, request: CreateVolumeRequest) -> Result<Volume, Status> {
    let answer = service.create_volume(Request::new(request)).await?;
    Ok(answer.into_inner().volume.expect("a volume"))
}

async fn cut(service: &Service, name: &str, volume_id: &str) -> Result<Snapshot, Status> {
    let request = CreateSnapshotRequest {
        name: name.to_owned(),
        source_volume_id: volume_id.to_owned(),
        ..CreateSnapshotRequest::default()
    };
    let answer = service.create_snapshot(Request::new(request)).await?;
    Ok(answer.into_inner().snapshot.expect("a snapshot"))
}

#[track_caller]
fn assert_code<T: std::fmt::Debug>(result: Result<T, Status>, code: Code) -> String {
    let status = result.expect_err("should fail");
    assert_eq!(status.code(), code, "{status:?}");
    assert!(!status.message().is_empty());
    assert!(status.details().is_empty());
    status.message().to_owned()
}

#[track_caller]
fn inner<T>(result: Result<Response<T>, Status>) -> T {
    result.expect("should succeed").into_inner()
}

#[tokio::test]
async fn exactly_what_is_served_is_announced() {
    let (service, _) = service();
    let request = Request::new(ControllerGetCapabilitiesRequest {});
    let announced: BTreeSet<i32> = inner(service.controller_get_capabilities(request).await)
        .capabilities
        .into_iter()
        .map(|capability| match capability.r#type {
            Some(Type::Rpc(rpc)) => rpc.r#type,
            None => 0,
        })
        .collect();
    assert_eq!(
        announced,
        BTreeSet::from([1, 3, 4, 5, 6, 7, 9, 12, 13, 15, 16, 17])
    );
    assert!(!announced.contains(&(RpcType::PublishUnpublishVolume as i32)));
    assert!(!announced.contains(&(RpcType::ModifyVolume as i32)));
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    let (service, memory) = service();
    let publish = Request::new(ControllerPublishVolumeRequest::default());
    assert_code(
        service.controller_publish_volume(publish).await,
        Code::Unimplemented,
    );
    let unpublish = Request::new(ControllerUnpublishVolumeRequest::default());
    assert_code(
        service.controller_unpublish_volume(unpublish).await,
        Code::Unimplemented,
    );
    let modify = Request::new(ControllerModifyVolumeRequest::default());
    assert_code(
        service.controller_modify_volume(modify).await,
        Code::Unimplemented,
    );
    assert_eq!(memory.calls(), 0);
}
