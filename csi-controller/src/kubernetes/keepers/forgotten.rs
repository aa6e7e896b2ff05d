//! Volumes that csi-provisioner has forgotten (external-provisioner#486): made, and then the process died before it wrote the
//! PersistentVolume, while the claim was deleted. Nobody will ever ask for their deletion.
//!
//! This is the one place where data is removed without being asked to, so every condition has to be proved: the node's record says
//! that the volume was never staged; it has no content source, or `CreateVolume` was never answered for it, so that nobody can know
//! of it (the claim and the snapshot were deleted while it was restored); neither its claim (by uid) nor a PersistentVolume has
//! existed for ten minutes; and both are asked for at the API server once more, for the newest state, before the deletion, which
//! is of exactly the object that was judged.
//!
//! A restore or clone that was answered holds something that somebody may know of. It is never deleted, and told instead: an event,
//! and a metric.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use api::{LocalVolume, UNANSWERED_ANNOTATION};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use proto::errors::Failure;

use super::Options;
use super::events::Events;
use crate::kubernetes::KubernetesBackend;
use crate::kubernetes::convert::claim_uid;
use crate::kubernetes::erase::{erase, withdraw};
use crate::kubernetes::managed::{Managed, Stage};
use crate::kubernetes::objects::within;
use crate::kubernetes::verdict::{current_failure, is_erased};
use crate::kubernetes::volumes::Volumes;
use crate::kubernetes::wait::Deadline;

/// How long claim and PersistentVolume have to be gone.
const GRACE: Duration = Duration::from_secs(600);
/// How long a volume that was found to be known, or told to be unclaimed, is not asked about again.
const AGAIN: Duration = Duration::from_secs(300);
const PAGE: u32 = 500;

/// What was seen of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sighting {
    /// Something named it at this time.
    Known(Instant),
    /// Nothing has named it since.
    Unknown(Instant),
    /// Nothing names it, and that was told at this time.
    Unclaimed(Instant),
}

/// What is done about a volume that nothing names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// There is nothing in it, or nobody knows of it.
    Deleted,
    /// It was made from something, and somebody was told that it is there.
    Told,
}

/// Finds forgotten volumes and deletes them, or tells of them.
pub struct Forgotten {
    client: Client,
    volumes: Volumes,
    options: Options,
    events: Events,
    sightings: HashMap<String, Sighting>,
}

impl std::fmt::Debug for Forgotten {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forgotten")
            .field("sightings", &self.sightings)
            .finish_non_exhaustive()
    }
}

impl Forgotten {
    /// Knows nothing yet: whatever it finds has to stay unknown for ten minutes from then on.
    #[must_use]
    pub fn new(client: Client, backend: &KubernetesBackend, options: &Options) -> Self {
        Self {
            events: Events::new(client.clone(), options),
            client,
            volumes: backend.parts().clone(),
            options: options.clone(),
            sightings: HashMap::new(),
        }
    }

    /// Looks once. `now` is the time by which the ten minutes are measured; it never goes back.
    ///
    /// Also finishes deletions whose last step was never made, since whoever began them was restarted.
    ///
    /// # Errors
    /// `Unavailable` if the API server cannot be asked; what was seen is kept.
    pub async fn sweep(&mut self, now: Instant) -> Result<(), Failure> {
        let all = self.volumes.volumes.mirror().all();
        for object in &all {
            if object.spec.delete
                && is_erased(object.as_ref())
                && object.metadata.deletion_timestamp.is_none()
            {
                let deadline = Deadline::begin(self.volumes.patience);
                erase(&self.volumes.volumes, object.as_ref().clone(), deadline).await?;
            }
        }
        let candidates: Vec<_> = all
            .into_iter()
            .filter_map(|object| Some((fate(&object)?, object)))
            .collect();
        self.sightings
            .retain(|id, _| candidates.iter().any(|(_, one)| one.name_any() == *id));
        let mut named = None;
        for (fate, object) in candidates {
            self.consider(&object, fate, now, &mut named).await?;
        }
        let sightings = self.sightings.values();
        let unclaimed = sightings.filter(|one| matches!(one, Sighting::Unclaimed(_)));
        let unclaimed = i64::try_from(unclaimed.count()).unwrap_or(i64::MAX);
        self.options.metrics.unclaimed.set(unclaimed);
        Ok(())
    }

