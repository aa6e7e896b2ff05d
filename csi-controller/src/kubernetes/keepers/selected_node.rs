//! Late binding and copies: a claim whose source is on one node is bound to that node, if possible before any scheduler or CDI
//! looks at it.
//!
//! Content does not move between nodes, and nobody in Kubernetes considers where a source is: the consumer's pod (or the pod that
//! CDI pins) would land anywhere, and a claim that its provisioner gave back would wait for ever. So a pending claim of a late-binding
//! class that names a source of ours gets `volume.kubernetes.io/selected-node`, which scheduler, CDI and csi-provisioner all obey.
//! Not without room there, and with growing pauses: csi-provisioner takes the annotation off when the node is full.
//!
//! A scheduler that was faster, and has chosen another node, is overruled as long as the claim is not bound: kube-scheduler sees
//! that the annotation is not its own any more, takes the pod back (`provisioning failed for PVC`) and tries again, with the new
//! node as the only one. CDI copies the annotation of a clone's target to a claim of its own and nails a pod to that node, for good;
//! so this has to be quick. CDI makes the target first and what names its source after it: a source that is not there yet is looked
//! for again soon, and at once when CDI's object comes.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client, Resource, ResourceExt};
use proto::errors::Failure;
use serde_json::json;
use tokio::time::Instant;

use super::events::Events;
use super::follow;
use super::foreign::VolumeCloneSource;
use super::source_node::{self, Found, Reference};
use crate::kubernetes::mirror::Mirror;
use crate::kubernetes::objects::{FIELD_MANAGER, within};
use crate::kubernetes::volumes::{SELECTED_NODE, Volumes};

/// Between two attempts to bind a claim.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Between two looks for a source that is not there yet.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LONGEST_LOOK: Duration = Duration::from_secs(10);

/// A claim that waits, as little of it as is needed.
#[derive(Debug)]
struct Waiting {
    uid: String,
    class: String,
    source: Reference,
    /// The node it is bound to, by this keeper or by the scheduler.
    selected: Option<String>,
    /// There is nothing to do until that changes.
    settled: bool,
    /// Until the next attempt.
    pause: Duration,
    /// Until the next look for the source.
    look: Duration,
    due: Instant,
    seen: bool,
}

/// What came of an attempt.
enum Outcome {
    /// There is nothing to do until the claim changes.
    Settled,
    /// Class or source are not ours, so neither is the claim.
    Foreign,
    /// The class or the source is not there yet, or the claim has changed meanwhile.
    Soon,
    /// It cannot be bound now.
    Later,
}

/// By namespace and name.
type Claims = HashMap<(String, String), Waiting>;

/// Keeps until dropped.
pub(super) async fn keep(
    client: &Client,
    classes: &Mirror<StorageClass>,
    volumes: &Volumes,
    events: &Events,
    driver: &str,
) {
    classes.synced().await;
    let api: Api<PersistentVolumeClaim> = Api::all(client.clone());
    let mut changes = pin!(follow("PersistentVolumeClaim", api, Config::default()));
    let api: Api<VolumeCloneSource> = Api::all(client.clone());
    let mut sources = pin!(follow("VolumeCloneSource", api, Config::default()));
    let mut claims = Claims::new();
    let keeper = Keeper {
        classes,
        volumes,
        events,
        driver,
    };
    loop {
        let due = claims
            .values()
            .filter(|claim| !claim.settled)
            .map(|claim| claim.due)
            .min();
        tokio::select! {
            // What is due first: the next change may be that the claim does not wait any more.
            biased;
            () = until(due) => keeper.go_on(&mut claims).await,
            change = changes.next() => match change {
                Some(change) => note(&mut claims, change),
                None => return,
            },
            source = sources.next() => match source {
                Some(Event::Apply(source) | Event::InitApply(source)) => arrived(&mut claims, &source),
                Some(_) => {}
                None => return,
            },
        }
    }
}

