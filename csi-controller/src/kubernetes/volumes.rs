//! CreateVolume, and its way from a request to an object that an agent has made.

use api::{LocalSnapshot, LocalVolume, UNANSWERED_ANNOTATION};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Api, Client, ResourceExt};
use proto::errors::{Failure, Kind};

use super::adopt::{self, Adopted};
use super::convert;
use super::erase::{erase, withdraw};
use super::managed::{Managed, Stage};
use super::objects::{Objects, within};
use super::placement::{self, Pool, Refusal, Wish};
use super::pools::Pools;
use super::room;
use super::verdict::{self, Creation, Seen, is_erased};
use super::wait::{Deadline, Patience};
use crate::backend::CreateVolume;
use crate::model::{Claim, Source, Volume};

/// The scheduler's choice of a node for the consumer of a claim.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Makes, grows and deletes volumes through their objects.
#[derive(Clone)]
pub(crate) struct Volumes {
    pub(crate) client: Client,
    pub(crate) volumes: Objects<LocalVolume>,
    pub(crate) snapshots: Objects<LocalSnapshot>,
    pub(crate) pools: Pools,
    pub(crate) patience: Patience,
}

impl Volumes {
    /// Makes a volume, or joins whoever makes it. One that goes meanwhile is begun again: another copy of this process may have
    /// withdrawn it to ask another node. It cannot have been deleted, since external-provisioner does one thing at a time for a claim.
    pub(crate) async fn create(&self, request: &CreateVolume) -> Result<Volume, Failure> {
        let deadline = Deadline::begin(self.patience);
        let mut refused: Vec<Refusal> = Vec::new();
        loop {
            if deadline.is_over() {
                return Err(Failure::new(
                    Kind::Busy,
                    format!("volume {} changes all the time; call again", request.id),
                ));
            }
            let object = match self.volumes.get(&request.id).await? {
                Some(existing) => existing,
                None if self.adopt(&request.id).await? => continue,
                None => match self.begin(request, &refused).await? {
                    Some(made) => made,
                    // Another copy of this process was faster.
                    None => continue,
                },
            };
            match self.settle(object, deadline).await? {
                Settled::Made(object) => {
                    if let Some(object) = self.answer(object).await? {
                        return Ok(convert::volume(&object));
                    }
                }
                Settled::Again => {}
                Settled::Failed(object, failure) => {
                    self.give_up(object, failure, deadline, &mut refused)
                        .await?;
                }
                Settled::Silent(object, failure) => {
                    self.go_elsewhere(request, object, failure, deadline, &mut refused)
                        .await?;
                }
            }
        }
    }

    /// Takes the mark off that nobody knows of the volume: from now on its caller may. `None`: it has changed, look again.
    async fn answer(&self, object: LocalVolume) -> Result<Option<LocalVolume>, Failure> {
        if !object.annotations().contains_key(UNANSWERED_ANNOTATION) {
            return Ok(Some(object));
        }
        self.volumes.take_off(&object, UNANSWERED_ANNOTATION).await
    }

    async fn begin(
        &self,
        request: &CreateVolume,
        refused: &[Refusal],
    ) -> Result<Option<LocalVolume>, Failure> {
        let node = self.place(request, refused).await?;
        let object = convert::new_volume(request, &node)?;
        let made = self.volumes.create(&object).await?;
        if made.is_some() {
            tracing::info!(volume_id = request.id, node, "placed");
        }
        Ok(made)
    }

    async fn place(&self, request: &CreateVolume, refused: &[Refusal]) -> Result<String, Failure> {
        self.pools.check_synced()?;
        let wish = self.wish(request).await?;
        self.place_by(&wish, request, refused)
    }

    fn place_by(
        &self,
        wish: &Wish,
        request: &CreateVolume,
        refused: &[Refusal],
    ) -> Result<String, Failure> {
        let mut rooms = self.rooms();
        if !matches!(wish, Wish::Source { .. }) {
            // Content is where it is: whoever wants it has to wait for that node.
            self.pools.pass_over_silent(&mut rooms);
        }
        let size = request.capacity_bytes;
        placement::place(wish, &request.placement, &rooms, size, refused)
    }

    /// The pools, less what was promised since they reported.
    pub(crate) fn rooms(&self) -> Vec<Pool> {
        let pools = self.pools.mirror().all_with_age();
        let pools = pools.iter().map(|(pool, age)| (&**pool, *age));
        room::pools(pools, &self.volumes.mirror().all())
    }

    async fn wish(&self, request: &CreateVolume) -> Result<Wish, Failure> {
        match &request.source {
            Some(source) => self.beside(source).await,
            None => self.of_claim(request.claim.as_ref()).await,
        }
    }

    async fn beside(&self, source: &Source) -> Result<Wish, Failure> {
        let node = match source {
            Source::Snapshot(id) => existing(self.snapshots.get(id).await?, id)?.spec.node_name,
            Source::Volume(id) => existing(self.volumes.get(id).await?, id)?.spec.node_name,
        };
        Ok(Wish::Source {
            source: source.to_string(),
            node,
        })
    }

    /// Asks for the claim: only its annotation tells late binding from immediate binding.
    async fn of_claim(&self, claim: Option<&Claim>) -> Result<Wish, Failure> {
        let Some(claim) = claim else {
            return Ok(Wish::Preferred);
        };
        let claims: Api<PersistentVolumeClaim> =
            Api::namespaced(self.client.clone(), &claim.namespace);
        let doing = format!("read claim {}/{}", claim.namespace, claim.name);
        let Some(found) = within(&doing, claims.get_metadata_opt(&claim.name)).await? else {
            return Ok(Wish::Preferred);
        };
        Ok(match found.annotations().get(SELECTED_NODE) {
            Some(node) if !node.is_empty() => Wish::Selected(node.clone()),
            _ => Wish::MostFree,
        })
    }

