//! Without the API server, what runs goes on.

use std::fs;

use api::VolumeState;
use proto::csi::v1;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use serde_json::json;

use crate::machine::{Machine, text};
use crate::objects::{MIB, create, merge, ready_volume, volume, volume_is, volume_says, volumes};

fn capability() -> v1::VolumeCapability {
    v1::VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume::default())),
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
    }
}

pub async fn publish(machine: &Machine, volume: &str) -> String {
    let staging = machine.kubelet().join("plugins").join(volume);
    fs::create_dir_all(&staging).unwrap();
    let target = machine.kubelet().join("pods").join(volume);
    let mut node = machine.node().await;
    let staged = v1::NodeStageVolumeRequest {
        volume_id: volume.to_owned(),
        staging_target_path: text(&staging).to_owned(),
        volume_capability: Some(capability()),
        ..Default::default()
    };
    node.node_stage_volume(staged).await.unwrap();
    let published = v1::NodePublishVolumeRequest {
        volume_id: volume.to_owned(),
        staging_target_path: text(&staging).to_owned(),
        target_path: text(&target).to_owned(),
        volume_capability: Some(capability()),
        ..Default::default()
    };
    node.node_publish_volume(published).await.unwrap();
    text(&target).to_owned()
}

pub async fn unpublish(machine: &Machine, volume: &str) {
    let mut node = machine.node().await;
    let unpublished = v1::NodeUnpublishVolumeRequest {
        volume_id: volume.to_owned(),
        target_path: text(&machine.kubelet().join("pods").join(volume)).to_owned(),
    };
    node.node_unpublish_volume(unpublished).await.unwrap();
    let unstaged = v1::NodeUnstageVolumeRequest {
        volume_id: volume.to_owned(),
        staging_target_path: text(&machine.kubelet().join("plugins").join(volume)).to_owned(),
    };
    node.node_unstage_volume(unstaged).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubelet_is_served_without_the_api_server_also_from_the_start() {
    let mut machine = Machine::started().await;
    let name = ready_volume(&machine, 64 * MIB, None).await;
    machine.stop();
    let way = machine.behind_proxy(false).await;
    machine.start();
    let mounted = publish(&machine, &name).await;
    fs::write(format!("{mounted}/written"), "without the API server").unwrap();
    let mut identity = machine.identity().await;
    let probe = identity.probe(v1::ProbeRequest {}).await.unwrap();
    assert_eq!(probe.into_inner().ready, Some(true));
    let asked = create(&volumes(&machine), &volume(&machine, 64 * MIB, None)).await;
    way.mend();
    volume_is(&machine, &asked, VolumeState::Ready).await;
    volume_says(&machine, &name, |volume| {
        volume
            .status
            .as_ref()
            .is_some_and(|status| status.published && status.ever_staged)
    })
    .await;
    way.cut();
    unpublish(&machine, &name).await;
    way.mend();
    volume_says(&machine, &name, |volume| {
        volume
            .status
            .as_ref()
            .is_some_and(|status| !status.published)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_in_use_is_not_deleted_and_the_wish_can_be_taken_back() {
    let machine = Machine::started().await;
    let name = ready_volume(&machine, 64 * MIB, None).await;
    publish(&machine, &name).await;
    volume_says(&machine, &name, |volume| {
        volume.status.as_ref().unwrap().published
    })
    .await;
    let api = volumes(&machine);
    merge(&api, &name, json!({"spec": {"delete": true}})).await;
    let refused = volume_says(&machine, &name, |volume| {
        volume
            .status
            .as_ref()
            .is_some_and(|status| status.failure.is_some())
    })
    .await;
    assert_eq!(refused.status.unwrap().failure.unwrap().kind, "InUse");
    merge(&api, &name, json!({"spec": {"delete": false}})).await;
    let kept = volume_says(&machine, &name, |volume| {
        let status = volume.status.as_ref().unwrap();
        status.state == VolumeState::Ready && status.failure.is_none()
    })
    .await;
    unpublish(&machine, &name).await;
    assert!(kept.status.unwrap().published);
    volume_says(&machine, &name, |volume| {
        !volume.status.as_ref().unwrap().published
    })
    .await;
    let image = machine.pool().join("volumes").join(&name).join("disk.img");
    assert!(image.exists());
    crate::objects::delete(&machine, &api, &name).await;
}
