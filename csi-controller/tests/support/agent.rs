//! A small agent that plays a node: it does what an object asks for in memory, and writes to the API what csi-node writes.
//!
//! What is tested here is csi-controller's side of the contract between the two; csi-node itself is run against it elsewhere.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use api::{
    AGENT_FINALIZER, CREATED_ANNOTATION, LocalPool, LocalPoolSpec, LocalSnapshot, LocalVolume,
    LocalVolumeStatus,
};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;

pub const MIB: i64 = 1 << 20;

/// What the node of an agent is like; may be changed while it runs.
#[derive(Debug, Default)]
pub struct Node {
    /// What is left in its pool, in bytes.
    pub room: i64,
    /// Volumes that are in use.
    pub in_use: BTreeSet<String>,
    /// Fails with this kind instead of making anything.
    pub failing: Option<&'static str>,
    /// Takes objects on and does nothing further.
    pub stuck: bool,
}

pub struct Agent {
    pub name: String,
    pub node: Arc<Mutex<Node>>,
    client: Client,
    poke: watch::Sender<u64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Agent {
    /// An agent with its pool reported.
    pub async fn start(client: &Client, name: &str, room: i64) -> Agent {
        report(client, name, room, None).await;
        let node = Node {
            room,
            ..Node::default()
        };
        let mut agent = Agent {
            name: name.to_owned(),
            node: Arc::new(Mutex::new(node)),
            client: client.clone(),
            poke: watch::channel(0).0,
            tasks: Vec::new(),
        };
        agent.resume();
        agent
    }

    /// Stops doing anything, as a node does that is down.
    pub async fn stop(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            task.await.ok();
        }
    }

    pub fn resume(&mut self) {
        let worker = Worker {
            client: self.client.clone(),
            name: self.name.clone(),
            node: Arc::clone(&self.node),
        };
        let fields = format!("spec.nodeName={}", self.name);
        self.tasks = vec![
            tokio::spawn(volumes(
                worker.clone(),
                fields.clone(),
                self.poke.subscribe(),
            )),
            tokio::spawn(snapshots(worker, fields)),
        ];
    }

    /// Changes the node, and makes the agent try again what had failed.
    pub fn change(&self, change: impl FnOnce(&mut Node)) {
        change(&mut self.node.lock().unwrap());
        self.poke.send_modify(|count| *count += 1);
    }
}