    async fn consider(
        &mut self,
        object: &LocalVolume,
        fate: Fate,
        now: Instant,
        named: &mut Option<Named>,
    ) -> Result<(), Failure> {
        let id = object.name_any();
        let last = self.sightings.get(&id).copied();
        if let Some(Sighting::Known(at) | Sighting::Unclaimed(at)) = last
            && now.saturating_duration_since(at) < AGAIN
        {
            return Ok(());
        }
        if self.is_named(object).await? {
            self.sightings.insert(id, Sighting::Known(now));
            return Ok(());
        }
        let since = match last {
            Some(Sighting::Unknown(since)) => since,
            Some(Sighting::Unclaimed(_)) => now.checked_sub(GRACE).unwrap_or(now),
            Some(Sighting::Known(_)) | None => now,
        };
        if now.saturating_duration_since(since) < GRACE {
            self.sightings.insert(id, Sighting::Unknown(since));
            return Ok(());
        }
        // To delete it takes the newest state; to tell, the one of this look is good enough for all.
        let fresh = match (named.take(), fate) {
            (Some(named), Fate::Told) => named,
            _ => self.everything_named().await?,
        };
        let is_named = fresh.has(&id);
        *named = Some(fresh);
        if is_named {
            self.sightings.insert(id, Sighting::Known(now));
            return Ok(());
        }
        match fate {
            Fate::Deleted => self.delete(object).await,
            Fate::Told => {
                let told = matches!(last, Some(Sighting::Unclaimed(_)));
                self.sightings.insert(id, Sighting::Unclaimed(now));
                if !told {
                    self.tell(object).await;
                }
                Ok(())
            }
        }
    }

    async fn delete(&self, object: &LocalVolume) -> Result<(), Failure> {
        tracing::warn!(
            volume_id = object.name_any(),
            node = object.spec.node_name,
            "deleting a volume that was never used and that neither a claim nor a PersistentVolume has named for 10 minutes"
        );
        let deadline = Deadline::begin(self.volumes.patience);
        withdraw(&self.volumes.volumes, object.clone(), deadline).await?;
        Ok(())
    }

    async fn tell(&self, object: &LocalVolume) {
        let note = "neither a claim nor a PersistentVolume has named this copy for 10 minutes, and it was never used. It is kept: \
                    make a PersistentVolume for it, or destroy it (docs/kubernetes.md)";
        let on = object.object_ref(&());
        self.events.warning(&on, "Unclaimed", note.to_owned()).await;
    }

    /// The quick look, by the names that csi-provisioner gives.
    async fn is_named(&self, object: &LocalVolume) -> Result<bool, Failure> {
        let id = object.name_any();
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let doing = format!("look for PersistentVolume {id}");
        if within(&doing, volumes.get_metadata_opt(&id))
            .await?
            .is_some()
        {
            if object.annotations().contains_key(UNANSWERED_ANNOTATION) {
                // An older csi-controller has answered, which does not know the mark.
                let objects = &self.volumes.volumes;
                objects.take_off(object, UNANSWERED_ANNOTATION).await?;
            }
            return Ok(true);
        }
        let Some(claim) = &object.spec.claim else {
            return Ok(self.everything_named().await?.has(&id));
        };
        let claims: Api<PersistentVolumeClaim> =
            Api::namespaced(self.client.clone(), &claim.namespace);
        let doing = format!("look for claim {}/{}", claim.namespace, claim.name);
        let found = within(&doing, claims.get_metadata_opt(&claim.name)).await?;
        Ok(found.is_some_and(|found| {
            let uid = found.uid();
            uid.is_some() && (uid.as_deref() == claim_uid(&id) || uid == claim.uid)
        }))
    }

    /// The proof: all PersistentVolumes, all claims.
    async fn everything_named(&self) -> Result<Named, Failure> {
        let mut named = Named::default();
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let mut parameters = ListParams::default().limit(PAGE);
        loop {
            let page = within("list PersistentVolumes", volumes.list(&parameters)).await?;
            for volume in page.items {
                named.volumes.insert(volume.name_any());
                let csi = volume.spec.and_then(|spec| spec.csi);
                let csi = csi.filter(|csi| csi.driver == self.options.driver);
                named.volumes.extend(csi.map(|csi| csi.volume_handle));
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters.continue_token = Some(token),
                None => break,
            }
        }
        let claims: Api<PersistentVolumeClaim> = Api::all(self.client.clone());
        let mut parameters = ListParams::default().limit(PAGE);
        loop {
            let page = within("list claims", claims.list_metadata(&parameters)).await?;
            named
                .claims
                .extend(page.items.iter().filter_map(ResourceExt::uid));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters.continue_token = Some(token),
                None => return Ok(named),
            }
        }
    }
}

/// What names volumes.
#[derive(Debug, Default)]
struct Named {
    /// The names of PersistentVolumes, and the handles in those of this driver.
    volumes: BTreeSet<String>,
    /// The uids of claims.
    claims: BTreeSet<String>,
}

impl Named {
    fn has(&self, id: &str) -> bool {
        self.volumes.contains(id) || claim_uid(id).is_some_and(|uid| self.claims.contains(uid))
    }
}

