//! What is asked for is done.

use api::{CREATED_ANNOTATION, LocalVolumeStatus, SnapshotState, Source, VolumeState};
use kube::ResourceExt as _;
use serde_json::json;

use crate::machine::Machine;
use crate::objects::{
    MIB, create, delete, merge, ready_volume, snapshot, snapshot_is, snapshots, volume, volume_is,
    volume_says, volumes,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_is_made_marked_and_described_by_its_record() {
    let machine = Machine::started().await;
    let name = ready_volume(&machine, 64 * MIB, None).await;
    let made = volumes(&machine).get(&name).await.unwrap();
    let status = made.status.clone().unwrap();
    let uuid = status.pool_uuid.clone().unwrap();
    assert_eq!(made.annotations()[CREATED_ANNOTATION], uuid);
    assert_eq!(made.finalizers(), [api::AGENT_FINALIZER]);
    assert_eq!(
        (
            status.size_bytes,
            status.capacity.as_deref(),
            status.fs_type
        ),
        (Some(64 * MIB), Some("64Mi"), Some(api::FsType::Ext4))
    );
    assert!(!status.ever_staged && !status.published);
    let counted = |pool: &api::LocalPool| pool.status.as_ref().unwrap().volumes == 1;
    let pool = machine.pool_says(counted).await;
    assert_eq!(pool.status.unwrap().pool_uuid, Some(uuid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_restores_growth_and_deletion_follow_the_objects() {
    let machine = Machine::started().await;
    let source = ready_volume(&machine, 64 * MIB, None).await;
    let cut = create(&snapshots(&machine), &snapshot(&machine, &source)).await;
    let ready = snapshot_is(&machine, &cut, SnapshotState::Ready).await;
    let status = ready.status.unwrap();
    assert!(status.ready_to_use);
    assert_eq!(status.requested_bytes, Some(64 * MIB));
    assert!(status.creation_unix_ns.is_some() && status.creation_time.is_some());
    let from = Source {
        snapshot: Some(cut.clone()),
        volume: None,
    };
    let restored = ready_volume(&machine, 128 * MIB, Some(from.clone())).await;
    let bigger = json!({"spec": {"sizeBytes": 256 * MIB, "requestedBytes": 256 * MIB}});
    merge(&volumes(&machine), &restored, bigger).await;
    let size = |status: &LocalVolumeStatus| status.size_bytes == Some(256 * MIB);
    let grown = volume_says(&machine, &restored, |volume| {
        volume.status.as_ref().is_some_and(size)
    })
    .await;
    assert_eq!(grown.status.unwrap().source, Some(from));
    delete(&machine, &volumes(&machine), &source).await;
    delete(&machine, &snapshots(&machine), &cut).await;
    delete(&machine, &volumes(&machine), &restored).await;
    let empty = |pool: &api::LocalPool| {
        let status = pool.status.as_ref().unwrap();
        (status.volumes, status.snapshots) == (0, 0)
    };
    machine.pool_says(empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_does_not_fit_says_so_and_is_made_once_it_fits() {
    let machine = Machine::started().await;
    let first = ready_volume(&machine, 3000 * MIB, None).await;
    let second = create(&volumes(&machine), &volume(&machine, 2000 * MIB, None)).await;
    let refused = volume_says(&machine, &second, |volume| {
        let failure = volume
            .status
            .as_ref()
            .and_then(|status| status.failure.as_ref());
        failure.is_some_and(|failure| failure.attempts > 1)
    })
    .await;
    let failure = refused.status.unwrap().failure.unwrap();
    assert_eq!(
        (failure.kind.as_str(), failure.observed_generation),
        ("NoSpace", 1)
    );
    delete(&machine, &volumes(&machine), &first).await;
    let made = volume_is(&machine, &second, VolumeState::Ready).await;
    assert_eq!(made.status.unwrap().failure, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_between_any_two_steps_goes_on() {
    let mut machine = Machine::started().await;
    let names = [
        ready_volume(&machine, 64 * MIB, None).await,
        ready_volume(&machine, 64 * MIB, None).await,
        ready_volume(&machine, 64 * MIB, None).await,
    ];
    machine.kill();
    // Killed before it said so, before it marked it, and before it even held it: data is there each time.
    let nothing = json!({"status": null});
    crate::objects::merge_status(&volumes(&machine), &names[0], nothing.clone()).await;
    let unmarked = json!({"metadata": {"annotations": {CREATED_ANNOTATION: null}}});
    crate::objects::merge_status(&volumes(&machine), &names[1], nothing.clone()).await;
    merge(&volumes(&machine), &names[1], unmarked.clone()).await;
    crate::objects::merge_status(&volumes(&machine), &names[2], nothing).await;
    merge(&volumes(&machine), &names[2], unmarked).await;
    merge(
        &volumes(&machine),
        &names[2],
        json!({"metadata": {"finalizers": null}}),
    )
    .await;
    // Asked for while nobody listened, and held already.
    let mut held = volume(&machine, 64 * MIB, None);
    held.finalizers_mut().push(api::AGENT_FINALIZER.to_owned());
    let held = create(&volumes(&machine), &held).await;
    machine.start();
    for name in names.iter().chain([&held]) {
        let found = volume_is(&machine, name, VolumeState::Ready).await;
        assert!(found.annotations().contains_key(CREATED_ANNOTATION));
        assert_eq!(found.finalizers(), [api::AGENT_FINALIZER]);
    }
    machine.stop();
}
