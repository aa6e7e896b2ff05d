//! Carries out what was decided about snapshots and contents, one write at a time.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::content;
use super::observe::{Observed, Owner, Volume};
use super::plan::{Plan, Step, plan};
use super::refusal;
use crate::events::Events;
use crate::names::{BEING_DELETED, CLAIM_FINALIZER, YES, content_of};
use crate::objects::{Meta, VolumeSnapshot, VolumeSnapshotContent, key, key_of};
use crate::queue::Outcome;
use crate::requests::{self, Failure, Part};
use crate::time;
use crate::world::{Origin, World};

/// How often it is decided anew about one object at a time. More than that means that somebody else changes it without end.
const ROUNDS: usize = 24;

/// The binding half.
#[derive(Clone)]
pub(crate) struct Binding {
    pub(crate) client: Client,
    pub(crate) world: Arc<World>,
    pub(crate) events: Events,
}

impl Binding {
    /// Looks at a snapshot until nothing is left to do.
    pub(crate) async fn bind(&self, key: &str) -> Outcome {
        let mut volume = Volume::NotAsked;
        for _round in 0..ROUNDS {
            let Some(snapshot) = self.world.snapshots.get(key) else {
                return Outcome::Settled;
            };
            let seen = self.observe(snapshot, volume.clone());
            if seen.owner() == Owner::Us {
                let is_there = || {
                    let now = self.world.snapshots.get(key);
                    now.is_some_and(|now| now.metadata.uid == seen.snapshot.metadata.uid)
                };
                self.world.operations.seen(&seen.snapshot, is_there);
            }
            let Plan { steps, trouble } = plan(&seen);
            let idle = steps.is_empty();
            match self.take(&seen, steps, &mut volume).await {
                Ok(()) => {}
                Err(Failure::Changed) => continue,
                Err(Failure::Refused(message) | Failure::Failed(message)) => {
                    tracing::warn!(
                        snapshot = key,
                        error = message,
                        "cannot go on with a snapshot; trying again"
                    );
                    return Outcome::Failed;
                }
            }
            if let Some(trouble) = trouble {
                tracing::debug!(snapshot = key, trouble, "a snapshot waits");
                return Outcome::Failed;
            }
            if idle {
                return Outcome::Settled;
            }
        }
        tracing::warn!(
            snapshot = key,
            "a snapshot does not come to rest; somebody else changes it"
        );
        Outcome::Failed
    }

    fn observe(&self, snapshot: Arc<VolumeSnapshot>, volume: Volume) -> Observed {
        let world = &self.world;
        let (namespace, name) = (
            Meta::namespace(snapshot.as_ref()),
            Meta::name(snapshot.as_ref()),
        );
        let claim_key = snapshot.claim_name().map(|claim| key(namespace, claim));
        let others = claim_key
            .as_ref()
            .map(|claim| world.snapshots.find(claim))
            .unwrap_or_default();
        let claim_is_wanted = others.iter().any(|other| {
            Meta::name(other.as_ref()) != name
                && !other.is_ready()
                && other.wanted_content().is_none()
        });
        let content = |name: Option<&str>| name.and_then(|name| world.contents.get(name));
        let restored_to = world.claims.find(&key(namespace, name)).into_iter().next();
        let default_classes = match snapshot.class_name() {
            Some(_) => Vec::new(),
            None => world
                .classes
                .all(crate::objects::VolumeSnapshotClass::is_default),
        };
        Observed {
            driver: world.driver.clone(),
            now: time::now(),
            class: snapshot
                .class_name()
                .and_then(|name| world.classes.get(name)),
            default_classes,
            wanted: content(snapshot.wanted_content()),
            own: world
                .contents
                .get(&content_of(Meta::uid(snapshot.as_ref()))),
            bound: content(snapshot.bound_content()),
            claim: claim_key.and_then(|claim| world.claims.get(&claim)),
            volume,
            claim_is_wanted,
            restored_to: restored_to.map(|claim| Meta::name(claim.as_ref()).to_owned()),
            snapshot,
        }
    }

    async fn take(
        &self,
        seen: &Observed,
        steps: Vec<Step>,
        volume: &mut Volume,
    ) -> Result<(), Failure> {
        // A plan writes each object once at most, but for a content that is marked and then deleted.
        for (number, step) in steps.iter().enumerate() {
            let done = self.step(seen, step, volume).await;
            if let Err(Failure::Refused(message)) = &done {
                let rest = steps.get(number + 1..).unwrap_or_default();
                for telling in refusal::told(seen, step, rest, message) {
                    // If that is refused too, there is nothing left to tell it by.
                    drop(self.step(seen, &telling, volume).await);
                }
            }
            done?;
        }
        Ok(())
    }

