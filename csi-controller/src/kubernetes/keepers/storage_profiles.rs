//! CDI's StorageProfile of each of our StorageClasses: CDI knows nothing of this driver, and without it every DataVolume has
//! to name its access mode.
//!
//! Only what no user has set is applied (server-side, under a field manager of our own). CDI makes the profile; should it make
//! it anew, it is filled in again.

use std::collections::BTreeMap;
use std::pin::pin;

use futures::StreamExt;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client, ResourceExt};
use serde_json::{Map, Value, json};

use super::follow;
use super::foreign::StorageProfile;
use crate::kubernetes::mirror::Mirror;
use crate::kubernetes::objects::{FIELD_MANAGER, within};

/// Keeps them until dropped.
pub(super) async fn keep(client: &Client, classes: &Mirror<StorageClass>, driver: &str) {
    let api: Api<StorageProfile> = Api::all(client.clone());
    classes.synced().await;
    let mut events = pin!(follow("StorageProfile", api.clone(), Config::default()));
    // As many as there are classes. Kept, because a profile may be known before its class is.
    let mut profiles: BTreeMap<String, StorageProfile> = BTreeMap::new();
    loop {
        let concerned: Vec<StorageProfile> = tokio::select! {
            event = events.next() => match event {
                Some(Event::Apply(profile) | Event::InitApply(profile)) => {
                    profiles.insert(profile.name_any(), profile.clone());
                    vec![profile]
                }
                Some(Event::Delete(profile)) => {
                    profiles.remove(&profile.name_any());
                    Vec::new()
                }
                Some(Event::Init) => {
                    profiles.clear();
                    Vec::new()
                }
                Some(Event::InitDone) => Vec::new(),
                None => return,
            },
            () = classes.changed() => profiles.values().cloned().collect(),
        };
        for profile in concerned {
            if is_ours(classes, &profile.name_any(), driver)
                && let Err(error) = fill_in(&api, &profile).await
            {
                tracing::warn!(%error, profile = profile.name_any(), "cannot fill in a StorageProfile");
            }
        }
    }
}

fn is_ours(classes: &Mirror<StorageClass>, name: &str, driver: &str) -> bool {
    classes
        .get(name)
        .is_some_and(|class| class.provisioner == driver)
}

async fn fill_in(
    api: &Api<StorageProfile>,
    profile: &StorageProfile,
) -> Result<(), proto::errors::Failure> {
    let name = profile.name_any();
    let Some(spec) = missing(profile) else {
        return Ok(());
    };
    // With its uid: one that was deleted meanwhile would be made anew by this, and belong to nobody. That is a conflict then.
    let metadata = json!({"name": name, "uid": profile.metadata.uid});
    let patch = json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "StorageProfile", "metadata": metadata, "spec": spec,
    });
    // Without force: whoever else sets one of these at this moment wins.
    let parameters = PatchParams::apply(FIELD_MANAGER);
    let doing = format!("fill in StorageProfile {name}");
    let work = async {
        match api.patch(&name, &parameters, &Patch::Apply(&patch)).await {
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(()),
            answer => answer.map(|_profile| ()),
        }
    };
    within(&doing, work).await?;
    tracing::info!(profile = name, "filled in");
    Ok(())
}

/// What is to be applied: every field that is ours or nobody's, if one of them is not as it should be.
fn missing(profile: &StorageProfile) -> Option<Map<String, Value>> {
    let spec = &profile.spec;
    let ours = our_fields(profile);
    let wanted = [
        (
            "claimPropertySets",
            spec.claim_property_sets.as_ref(),
            json!([
                {"accessModes": ["ReadWriteOnce"], "volumeMode": "Block"},
                {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"},
            ]),
        ),
        (
            "cloneStrategy",
            spec.clone_strategy.as_ref(),
            json!("csi-clone"),
        ),
    ];
    let mut apply = Map::new();
    let mut differs = false;
    for (field, is, should) in wanted {
        if is.is_some() && !ours.contains(&field) {
            continue;
        }
        differs |= is != Some(&should);
        apply.insert(field.to_owned(), should);
    }
    differs.then_some(apply)
}

/// The fields of `spec` that were last set by a copy of this program.
fn our_fields(profile: &StorageProfile) -> Vec<&'static str> {
    let managed = profile.metadata.managed_fields.iter().flatten();
    let ours = managed.filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
    let mut fields = Vec::new();
    for entry in ours {
        let spec = entry.fields_v1.as_ref().and_then(|all| all.0.get("f:spec"));
        for (field, key) in [
            ("claimPropertySets", "f:claimPropertySets"),
            ("cloneStrategy", "f:cloneStrategy"),
        ] {
            if spec.is_some_and(|spec| spec.get(key).is_some()) {
                fields.push(field);
            }
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::missing;
    use crate::kubernetes::keepers::foreign::StorageProfile;

    fn profile(spec: &Value, ours: &Value) -> StorageProfile {
        serde_json::from_value(json!({
            "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "StorageProfile", "spec": spec,
            "metadata": {"name": "vd", "managedFields": [
                {"manager": "csi-controller", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": ours}},
            ]},
        }))
        .unwrap()
    }

    fn applied(spec: &Value, ours: &Value) -> Vec<String> {
        let fields = missing(&profile(spec, ours)).unwrap_or_default();
        fields.keys().cloned().collect()
    }

    #[test]
    fn an_empty_profile_is_filled_in() {
        assert_eq!(
            applied(&json!({}), &json!({})),
            ["claimPropertySets", "cloneStrategy"]
        );
    }

    #[test]
    fn what_a_user_has_set_is_left_alone() {
        let copy = json!({"cloneStrategy": "copy"});
        assert_eq!(applied(&copy, &json!({})), ["claimPropertySets"]);
        let both = json!({"cloneStrategy": "copy", "claimPropertySets": []});
        assert_eq!(applied(&both, &json!({})), Vec::<String>::new());
    }

    #[test]
    fn a_field_of_ours_stays_when_another_one_is_filled_in_again() {
        let one = json!({"cloneStrategy": "csi-clone"});
        let ours = json!({"f:cloneStrategy": {}, "f:claimPropertySets": {}});
        assert_eq!(applied(&one, &ours), ["claimPropertySets", "cloneStrategy"]);
    }

    #[test]
    fn what_is_complete_is_not_written_again() {
        let full = missing(&profile(&json!({}), &json!({}))).unwrap();
        let ours = json!({"f:cloneStrategy": {}, "f:claimPropertySets": {}});
        assert_eq!(applied(&Value::Object(full), &ours), Vec::<String>::new());
    }
}
