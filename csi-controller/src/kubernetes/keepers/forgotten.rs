//! Volumes that csi-provisioner has forgotten (external-provisioner#486): made, and then the process died before it wrote the
//! PersistentVolume, while the claim was deleted. Nobody will ever ask for their deletion.
//!
//! This is the one place where data is removed without being asked to, so every condition has to be proved: the node's record says
//! that the volume was never staged and that it has no content source; neither its claim (by uid) nor a PersistentVolume has
//! existed for ten minutes; and both are asked for at the API server once more, for the newest state, before the deletion, which
//! is of exactly the object that was judged.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use api::LocalVolume;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use proto::errors::Failure;

use crate::kubernetes::KubernetesBackend;
use crate::kubernetes::erase::{erase, withdraw};
use crate::kubernetes::managed::{Managed, Stage};
use crate::kubernetes::objects::within;
use crate::kubernetes::verdict::is_erased;
use crate::kubernetes::volumes::Volumes;
use crate::kubernetes::wait::Deadline;

/// How long claim and PersistentVolume have to be gone.
const GRACE: Duration = Duration::from_secs(600);
/// How long a volume that was found to be known is not asked about again.
const KNOWN: Duration = Duration::from_secs(300);
const PAGE: u32 = 500;

/// What was seen of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sighting {
    /// Something named it at this time.
    Known(Instant),
    /// Nothing has named it since.
    Unknown(Instant),
}

/// Finds forgotten volumes and deletes them.
pub struct Forgotten {
    client: Client,
    volumes: Volumes,
    driver: String,
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
    pub fn new(client: Client, backend: &KubernetesBackend, driver: &str) -> Self {
        Self {
            client,
            volumes: backend.parts().clone(),
            driver: driver.to_owned(),
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
            .filter(|object| may_be_forgotten(object))
            .collect();
        self.sightings
            .retain(|id, _| candidates.iter().any(|object| object.name_any() == *id));
        for object in candidates {
            self.consider(&object, now).await?;
        }
        Ok(())
    }

    async fn consider(&mut self, object: &LocalVolume, now: Instant) -> Result<(), Failure> {
        let id = object.name_any();
        let last = self.sightings.get(&id).copied();
        if let Some(Sighting::Known(at)) = last
            && now.saturating_duration_since(at) < KNOWN
        {
            return Ok(());
        }
        if self.is_named(object).await? {
            self.sightings.insert(id, Sighting::Known(now));
            return Ok(());
        }
        let since = match last {
            Some(Sighting::Unknown(since)) => since,
            Some(Sighting::Known(_)) | None => now,
        };
        self.sightings.insert(id.clone(), Sighting::Unknown(since));
        if now.saturating_duration_since(since) < GRACE || self.is_named_anywhere(&id).await? {
            return Ok(());
        }
        tracing::warn!(
            volume_id = id,
            node = object.spec.node_name,
            "deleting a volume that was never used and that neither a claim nor a PersistentVolume has named for 10 minutes"
        );
        let deadline = Deadline::begin(self.volumes.patience);
        withdraw(&self.volumes.volumes, object.clone(), deadline).await?;
        Ok(())
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
            return Ok(true);
        }
        let Some(claim) = &object.spec.claim else {
            return self.is_named_anywhere(&id).await;
        };
        let claims: Api<PersistentVolumeClaim> =
            Api::namespaced(self.client.clone(), &claim.namespace);
        let doing = format!("look for claim {}/{}", claim.namespace, claim.name);
        let found = within(&doing, claims.get_metadata_opt(&claim.name)).await?;
        Ok(found.is_some_and(|found| found.uid().as_deref() == claim_uid(&id)))
    }

    /// The proof: all PersistentVolumes, all claims.
    async fn is_named_anywhere(&self, id: &str) -> Result<bool, Failure> {
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let mut parameters = ListParams::default().limit(PAGE);
        loop {
            let page = within("list PersistentVolumes", volumes.list(&parameters)).await?;
            if page
                .items
                .iter()
                .any(|volume| names(volume, &self.driver, id))
            {
                return Ok(true);
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
            if page
                .items
                .iter()
                .any(|claim| claim.uid().as_deref() == claim_uid(id))
            {
                return Ok(true);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters.continue_token = Some(token),
                None => return Ok(false),
            }
        }
    }
}

fn names(volume: &PersistentVolume, driver: &str, id: &str) -> bool {
    let csi = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    volume.name_any() == id
        || csi.is_some_and(|csi| csi.driver == driver && csi.volume_handle == id)
}

/// The uid of the claim that a volume of this id was made for, if external-provisioner named it.
fn claim_uid(id: &str) -> Option<&str> {
    id.strip_prefix("pvc-")
}

/// Whether the object itself allows it: a volume of a claim, without a source, of which the node's newest report says that it was
/// never staged, or that was never made.
fn may_be_forgotten(object: &LocalVolume) -> bool {
    if claim_uid(&object.name_any()).is_none()
        || object.spec.delete
        || object.spec.source.is_some()
        || object.metadata.deletion_timestamp.is_some()
    {
        return false;
    }
    let Some(status) = &object.status else {
        return !object.was_made();
    };
    if status.ever_staged || status.published || status.source.is_some() {
        return false;
    }
    match object.stage() {
        Stage::Ready => object.is_observed() && status.size_bytes.is_some(),
        Stage::Pending => !object.was_made(),
        Stage::Failed | Stage::DataMissing | Stage::Deleting | Stage::Deleted => false,
    }
}

#[cfg(test)]
mod tests {
    use api::LocalVolume;
    use serde_json::{Value, json};

    use super::may_be_forgotten;

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

    #[test]
    fn a_volume_that_was_made_and_never_staged_may_be() {
        assert!(may_be_forgotten(&object(|_| {})));
    }

    #[test]
    fn one_that_was_never_made_may_be() {
        assert!(may_be_forgotten(&object(
            |object| object["status"] = Value::Null
        )));
    }

    #[test]
    fn anything_that_may_hold_something_may_not() {
        type Change = fn(&mut Value);
        let changes: [(&str, Change); 11] = [
            ("staged", |o| o["status"]["everStaged"] = json!(true)),
            ("published", |o| o["status"]["published"] = json!(true)),
            ("restored", |o| {
                o["spec"]["source"] = json!({"snapshot": "s"});
            }),
            ("restored, says its record", |o| {
                o["status"]["source"] = json!({"snapshot": "s"});
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
            assert!(!may_be_forgotten(&object(change)), "{what}");
        }
    }
}
