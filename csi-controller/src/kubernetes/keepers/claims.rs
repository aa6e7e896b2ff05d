//! Whose a volume is: `spec.claim` follows the claim that its PersistentVolume is bound to.
//!
//! CDI makes a volume for a claim of its own (`prime-...`, `tmp-pvc-...`) and gives it to the claim that a person wrote afterwards, by
//! the `claimRef` of the PersistentVolume. Events and columns would go on naming what is gone.
//!
//! All PersistentVolumes of the cluster are watched, and none is kept.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use api::{ClaimReference, LocalVolume};
use futures::StreamExt;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client, ResourceExt};
use proto::errors::Failure;
use serde_json::json;

use super::follow;
use crate::kubernetes::convert::claim_uid;
use crate::kubernetes::volumes::Volumes;

/// How soon a volume is looked at again that has no object yet (it may be adopted), or could not be changed.
const AGAIN: Duration = Duration::from_secs(60);

/// Keeps until dropped.
pub(super) async fn keep(client: &Client, volumes: &Volumes, driver: &str) {
    let api: Api<PersistentVolume> = Api::all(client.clone());
    let mut changes = pin!(follow("PersistentVolume", api, Config::default()));
    // By handle; what could not be written yet.
    let mut left: BTreeMap<String, ClaimReference> = BTreeMap::new();
    let mut ticks = tokio::time::interval(AGAIN);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let due = tokio::select! {
            _ = ticks.tick() => std::mem::take(&mut left),
            change = changes.next() => match change {
                Some(Event::Apply(volume) | Event::InitApply(volume)) => bound(&volume, driver).into_iter().collect(),
                Some(Event::Delete(volume)) => {
                    if let Some((handle, _)) = bound(&volume, driver) {
                        left.remove(&handle);
                    }
                    continue;
                }
                Some(Event::Init | Event::InitDone) => continue,
                None => return,
            },
        };
        for (handle, claim) in due {
            match follow_claim(volumes, &handle, &claim).await {
                Ok(true) => {
                    left.remove(&handle);
                }
                Ok(false) => {
                    left.insert(handle, claim);
                }
                Err(error) => {
                    tracing::warn!(%error, volume_id = handle, "cannot say whose volume it is; trying again");
                    left.insert(handle, claim);
                }
            }
        }
    }
}

/// The handle of a PersistentVolume of this driver, and the claim that it is bound to.
fn bound(volume: &PersistentVolume, driver: &str) -> Option<(String, ClaimReference)> {
    let spec = volume.spec.as_ref()?;
    let csi = spec.csi.as_ref().filter(|csi| csi.driver == driver)?;
    let claim = spec.claim_ref.as_ref()?;
    let claim = ClaimReference {
        namespace: claim.namespace.clone()?,
        name: claim.name.clone()?,
        // Without, it is only promised to that claim.
        uid: Some(claim.uid.clone().filter(|uid| !uid.is_empty())?),
    };
    Some((csi.volume_handle.clone(), claim))
}

/// Whether an object says so already. Without a uid it is the claim that it was made for.
fn says(object: &LocalVolume, claim: &ClaimReference) -> bool {
    object.spec.claim.as_ref().is_some_and(|said| {
        let name = object.name_any();
        let uid = said.uid.as_deref().or(claim_uid(&name));
        (&said.namespace, &said.name, uid) == (&claim.namespace, &claim.name, claim.uid.as_deref())
    })
}

/// Brings `spec.claim` up to date; `false`: not now.
async fn follow_claim(
    volumes: &Volumes,
    handle: &str,
    claim: &ClaimReference,
) -> Result<bool, Failure> {
    let known = volumes.volumes.mirror().get(handle);
    match known {
        None => return Ok(false),
        Some(object) if says(&object, claim) || object.spec.delete => return Ok(true),
        Some(_) => {}
    }
    // By what it is now, not by what a watch knows of it.
    let Some(object) = volumes.volumes.get(handle).await? else {
        return Ok(false);
    };
    if says(&object, claim) {
        return Ok(true);
    }
    let changed = volumes
        .volumes
        .patch(&object, json!({"claim": claim}))
        .await?;
    Ok(changed.is_some())
}

#[cfg(test)]
mod tests {
    use api::{ClaimReference, LocalVolume};
    use k8s_openapi::api::core::v1::PersistentVolume;
    use serde_json::{Value, json};

    use super::{bound, says};

    fn claim(name: &str, uid: Option<&str>) -> ClaimReference {
        ClaimReference {
            namespace: "n".to_owned(),
            name: name.to_owned(),
            uid: uid.map(str::to_owned),
        }
    }

    fn volume(claim: &Value) -> LocalVolume {
        serde_json::from_value(json!({
            "apiVersion": "vd.csi.io/v1alpha1", "kind": "LocalVolume", "metadata": {"name": "pvc-1"},
            "spec": {
                "nodeName": "n", "name": "x", "requestedBytes": 1, "sizeBytes": 1_048_576, "volumeMode": "Block", "claim": claim,
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_volume_of_this_driver_that_is_bound_has_a_claim() {
        let of = |driver: &str, claim: Value| -> Option<(String, ClaimReference)> {
            let volume: PersistentVolume = serde_json::from_value(json!({
                "metadata": {"name": "v"},
                "spec": {"csi": {"driver": driver, "volumeHandle": "pvc-1"}, "claimRef": claim},
            }))
            .unwrap();
            bound(&volume, "vd.csi.io")
        };
        let reference = json!({"namespace": "n", "name": "c", "uid": "1"});
        let found = of("vd.csi.io", reference.clone());
        assert_eq!(found, Some(("pvc-1".to_owned(), claim("c", Some("1")))));
        assert_eq!(of("other", reference), None);
        assert_eq!(of("vd.csi.io", Value::Null), None);
        let promised = json!({"namespace": "n", "name": "c"});
        assert_eq!(of("vd.csi.io", promised), None);
    }

    #[test]
    fn what_is_said_already_is_not_written_again() {
        let first = json!({"namespace": "n", "name": "c"});
        assert!(says(&volume(&first), &claim("c", Some("1"))));
        assert!(!says(&volume(&first), &claim("c", Some("2"))));
        assert!(!says(&volume(&first), &claim("d", Some("1"))));
        let later = json!({"namespace": "n", "name": "d", "uid": "2"});
        assert!(says(&volume(&later), &claim("d", Some("2"))));
        assert!(!says(&volume(&Value::Null), &claim("c", Some("1"))));
    }
}
