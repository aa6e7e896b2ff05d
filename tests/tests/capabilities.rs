//! What the driver says of itself: sidecars and kubelet call exactly what they find here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use tests::client::accepted;
use tests::csi;
use tests::csi::controller_service_capability::rpc::Type as ControllerRpc;
use tests::csi::node_service_capability::rpc::Type as NodeRpc;
use tests::fixture::Fixture;
use tests::scratch_fs::FsKind;

#[test]
fn the_controller_says_what_it_is_and_can() {
    let fixture = Fixture::on(FsKind::Xfs);
    let csi = &fixture.csi;
    let info = accepted(csi.get_plugin_info(csi::GetPluginInfoRequest {}));
    assert_eq!(info.name, "vd.csi.io");
    assert!(!info.vendor_version.is_empty());
    let controller = csi.controller_get_capabilities(csi::ControllerGetCapabilitiesRequest {});
    let mut can: Vec<i32> = accepted(controller)
        .capabilities
        .into_iter()
        .filter_map(|one| one.r#type)
        .map(|csi::controller_service_capability::Type::Rpc(rpc)| rpc.r#type)
        .collect();
    can.sort_unstable();
    let mut wanted = [
        ControllerRpc::CreateDeleteVolume,
        ControllerRpc::ListVolumes,
        ControllerRpc::GetCapacity,
        ControllerRpc::CreateDeleteSnapshot,
        ControllerRpc::ListSnapshots,
        ControllerRpc::GetSnapshot,
        ControllerRpc::CloneVolume,
        ControllerRpc::ExpandVolume,
        ControllerRpc::GetVolume,
        ControllerRpc::SingleNodeMultiWriter,
        ControllerRpc::GetVolumeHealth,
        ControllerRpc::ListVolumeHealth,
    ]
    .map(i32::from);
    wanted.sort_unstable();
    assert_eq!(can, wanted);
}

#[test]
fn the_node_says_what_it_is_and_can() {
    let fixture = Fixture::on(FsKind::Xfs);
    let csi = &fixture.csi;
    let node = csi.node_get_capabilities(csi::NodeGetCapabilitiesRequest {});
    let mut can: Vec<i32> = accepted(node)
        .capabilities
        .into_iter()
        .filter_map(|one| one.r#type)
        .map(|csi::node_service_capability::Type::Rpc(rpc)| rpc.r#type)
        .collect();
    can.sort_unstable();
    let mut wanted = [
        NodeRpc::StageUnstageVolume,
        NodeRpc::GetVolumeStats,
        NodeRpc::ExpandVolume,
        NodeRpc::SingleNodeMultiWriter,
        NodeRpc::GetVolumeHealth,
        NodeRpc::GetStorageHealth,
    ]
    .map(i32::from);
    wanted.sort_unstable();
    assert_eq!(can, wanted);
    let info = accepted(csi.node_get_info(csi::NodeGetInfoRequest {}));
    assert_eq!(info.node_id, tests::fixture::NODE);
    let place = info.accessible_topology.unwrap().segments;
    assert_eq!(place["topology.vd.csi.io/node"], tests::fixture::NODE);
}
