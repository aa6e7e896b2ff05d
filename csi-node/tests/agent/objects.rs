//! Objects as csi-controller makes and deletes them, and waiting for what the agent says of them.

use std::fmt::Debug;
use std::time::Duration;

use api::{
    FsType, LocalPool, LocalSnapshot, LocalSnapshotSpec, LocalVolume, LocalVolumeSpec,
    Provisioning, SnapshotState, Source, VolumeMode, VolumeState,
};
use futures::StreamExt as _;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::machine::Machine;

pub const MIB: i64 = 1 << 20;
/// Longest time for anything; a failed test says what it saw.
const LIMIT: Duration = Duration::from_secs(150);

/// A volume of `machine`.
pub fn volume(machine: &Machine, bytes: i64, source: Option<Source>) -> LocalVolume {
    let name = format!("pvc-{}", uuid::Uuid::new_v4());
    let spec = LocalVolumeSpec {
        node_name: machine.name.clone(),
        name: name.clone(),
        requested_bytes: bytes,
        size_bytes: bytes,
        volume_mode: VolumeMode::Filesystem,
        fs_type: Some(FsType::Ext4),
        provisioning: Provisioning::Thin,
        access_modes: vec!["SINGLE_NODE_WRITER".to_owned()],
        source,
        claim: None,
        delete: false,
    };
    LocalVolume::new(&name, spec)
}

pub fn snapshot(machine: &Machine, source: &str) -> LocalSnapshot {
    let name = format!("snapshot-{}", uuid::Uuid::new_v4());
    let spec = LocalSnapshotSpec {
        node_name: machine.name.clone(),
        name: name.clone(),
        source_volume: source.to_owned(),
        compression: None,
        checksum: None,
        delete: false,
    };
    LocalSnapshot::new(&name, spec)
}

pub fn volumes(machine: &Machine) -> Api<LocalVolume> {
    Api::all(machine.client.clone())
}

pub fn snapshots(machine: &Machine) -> Api<LocalSnapshot> {
    Api::all(machine.client.clone())
}

/// Makes the object and answers its name.
pub async fn create<K>(api: &Api<K>, object: &K) -> String
where
    K: Resource + Clone + Debug + DeserializeOwned + serde::Serialize,
{
    api.create(&PostParams::default(), object).await.unwrap();
    object.name_any()
}

/// Makes a volume and waits until it is ready.
pub async fn ready_volume(machine: &Machine, bytes: i64, source: Option<Source>) -> String {
    let name = create(&volumes(machine), &volume(machine, bytes, source)).await;
    volume_is(machine, &name, VolumeState::Ready).await;
    name
}

pub async fn volume_is(machine: &Machine, name: &str, state: VolumeState) -> LocalVolume {
    volume_says(machine, name, |volume| {
        volume
            .status
            .as_ref()
            .is_some_and(|status| status.state == state)
    })
    .await
}

pub async fn volume_says(
    machine: &Machine,
    name: &str,
    wanted: impl Fn(&LocalVolume) -> bool,
) -> LocalVolume {
    when(&volumes(machine), name, wanted, || machine.log()).await
}

pub async fn snapshot_is(machine: &Machine, name: &str, state: SnapshotState) -> LocalSnapshot {
    let wanted = |snapshot: &LocalSnapshot| {
        snapshot
            .status
            .as_ref()
            .is_some_and(|status| status.state == state)
    };
    when(&snapshots(machine), name, wanted, || machine.log()).await
}

/// As csi-controller does when the deletion was asked for through CSI, to its end.
pub async fn delete<K>(machine: &Machine, api: &Api<K>, name: &str)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    merge(api, name, json!({"spec": {"delete": true}})).await;
    // The agent lets go once the data is gone; then the object can be deleted.
    let released = |object: &K| object.finalizers().is_empty();
    when(api, name, released, || machine.log()).await;
    api.delete(name, &DeleteParams::default()).await.unwrap();
    gone(machine, api, name).await;
}

/// Waits until there is no such object.
pub async fn gone<K>(machine: &Machine, api: &Api<K>, name: &str)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let is_gone = |object: Option<&K>| object.is_none();
    let waited = kube::runtime::wait::await_condition(api.clone(), name, is_gone);
    match tokio::time::timeout(LIMIT, waited).await {
        Ok(ended) => drop(ended.unwrap()),
        Err(_elapsed) => panic!("{name} does not go\n{}", machine.log()),
    }
}

pub async fn merge<K>(api: &Api<K>, name: &str, change: Value)
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(change))
        .await
        .unwrap();
}

pub async fn merge_status<K>(api: &Api<K>, name: &str, change: Value)
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(change))
        .await
        .unwrap();
}

/// Whether the condition `type_` of a pool has this status.
pub fn is(pool: &LocalPool, type_: &str, status: &str) -> bool {
    condition(pool, type_).is_some_and(|(found, _)| found == status)
}

/// The status and the reason of a condition.
pub fn condition(pool: &LocalPool, type_: &str) -> Option<(String, String)> {
    let conditions = &pool.status.as_ref()?.conditions;
    let found = conditions.iter().find(|one| one.type_ == type_)?;
    Some((found.status.clone(), found.reason.clone()))
}

/// Waits until the object `name` is there and as `wanted`.
pub async fn when<K>(
    api: &Api<K>,
    name: &str,
    wanted: impl Fn(&K) -> bool,
    log: impl Fn() -> String,
) -> K
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let events = watcher(api.clone(), only)
        .default_backoff()
        .applied_objects();
    let mut events = std::pin::pin!(events);
    let mut last = None;
    let waiting = async {
        loop {
            if let Some(Ok(object)) = events.next().await {
                if wanted(&object) {
                    return object;
                }
                last = Some(object);
            }
        }
    };
    match tokio::time::timeout(LIMIT, waiting).await {
        Ok(object) => object,
        Err(_elapsed) => panic!(
            "{name} did not become as wanted; it is {last:#?}\n{}",
            log()
        ),
    }
}