/// Writes the LocalPool of a node; with `trouble` it is not ready.
pub async fn report(client: &Client, name: &str, room: i64, trouble: Option<&str>) {
    let pools: Api<LocalPool> = Api::all(client.clone());
    let pool = LocalPool::new(
        name,
        LocalPoolSpec {
            node_name: name.to_owned(),
        },
    );
    match pools.create(&PostParams::default(), &pool).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => panic!("{error}"),
    }
    let status = json!({"status": {
        "poolUuid": uuid(name), "topology": proto::topology::value(name), "availableBytes": room, "sizeBytes": room,
        "observedTime": Time(Timestamp::now()),
        "conditions": [condition(trouble)],
    }});
    let patch = Patch::Merge(&status);
    pools
        .patch_status(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

fn uuid(node: &str) -> String {
    format!("uuid-of-{node}")
}

fn condition(trouble: Option<&str>) -> Value {
    json!({
        "type": "Ready", "status": if trouble.is_none() { "True" } else { "False" },
        "reason": if trouble.is_none() { "Ready" } else { "Trouble" }, "message": trouble.unwrap_or_default(),
        "lastTransitionTime": Time(Timestamp::UNIX_EPOCH),
    })
}

#[derive(Clone)]
struct Worker {
    client: Client,
    name: String,
    node: Arc<Mutex<Node>>,
}

async fn volumes(worker: Worker, fields: String, mut poke: watch::Receiver<u64>) {
    let api: Api<LocalVolume> = Api::all(worker.client.clone());
    let config = watcher::Config::default().fields(&fields);
    let mut events = pin!(
        watcher(api.clone(), config)
            .default_backoff()
            .applied_objects()
    );
    loop {
        tokio::select! {
            event = events.next() => {
                if let Some(Ok(volume)) = event { worker.volume(&api, volume, false).await; }
            }
            _ = poke.changed() => {
                let parameters = kube::api::ListParams::default().fields(&fields);
                for volume in api.list(&parameters).await.unwrap().items { worker.volume(&api, volume, true).await; }
            }
        }
    }
}

async fn snapshots(worker: Worker, fields: String) {
    let api: Api<LocalSnapshot> = Api::all(worker.client.clone());
    let config = watcher::Config::default().fields(&fields);
    let mut events = pin!(
        watcher(api.clone(), config)
            .default_backoff()
            .applied_objects()
    );
    while let Some(event) = events.next().await {
        if let Ok(snapshot) = event {
            worker.snapshot(&api, snapshot).await;
        }
    }
}

impl Worker {
    /// What is to be done is decided from the newest state; an object that went meanwhile needs nothing.
    async fn volume(&self, api: &Api<LocalVolume>, volume: LocalVolume, again: bool) {
        let name = volume.name_any();
        let found = api.get_opt(&name).await.unwrap();
        // One of that name may have been made for another node since.
        let Some(volume) = found.filter(|found| found.spec.node_name == self.name) else {
            return;
        };
        let status = volume.status.clone().unwrap_or_default();
        let generation = volume.metadata.generation.unwrap();
        let failed = status
            .failure
            .as_ref()
            .is_some_and(|one| one.observed_generation == generation);
        if failed && !again {
            return;
        }
        if volume.spec.delete {
            self.delete(api, &name, &volume, &status).await;
        } else if volume.metadata.deletion_timestamp.is_none() {
            take_on(api, &name, &volume).await;
            self.make(api, &name, &volume, &status).await;
        }
    }

    async fn delete(
        &self,
        api: &Api<LocalVolume>,
        name: &str,
        volume: &LocalVolume,
        status: &LocalVolumeStatus,
    ) {
        let in_use = self.node.lock().unwrap().in_use.contains(name);
        if in_use {
            return set(
                api,
                name,
                failure(volume, status, "InUse", "it is published to a pod"),
            )
            .await;
        }
        if status.state != api::VolumeState::Deleted {
            self.node.lock().unwrap().room += status.size_bytes.unwrap_or_default();
            let generation = volume.metadata.generation;
            set(
                api,
                name,
                json!({"state": "Deleted", "observedGeneration": generation, "failure": null}),
            )
            .await;
        }
        let_go(api, name, volume).await;
    }

    async fn make(
        &self,
        api: &Api<LocalVolume>,
        name: &str,
        volume: &LocalVolume,
        status: &LocalVolumeStatus,
    ) {
        let generation = volume.metadata.generation.unwrap();
        let has = status.size_bytes.unwrap_or_default();
        let spec = &volume.spec;
        if status.state == api::VolumeState::Ready && has >= spec.size_bytes {
            if status.failure.is_some() || status.observed_generation != generation {
                set(
                    api,
                    name,
                    json!({"observedGeneration": generation, "failure": null}),
                )
                .await;
            }
            return;
        }
        match self.take(spec.size_bytes - has) {
            Ok(true) => {}
            Ok(false) => return,
            Err((kind, message)) => {
                return set(api, name, failure(volume, status, kind, &message)).await;
            }
        }
        made(api, name, &spec.node_name).await;
        set(api, name, json!({
            "state": "Ready", "observedGeneration": generation, "failure": null, "sizeBytes": spec.size_bytes,
            "requestedBytes": spec.requested_bytes, "volumeMode": spec.volume_mode, "fsType": spec.fs_type,
            "provisioning": spec.provisioning, "source": spec.source, "conditions": [condition(None)],
        }))
        .await;
    }

    /// Takes room from the pool; `false` while the node is stuck.
    fn take(&self, bytes: i64) -> Result<bool, (&'static str, String)> {
        let mut node = self.node.lock().unwrap();
        if node.stuck {
            return Ok(false);
        }
        if let Some(kind) = node.failing {
            return Err((kind, "told to fail".to_owned()));
        }
        if node.room < bytes {
            return Err(("NoSpace", format!("{} bytes are free", node.room)));
        }
        node.room -= bytes;
        Ok(true)
    }

    async fn snapshot(&self, api: &Api<LocalSnapshot>, snapshot: LocalSnapshot) {
        let name = snapshot.name_any();
        let found = api.get_opt(&name).await.unwrap();
        // One of that name may have been made for another node since.
        let Some(snapshot) = found.filter(|found| found.spec.node_name == self.name) else {
            return;
        };
        let status = snapshot.status.clone().unwrap_or_default();
        let generation = snapshot.metadata.generation.unwrap();
        if snapshot.spec.delete {
            if status.state != api::SnapshotState::Deleted {
                set(
                    api,
                    &name,
                    json!({"state": "Deleted", "observedGeneration": generation}),
                )
                .await;
            }
            return let_go(api, &name, &snapshot).await;
        }
        if status.state == api::SnapshotState::Ready
            || status.failure.is_some()
            || self.node.lock().unwrap().stuck
        {
            return;
        }
        take_on(api, &name, &snapshot).await;
        let failing = self.node.lock().unwrap().failing;
        if let Some(kind) = failing {
            let failure = json!({
                "kind": kind, "message": "told to fail", "observedGeneration": generation, "attempts": 1, "time": Time(Timestamp::now()),
            });
            return set(
                api,
                &name,
                json!({"observedGeneration": generation, "failure": failure}),
            )
            .await;
        }
        made(api, &name, &snapshot.spec.node_name).await;
        set(api, &name, json!({
            "state": "Ready", "observedGeneration": generation, "readyToUse": true, "creationUnixNs": 1_000_000_007,
            "requestedBytes": MIB, "imageBytes": MIB, "volumeMode": "Block",
        }))
        .await;
    }
}

fn failure(volume: &LocalVolume, status: &LocalVolumeStatus, kind: &str, message: &str) -> Value {
    let generation = volume.metadata.generation;
    let attempts = status.failure.as_ref().map_or(0, |one| one.attempts) + 1;
    json!({"observedGeneration": generation, "failure": {
        "kind": kind, "message": message, "observedGeneration": generation, "attempts": attempts, "time": Time(Timestamp::now()),
    }})
}

trait Object:
    kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug
{
}
impl<K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug>
    Object for K
{
}

async fn take_on<K: Object>(api: &Api<K>, name: &str, object: &K) {
    if object.finalizers().is_empty() {
        merge(
            api,
            name,
            json!({"metadata": {"finalizers": [AGENT_FINALIZER]}}),
        )
        .await;
    }
}

async fn made<K: Object>(api: &Api<K>, name: &str, node: &str) {
    merge(
        api,
        name,
        json!({"metadata": {"annotations": {CREATED_ANNOTATION: uuid(node)}}}),
    )
    .await;
}

async fn let_go<K: Object>(api: &Api<K>, name: &str, object: &K) {
    if !object.finalizers().is_empty() {
        merge(api, name, json!({"metadata": {"finalizers": null}})).await;
    }
}

async fn merge<K: Object>(api: &Api<K>, name: &str, patch: Value) {
    tolerate(
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await,
    );
}

async fn set<K: Object>(api: &Api<K>, name: &str, status: Value) {
    let patch = json!({ "status": status });
    tolerate(
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await,
    );
}

/// The object may be gone by now.
fn tolerate<K>(answer: kube::Result<K>) {
    match answer {
        Err(kube::Error::Api(status)) if !status.is_not_found() => panic!("{status:?}"),
        _ => {}
    }
}