/// A source that CDI names is there now: whoever waits for it is looked at at once.
fn arrived(claims: &mut Claims, source: &VolumeCloneSource) {
    let reference = Reference::CloneSource {
        namespace: source.namespace().unwrap_or_default(),
        name: source.name_any(),
    };
    for claim in claims.values_mut() {
        if claim.source == reference {
            claim.due = Instant::now();
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Keeps of a change what matters, and forgets what does not matter any more.
fn note(claims: &mut Claims, change: Event<PersistentVolumeClaim>) {
    match change {
        Event::Init => claims.values_mut().for_each(|claim| claim.seen = false),
        Event::InitDone => claims.retain(|_, claim| claim.seen),
        Event::Delete(claim) => {
            claims.remove(&key(&claim));
        }
        Event::Apply(claim) | Event::InitApply(claim) => {
            let key = key(&claim);
            let Some((class, source)) = waits(&claim) else {
                claims.remove(&key);
                return;
            };
            let uid = claim.uid().unwrap_or_default();
            let selected = claim.annotations().get(SELECTED_NODE).cloned();
            match claims.get_mut(&key).filter(|known| known.uid == uid) {
                Some(known) => {
                    known.seen = true;
                    if known.selected != selected {
                        known.settled = false;
                        // At once, but not again and again against somebody who insists.
                        if selected.is_some() && known.pause == FIRST_PAUSE {
                            known.due = Instant::now();
                        }
                        known.selected = selected;
                    }
                    known.class = class;
                    known.source = source;
                }
                None => {
                    let waiting = Waiting {
                        uid,
                        class,
                        source,
                        selected,
                        settled: false,
                        pause: FIRST_PAUSE,
                        look: FIRST_LOOK,
                        due: Instant::now(),
                        seen: true,
                    };
                    claims.insert(key, waiting);
                }
            }
        }
    }
}

/// Class and source of a claim that is pending.
fn waits(claim: &PersistentVolumeClaim) -> Option<(String, Reference)> {
    let phase = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let spec = claim.spec.as_ref()?;
    let pending = phase.is_none_or(|phase| phase == "Pending")
        && spec.volume_name.as_deref().unwrap_or_default().is_empty()
        && claim.metadata.deletion_timestamp.is_none();
    if !pending {
        return None;
    }
    Some((
        spec.storage_class_name.clone()?,
        source_node::reference(claim)?,
    ))
}

/// Whether claims of a class are for this keeper; `None` while the class is not known.
fn is_for_us(class: Option<&StorageClass>, driver: &str) -> Option<bool> {
    let class = class?;
    let late = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
    Some(class.provisioner == driver && late)
}

fn key(claim: &PersistentVolumeClaim) -> (String, String) {
    (claim.namespace().unwrap_or_default(), claim.name_any())
}

struct Keeper<'a> {
    classes: &'a Mirror<StorageClass>,
    volumes: &'a Volumes,
    events: &'a Events,
    driver: &'a str,
}

impl Keeper<'_> {
    /// Tries every claim whose pause is over; the next one is longer.
    async fn go_on(&self, claims: &mut Claims) {
        let now = Instant::now();
        let mut foreign = Vec::new();
        for (key, claim) in claims.iter_mut() {
            if claim.settled || claim.due > now {
                continue;
            }
            let outcome = self.settle(key, claim).await.unwrap_or_else(|error| {
                tracing::warn!(%error, namespace = key.0, claim = key.1, "cannot choose a node");
                Outcome::Soon
            });
            match outcome {
                Outcome::Foreign => foreign.push(key.clone()),
                Outcome::Soon => {
                    claim.due = Instant::now() + claim.look;
                    claim.look = (claim.look * 2).min(LONGEST_LOOK);
                }
                Outcome::Settled | Outcome::Later => {
                    // Also when it is settled: whoever takes the node off again has a reason.
                    claim.settled = matches!(outcome, Outcome::Settled);
                    claim.due = Instant::now() + claim.pause;
                    claim.pause = (claim.pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        for key in foreign {
            claims.remove(&key);
        }
    }

    async fn settle(
        &self,
        (namespace, name): &(String, String),
        waiting: &mut Waiting,
    ) -> Result<Outcome, Failure> {
        match is_for_us(self.classes.get(&waiting.class).as_deref(), self.driver) {
            Some(true) => {}
            Some(false) => return Ok(Outcome::Foreign),
            None => return Ok(Outcome::Soon),
        }
        let node = match source_node::find(self.volumes, self.driver, &waiting.source).await? {
            Found::On(node) => node,
            Found::NotYet => return Ok(Outcome::Soon),
            Found::Foreign => return Ok(Outcome::Foreign),
        };
        if waiting.selected.as_ref() == Some(&node) {
            return Ok(Outcome::Settled);
        }
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(self.volumes.client.clone(), namespace);
        let doing = format!("read claim {namespace}/{name}");
        let Some(claim) = within(&doing, api.get_opt(name)).await? else {
            return Ok(Outcome::Later);
        };
        if claim.uid().unwrap_or_default() != waiting.uid || waits(&claim).is_none() {
            // The watch tells it too.
            return Ok(Outcome::Later);
        }
        let on = claim.object_ref(&());
        if let Some(why) = self.no_room(&node, &claim) {
            let note = format!(
                "its content is on node {node}, and a copy can only be made there, but {why}; it is tried again"
            );
            self.events.warning(&on, "NoRoomBesideSource", note).await;
            return Ok(Outcome::Later);
        }
        if !select(&api, &claim, &node).await? {
            return Ok(Outcome::Soon);
        }
        self.tell(&on, &node).await;
        waiting.selected = Some(node);
        Ok(Outcome::Settled)
    }

    async fn tell(&self, on: &ObjectReference, node: &str) {
        let note = format!(
            "its content is on node {node}, so it is bound to that node; a pod that is pinned to another one (nodeName, nodeSelector, \
             affinity) stays Pending: take that off, or copy the data through the network"
        );
        self.events.normal(on, "BoundToSourceNode", note).await;
    }

    fn no_room(&self, node: &str, claim: &PersistentVolumeClaim) -> Option<String> {
        let pools = self.volumes.rooms();
        let Some(pool) = pools.iter().find(|pool| pool.node == node) else {
            return Some("that node has no pool".to_owned());
        };
        if let Some(trouble) = &pool.trouble {
            return Some(format!("its pool takes no volumes now: {trouble}"));
        }
        let wanted = requested(claim).unwrap_or_default();
        (pool.available_bytes < wanted).then(|| {
            format!(
                "its pool has {} bytes free for new volumes and the claim asks for {wanted}",
                pool.available_bytes
            )
        })
    }
}

async fn select(
    api: &Api<PersistentVolumeClaim>,
    claim: &PersistentVolumeClaim,
    node: &str,
) -> Result<bool, Failure> {
    let name = claim.name_any();
    let patch = json!({"metadata": {
        "uid": claim.uid(), "resourceVersion": claim.resource_version(), "annotations": {SELECTED_NODE: node},
    }});
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let work = async {
        match api.patch(&name, &parameters, &Patch::Merge(&patch)).await {
            // It has changed, by the scheduler, CDI or another copy of this program: looked at again soon.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                Ok(false)
            }
            answer => answer.map(|_claim| true),
        }
    };
    within(&format!("choose the node of claim {name}"), work).await
}

/// The size that a claim asks for, in bytes.
fn requested(claim: &PersistentVolumeClaim) -> Option<u64> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    crate::kubernetes::quantity::bytes(&requests.get("storage")?.0)
}

#[cfg(test)]
#[path = "selected_node_tests.rs"]
mod tests;