    async fn step(&self, seen: &Observed, step: &Step, volume: &mut Volume) -> Result<(), Failure> {
        match step {
            Step::ReadVolume(name) => {
                let api: Api<PersistentVolume> = Api::all(self.client.clone());
                *volume = Volume::answered(requests::read(&api, name).await?);
                Ok(())
            }
            Step::SetClass(name) => {
                let change = json!({"spec": {"volumeSnapshotClassName": name}});
                self.change_snapshot(seen, Part::Object, change).await
            }
            Step::SetFinalizers(all) => {
                let change = json!({"metadata": {"finalizers": all}});
                self.change_snapshot(seen, Part::Object, change).await
            }
            Step::SetStatus(status) => {
                let change = json!({"status": status});
                self.change_snapshot(seen, Part::Status, change).await
            }
            Step::ProtectClaim => self.change_claim(seen, true).await,
            Step::ReleaseClaim => self.change_claim(seen, false).await,
            Step::CreateContent(content) => {
                let place = self.world.contents_by(&self.client, Origin::Binding);
                place.create(&seen.own_name(), content).await
            }
            Step::BindContent(spec) => {
                let change = json!({"spec": spec});
                self.take_content(seen.wanted.as_deref(), change).await
            }
            Step::MarkContent(name) => self.take_content(seen.content(name), mark()).await,
            Step::DeleteContent(name) => self.delete_content(seen.content(name)).await,
            Step::Tell(telling) => {
                let (on, message) = (seen.snapshot.as_ref(), telling.message.clone());
                self.events
                    .tell(on, telling.warning, telling.reason, message);
                Ok(())
            }
        }
    }

    async fn change_snapshot(
        &self,
        seen: &Observed,
        part: Part,
        change: Value,
    ) -> Result<(), Failure> {
        let snapshot = seen.snapshot.as_ref();
        let place = self
            .world
            .snapshots_in(&self.client, Meta::namespace(snapshot));
        place.change(snapshot, part, change).await?;
        Ok(())
    }

    async fn change_claim(&self, seen: &Observed, protect: bool) -> Result<(), Failure> {
        let Some(claim) = &seen.claim else {
            return Ok(());
        };
        let mut finalizers = claim.finalizers_now().to_vec();
        finalizers.retain(|name| name != CLAIM_FINALIZER);
        if protect {
            finalizers.push(CLAIM_FINALIZER.to_owned());
        }
        let change = json!({"metadata": {"finalizers": finalizers}});
        let place = self
            .world
            .claims_in(&self.client, Meta::namespace(claim.as_ref()));
        place.change(claim, Part::Object, change).await?;
        Ok(())
    }

    /// The newest state of the content that was seen.
    fn newest(
        &self,
        seen: Option<&VolumeSnapshotContent>,
    ) -> Result<Arc<VolumeSnapshotContent>, Failure> {
        let seen = seen.ok_or(Failure::Changed)?;
        let newest = self.world.contents.get(&key_of(seen));
        let same = newest.filter(|newest| Meta::uid(newest.as_ref()) == Meta::uid(seen));
        same.ok_or(Failure::Changed)
    }

    async fn change_content(
        &self,
        seen: Option<&VolumeSnapshotContent>,
        change: Value,
    ) -> Result<(), Failure> {
        let content = self.newest(seen)?;
        let place = self.world.contents_by(&self.client, Origin::Binding);
        place.change(&content, Part::Object, change).await?;
        Ok(())
    }

    /// Changes a content, and sees to it that it does not go before the driver's snapshot has: with the same write, since a process
    /// may end between two.
    async fn take_content(
        &self,
        seen: Option<&VolumeSnapshotContent>,
        mut change: Value,
    ) -> Result<(), Failure> {
        let content = self.newest(seen)?;
        if let Some(finalizers) = content.protection() {
            change["metadata"]["finalizers"] = finalizers.into();
        }
        self.change_content(Some(&content), change).await
    }

    async fn delete_content(&self, seen: Option<&VolumeSnapshotContent>) -> Result<(), Failure> {
        let content = self.newest(seen)?;
        let place = self.world.contents_by(&self.client, Origin::Binding);
        place.delete(&content).await
    }

    /// Looks at a content until nothing is left to do.
    pub(crate) async fn protect(&self, name: &str) -> Outcome {
        for _round in 0..ROUNDS {
            let Some(content) = self.world.contents.get(name) else {
                return Outcome::Settled;
            };
            let reference = &content.spec.volume_snapshot_ref;
            let namespace = reference.namespace.as_deref().unwrap_or_default();
            let of = key(namespace, reference.name.as_deref().unwrap_or_default());
            let snapshot = self.world.snapshots.get(&of);
            let change = match content::plan(&self.world.driver, &content, snapshot.as_deref()) {
                None => return Outcome::Settled,
                Some(content::Step::Refuse) => {
                    let message =
                        "spec.source has to have exactly one of volumeHandle and snapshotHandle";
                    self.events.tell(
                        content.as_ref(),
                        true,
                        "ContentValidationError",
                        message.to_owned(),
                    );
                    return Outcome::Failed;
                }
                Some(content::Step::Protect) => {
                    json!({"metadata": {"finalizers": content.protection()}})
                }
                Some(content::Step::Mark) => mark(),
            };
            match self.change_content(Some(content.as_ref()), change).await {
                Ok(()) | Err(Failure::Changed) => {}
                Err(Failure::Refused(message) | Failure::Failed(message)) => {
                    tracing::warn!(
                        content = name,
                        error = message,
                        "cannot go on with a content; trying again"
                    );
                    return Outcome::Failed;
                }
            }
        }
        Outcome::Failed
    }
}

fn mark() -> Value {
    json!({"metadata": {"annotations": {BEING_DELETED: YES}}})
}
