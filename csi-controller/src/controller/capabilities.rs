//! What the Controller service announces.

use proto::csi::v1::controller_service_capability::rpc::Type as RpcType;
use proto::csi::v1::controller_service_capability::{Rpc as RpcCapability, Type};
use proto::csi::v1::{ControllerGetCapabilitiesResponse, ControllerServiceCapability};

/// Everything the service can do.
///
/// Not here on purpose: publish and unpublish (nothing to attach), published nodes in lists
/// (that is about attached volumes), modify (no mutable parameters).
pub(super) const ANNOUNCED: [RpcType; 12] = [
    RpcType::CreateDeleteVolume,
    RpcType::ListVolumes,
    RpcType::GetCapacity,
    RpcType::CreateDeleteSnapshot,
    RpcType::ListSnapshots,
    RpcType::CloneVolume,
    RpcType::ExpandVolume,
    RpcType::GetVolume,
    // Without it kubelet sends SINGLE_NODE_WRITER for ReadWriteOnce, and CSI then forbids the
    // second pod on the node that Kubernetes allows.
    RpcType::SingleNodeMultiWriter,
    RpcType::GetSnapshot,
    RpcType::GetVolumeHealth,
    RpcType::ListVolumeHealth,
];

pub(super) fn answer() -> ControllerGetCapabilitiesResponse {
    ControllerGetCapabilitiesResponse {
        capabilities: ANNOUNCED
            .into_iter()
            .map(|announced| ControllerServiceCapability {
                r#type: Some(Type::Rpc(RpcCapability {
                    r#type: announced.into(),
                })),
            })
            .collect(),
    }
}