    async fn settle(
        &self,
        object: LocalVolume,
        deadline: Deadline,
    ) -> Result<Settled<LocalVolume>, Failure> {
        settle(&self.volumes, object, deadline).await
    }

    /// What failed for good is undone before it is answered; with no space, the next allowed node comes first.
    async fn give_up(
        &self,
        object: LocalVolume,
        failure: Failure,
        deadline: Deadline,
        refused: &mut Vec<Refusal>,
    ) -> Result<(), Failure> {
        let node = object.spec.node_name.clone();
        let withdrawn = withdraw(&self.volumes, object, deadline).await?;
        if failure.kind == Kind::NoSpace {
            // Also if another copy of this process was faster: the node has refused.
            refused.push(Refusal {
                node,
                message: failure.message,
            });
            return Ok(());
        }
        if withdrawn {
            return Err(failure);
        }
        Ok(())
    }

    /// An agent that does not answer has not begun either: if another node is allowed, that one is asked; if the scheduler has
    /// chosen this one, it has to choose another. Else the object stays, and the next call joins it.
    async fn go_elsewhere(
        &self,
        request: &CreateVolume,
        object: LocalVolume,
        failure: Failure,
        deadline: Deadline,
        refused: &mut Vec<Refusal>,
    ) -> Result<(), Failure> {
        if object.taken_on() {
            return Err(failure);
        }
        self.pools.did_not_answer(&object.spec.node_name);
        let mut without = refused.clone();
        without.push(Refusal {
            node: object.spec.node_name.clone(),
            message: failure.message.clone(),
        });
        let Ok(wish) = self.wish(request).await else {
            return Err(failure);
        };
        if self.place_by(&wish, request, &without).is_err() && !matches!(wish, Wish::Selected(_)) {
            return Err(failure);
        }
        tracing::warn!(error = %failure, "trying another node");
        if withdraw(&self.volumes, object, deadline).await? {
            *refused = without;
        }
        Ok(())
    }

    /// Deletes a volume with its data.
    pub(crate) async fn delete(&self, id: &str) -> Result<(), Failure> {
        loop {
            match self.volumes.get(id).await? {
                Some(object) => {
                    let deadline = Deadline::begin(self.patience);
                    return erase(&self.volumes, object, deadline).await;
                }
                None if self.adopt(id).await? => {}
                None => return Ok(()),
            }
        }
    }

    /// Whether data without an object is known by this id and has one now: what is on a disk counts, whatever was lost of the API.
    pub(crate) async fn adopt(&self, id: &str) -> Result<bool, Failure> {
        let Some((pool, orphan)) = adopt::find(self.pools.mirror(), id) else {
            return Ok(false);
        };
        let adopted = adopt::adopt(&self.volumes, &self.snapshots, &pool, &orphan).await?;
        Ok(matches!(adopted, Adopted::Yes))
    }
}

/// How waiting for a new object has ended.
pub(crate) enum Settled<K> {
    /// It exists durably.
    Made(K),
    /// It is not there any more: look again.
    Again,
    /// It failed for good, and is to be withdrawn.
    Failed(K, Failure),
    /// Its agent does not answer.
    Silent(K, Failure),
}

/// Waits until an agent has made an object. A failure that the agent may get over leaves the object and is the answer.
pub(crate) async fn settle<K: Managed>(
    objects: &Objects<K>,
    object: K,
    deadline: Deadline,
) -> Result<Settled<K>, Failure> {
    let name = object.name_any();
    if object.delete() && is_erased(&object) {
        // Whoever wanted it gone has not come to the last step.
        erase(objects, object, deadline).await?;
        return Ok(Settled::Again);
    }
    let seen = Seen::of(&object);
    let judge = |now: Option<&K>| verdict::creation(now, &seen);
    match objects.wait(&name, deadline, judge).await {
        Ok(Creation::Made(made)) => Ok(Settled::Made(made)),
        Ok(Creation::Again) => Ok(Settled::Again),
        Ok(Creation::Failed(object, failure))
            if super::failure::ends_creation(failure.kind) && !object.was_made() =>
        {
            Ok(Settled::Failed(object, failure))
        }
        Ok(Creation::Failed(_, failure)) => Err(failure),
        Err(gave_up) => {
            let now = objects.mirror().get(&name);
            let now = now.as_deref().unwrap_or(&object);
            if now.delete() {
                return Err(verdict::deleting(now));
            }
            let failure = verdict::overdue(now, gave_up.working, "made");
            Ok(Settled::Silent(now.clone(), failure))
        }
    }
}

/// The object, if there is data for it.
pub(crate) fn existing<K: Managed>(object: Option<K>, id: &str) -> Result<K, Failure> {
    let object = object.filter(Managed::was_made);
    let object = object.ok_or_else(|| missing::<K>(id))?;
    if object.stage() == Stage::DataMissing {
        return Err(verdict::unusable(&object));
    }
    Ok(object)
}

/// The failure for an object that does not exist.
pub(crate) fn missing<K: Managed>(id: &str) -> Failure {
    Failure::not_found(format!("{} {id} does not exist", K::WORD))
}
