//! What csi-controller keeps in order beside answering calls. Each keeper is safe in two copies and lives with kinds that are
//! not installed: it takes up its work once they are.

mod answers;
mod claims;
mod events;
mod foreign;
pub mod forgotten;
mod orphans;
mod selected_node;
mod snapshot_class;
mod source_node;
mod storage_profiles;

use std::fmt::Debug;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use telemetry::prometheus::metrics::gauge::Gauge;
use telemetry::prometheus::registry::Registry;

use self::answers::with_answers;
use self::events::Events;
use self::forgotten::Forgotten;
use super::KubernetesBackend;
use super::mirror::Mirror;

/// How often it is looked for volumes that were forgotten, and for deletions that were not finished.
const SWEEP: Duration = Duration::from_secs(60);

/// What the keepers have to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The driver's name.
    pub driver: String,
    /// The name of the VolumeSnapshotClass to keep; empty: none.
    pub snapshot_class: String,
    /// The name of this copy, for events: its pod.
    pub instance: Option<String>,
    /// What the keepers have counted.
    pub metrics: Metrics,
}

/// What the keepers count. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    unclaimed: Gauge,
}

impl Metrics {
    /// Puts them into the registry of the program.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "volumes_unclaimed",
            "Restores and clones that were never used and that no claim and no PersistentVolume has named for ten minutes",
            metrics.unclaimed.clone(),
        );
        metrics
    }
}

/// Keeps until dropped. Never ends by itself.
pub async fn run(client: Client, backend: &KubernetesBackend, options: &Options) {
    let events = Events::new(client.clone(), options);
    let classes: Mirror<StorageClass> = Mirror::default();
    let volumes = backend.parts();
    backend.ready().await;
    // Without one of them, whatever it keeps would be forgotten unnoticed.
    tokio::select! {
        () = classes.follow(Api::all(client.clone())) => {}
        () = storage_profiles::keep(&client, &classes, &options.driver) => {}
        () = snapshot_class::keep(&client, options) => {}
        () = selected_node::keep(&client, &classes, volumes, &events, &options.driver) => {}
        () = orphans::keep(&client, volumes, &events, &options.driver) => {}
        () = claims::keep(&client, volumes, &options.driver) => {}
        () = sweep(Forgotten::new(client.clone(), backend, options)) => {}
    }
}

async fn sweep(mut forgotten: Forgotten) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = forgotten.sweep(std::time::Instant::now()).await {
            tracing::warn!(%error, "cannot look for forgotten volumes; trying again");
        }
    }
}

/// Follows a kind that may not be installed. A broken watch is tried again, ever more seldom, and told once.
fn follow<K>(
    kind: &'static str,
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Event<K>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut failing = false;
    with_answers(::api::watching(api, config))
        .default_backoff()
        .filter_map(move |event| {
            let event = match event {
                Ok(event) => {
                    failing = false;
                    Some(event)
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::info!(kind, %error, "cannot be watched now; not installed perhaps");
                    }
                    None
                }
            };
            std::future::ready(event)
        })
}
