//! Objects of Kubernetes that the tests of keepers make, change and wait for.

use std::time::Duration;

use api::LocalVolume;
use csi_controller::kubernetes::keepers::{self, Metrics, Options};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::support::driver::Driver;

pub const DRIVER: &str = "vd.csi.io";
pub const SELECTED: &str = "volume.kubernetes.io/selected-node";

pub struct Keepers(tokio::task::JoinHandle<()>);

impl Drop for Keepers {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub fn options(snapshot_class: &str) -> Options {
    Options {
        driver: DRIVER.to_owned(),
        snapshot_class: snapshot_class.to_owned(),
        instance: None,
        metrics: Metrics::default(),
    }
}

/// The keepers beside a driver, as in the binary.
pub fn keep(client: &Client, driver: &Driver, snapshot_class: &str) -> Keepers {
    let options = options(snapshot_class);
    let (client, backend) = (client.clone(), driver.backend.clone());
    Keepers(tokio::spawn(async move {
        Box::pin(keepers::run(client, &backend, &options)).await;
    }))
}

pub async fn object<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

pub async fn class(client: &Client, name: &str, mode: &str) {
    let classes: Api<StorageClass> = Api::all(client.clone());
    object(
        &classes,
        json!({"metadata": {"name": name}, "provisioner": DRIVER, "volumeBindingMode": mode}),
    )
    .await;
}

pub fn claim(name: &str, class: &str, source: &Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "volumeMode": "Block", "storageClassName": class,
        "resources": {"requests": {"storage": "1Mi"}}, "dataSource": source,
    }})
}

pub fn claims(client: &Client) -> Api<PersistentVolumeClaim> {
    Api::namespaced(client.clone(), "default")
}

pub fn volumes(client: &Client) -> Api<LocalVolume> {
    Api::all(client.clone())
}

/// Waits for an object to come to a state.
pub async fn until<K>(api: &Api<K>, name: &str, condition: impl Condition<K>) -> Option<K>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let waiting = await_condition(api.clone(), name, condition);
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .expect("in time")
        .unwrap()
}

pub fn persistent_volume(name: &str, handle: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Mi"}, "volumeMode": "Block",
        "persistentVolumeReclaimPolicy": "Retain", "csi": {"driver": DRIVER, "volumeHandle": handle},
    }})
}

/// Waits for an event about an object.
pub async fn told(client: &Client, uid: &str, reason: &str, part: &str) {
    use futures::StreamExt as _;
    let events: Api<Event> = Api::namespaced(client.clone(), "default");
    let mut changes = std::pin::pin!(kube::runtime::watcher(
        events,
        kube::runtime::watcher::Config::default()
    ));
    let waiting = async {
        loop {
            let (kube::runtime::watcher::Event::Apply(event)
            | kube::runtime::watcher::Event::InitApply(event)) =
                changes.next().await.unwrap().unwrap()
            else {
                continue;
            };
            let about = event.regarding.as_ref().and_then(|on| on.uid.as_deref()) == Some(uid);
            let note = event.note.clone().unwrap_or_default();
            if about && event.reason.as_deref() == Some(reason) && note.contains(part) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .expect("the event in time");
}

/// Changes an object.
pub async fn merge<K>(api: &Api<K>, name: &str, patch: &Value) -> K
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let patch = Patch::Merge(patch);
    api.patch(name, &PatchParams::default(), &patch)
        .await
        .unwrap()
}

/// Changes the status of an object.
pub async fn merge_status<K>(api: &Api<K>, name: &str, patch: &Value)
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let patch = Patch::Merge(patch);
    api.patch_status(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// Whether there is a volume of this id now.
pub async fn is_there(client: &Client, id: &str) -> bool {
    volumes(client).get_opt(id).await.unwrap().is_some()
}