/// What may happen to an object if nothing names it: one of a claim, of which the node's newest report says that it was never staged,
/// or that was never made.
fn fate(object: &LocalVolume) -> Option<Fate> {
    if claim_uid(&object.name_any()).is_none()
        || object.spec.delete
        || object.metadata.deletion_timestamp.is_some()
    {
        return None;
    }
    let status = object.status.clone().unwrap_or_default();
    if status.ever_staged || status.published {
        return None;
    }
    let is_copy = object.spec.source.is_some() || status.source.is_some();
    let unanswered = object.annotations().contains_key(UNANSWERED_ANNOTATION);
    match object.stage() {
        Stage::Ready if object.is_observed() && status.size_bytes.is_some() => {
            Some(if is_copy && !unanswered {
                Fate::Told
            } else {
                Fate::Deleted
            })
        }
        // A copy that runs may take long. It is looked at when it has ended.
        Stage::Pending if is_copy && object.taken_on() && current_failure(object).is_none() => None,
        Stage::Pending if !object.was_made() && (unanswered || !is_copy) => Some(Fate::Deleted),
        Stage::Ready
        | Stage::Pending
        | Stage::Failed
        | Stage::DataMissing
        | Stage::Deleting
        | Stage::Deleted => None,
    }
}

#[cfg(test)]
mod tests {
    use api::LocalVolume;
    use serde_json::{Value, json};

    use super::{Fate, fate};

    fn object(change: impl FnOnce(&mut Value)) -> LocalVolume {
        let mut object = json!({
            "apiVersion": "vd.csi.io/v1alpha1", "kind": "LocalVolume",
            "metadata": {"name": "pvc-3f8b9c1e-0d2a-4c6b-9e57-0123456789ab", "generation": 1},
            "spec": {"nodeName": "n", "name": "x", "requestedBytes": 1, "sizeBytes": 1_048_576, "volumeMode": "Block"},
            "status": {"state": "Ready", "observedGeneration": 1, "sizeBytes": 1_048_576},
        });
        change(&mut object);
        serde_json::from_value(object).unwrap()
    }

    /// A copy that nobody was told of.
    fn unanswered(object: &mut Value) {
        object["spec"]["source"] = json!({"snapshot": "s"});
        object["metadata"]["annotations"] = json!({"vd.csi.io/unanswered": "true"});
    }

    type Change = fn(&mut Value);

    #[test]
    fn what_is_empty_or_nobody_knows_of_may_be_deleted() {
        let changes: [(&str, Change); 5] = [
            ("made", |_| {}),
            ("never made", |o| o["status"] = Value::Null),
            ("a copy, not answered", unanswered),
            ("a copy, not begun", |o| {
                unanswered(o);
                o["status"] = Value::Null;
            }),
            ("a copy that failed", |o| {
                unanswered(o);
                o["metadata"]["finalizers"] = json!(["vd.csi.io/agent"]);
                o["status"] = json!({"state": "Pending", "observedGeneration": 1, "failure": {
                    "kind": "NotFound", "message": "m", "observedGeneration": 1, "attempts": 1, "time": "2026-01-01T00:00:00Z",
                }});
            }),
        ];
        for (what, change) in changes {
            assert_eq!(fate(&object(change)), Some(Fate::Deleted), "{what}");
        }
    }

    #[test]
    fn a_copy_that_was_answered_is_only_told_of() {
        let changes: [(&str, Change); 2] = [
            ("by its object", |o| {
                o["spec"]["source"] = json!({"snapshot": "s"});
            }),
            ("by its record", |o| {
                o["status"]["source"] = json!({"snapshot": "s"});
            }),
        ];
        for (what, change) in changes {
            assert_eq!(fate(&object(change)), Some(Fate::Told), "{what}");
        }
    }

    #[test]
    fn anything_that_may_hold_something_is_left_alone() {
        let changes: [(&str, Change); 12] = [
            ("staged", |o| o["status"]["everStaged"] = json!(true)),
            ("published", |o| o["status"]["published"] = json!(true)),
            ("a copy, staged", |o| {
                unanswered(o);
                o["status"]["everStaged"] = json!(true);
            }),
            ("a copy that runs", |o| {
                unanswered(o);
                o["metadata"]["finalizers"] = json!(["vd.csi.io/agent"]);
                o["status"] = json!({"state": "Pending", "observedGeneration": 1});
            }),
            ("a copy of an older version", |o| {
                o["spec"]["source"] = json!({"snapshot": "s"});
                o["status"] = Value::Null;
            }),
            ("an old report", |o| o["metadata"]["generation"] = json!(2)),
            ("no record", |o| o["status"]["sizeBytes"] = Value::Null),
            ("lost", |o| o["status"]["state"] = json!("DataMissing")),
            ("damaged", |o| o["status"]["state"] = json!("Failed")),
            ("marked, and no report", |o| {
                o["metadata"]["annotations"] = json!({"vd.csi.io/created": "x"});
                o["status"] = Value::Null;
            }),
            ("of no claim", |o| o["metadata"]["name"] = json!("vol-1")),
            ("going", |o| {
                o["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }),
        ];
        for (what, change) in changes {
            assert_eq!(fate(&object(change)), None, "{what}");
        }
    }
}
