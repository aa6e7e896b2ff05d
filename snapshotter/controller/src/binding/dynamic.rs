//! Snapshots of a claim: their class, their content, and what becomes of it.

use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::{Value, json};

use super::observe::{Observed, Volume};
use super::plan::{Plan, Step, Telling, VolumeTrouble, volume};
use super::status;
use crate::names::{CLAIM_FINALIZER, SECRET_NAME, SECRET_NAMESPACE};
use crate::objects::{Meta, VolumeSnapshotClass, VolumeSnapshotContent};
use crate::parameters::{Words, secret_to_make};

/// The one default class of the volume's driver.
pub(super) fn choose_class(seen: &Observed) -> Plan {
    let wrong =
        |message: String| Plan::trouble_beside(seen, "SetDefaultSnapshotClassFailed", message);
    let volume = match volume(seen) {
        Ok(volume) => volume,
        Err(VolumeTrouble::Ask(name)) => return Plan::step(Step::ReadVolume(name)),
        Err(VolumeTrouble::Wrong(message)) => return wrong(message),
    };
    let Some(csi) = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref()) else {
        return wrong(
            "the claim's volume is not of a CSI driver, so there can be no snapshot of it"
                .to_owned(),
        );
    };
    if csi.driver != seen.driver {
        return Plan::nothing();
    }
    let classes: Vec<_> = seen
        .default_classes
        .iter()
        .filter(|class| class.driver == csi.driver)
        .collect();
    match classes[..] {
        [class] => Plan::step(Step::SetClass(Meta::name(class.as_ref()).to_owned())),
        [] => wrong(format!(
            "the snapshot names no class, and no VolumeSnapshotClass of {} is the default; name one",
            csi.driver
        )),
        _ => wrong(format!(
            "the snapshot names no class, and {} VolumeSnapshotClasses of {} are the default; leave the annotation on one",
            classes.len(),
            csi.driver
        )),
    }
}

/// The content that was made for the snapshot, if nothing is wrong with it.
pub(super) fn content(seen: &Observed) -> Result<Option<&VolumeSnapshotContent>, Box<Plan>> {
    let Some(content) = seen.own.as_deref() else {
        return Ok(None);
    };
    let name = Meta::name(content);
    if content.spec.source.volume_handle.is_none() {
        let message = format!(
            "VolumeSnapshotContent {name} has the name of this snapshot's content but was made by hand; delete it"
        );
        return Err(Box::new(Plan::trouble(
            seen,
            "SnapshotContentMismatch",
            message,
        )));
    }
    if !content.belongs_to(&seen.snapshot) {
        let message = format!("VolumeSnapshotContent {name} belongs to another snapshot");
        return Err(Box::new(Plan::trouble(
            seen,
            "SnapshotContentMisbound",
            message,
        )));
    }
    Ok(Some(content))
}

/// The content is there: the snapshot's status follows it.
pub(super) fn follow(seen: &Observed, content: &VolumeSnapshotContent) -> Plan {
    if content.spec.source.snapshot_handle.is_some() {
        let message = format!(
            "VolumeSnapshotContent {} has a volume and a snapshot as its source; it has to be one",
            Meta::name(content)
        );
        return Plan::trouble(seen, "SnapshotHandleSet", message);
    }
    Plan::steps(status::follow(seen, content))
}

/// There is no content yet.
pub(super) fn begin(seen: &Observed) -> Plan {
    let wrong = |message: String| Plan::trouble(seen, "SnapshotContentCreationFailed", message);
    let name = seen.snapshot.claim_name().unwrap_or_default();
    let Some(claim) = &seen.claim else {
        return wrong(format!(
            "there is no claim {name} in the snapshot's namespace; the snapshot is made once it is there"
        ));
    };
    if !claim.has_finalizer(CLAIM_FINALIZER) {
        if claim.is_going() {
            return wrong(format!(
                "the claim {name} is being deleted; there can be no snapshot of it any more"
            ));
        }
        return Plan::step(Step::ProtectClaim);
    }
    let Some(class) = &seen.class else {
        return wrong("the snapshot has no class".to_owned());
    };
    let volume = match volume(seen) {
        Ok(volume) => volume,
        Err(VolumeTrouble::Ask(name)) => return Plan::step(Step::ReadVolume(name)),
        Err(VolumeTrouble::Wrong(message)) => return wrong(message),
    };
    match new_content(seen, class, volume) {
        Ok(content) => Plan::steps(vec![
            Step::CreateContent(content),
            Step::Tell(Telling {
                warning: false,
                reason: "CreatingSnapshot",
                message: format!("Waiting for {} to make the snapshot", class.driver),
            }),
        ]),
        Err(message) => wrong(message),
    }
}

fn new_content(
    seen: &Observed,
    class: &VolumeSnapshotClass,
    volume: &k8s_openapi::api::core::v1::PersistentVolume,
) -> Result<Value, String> {
    let snapshot = seen.snapshot.as_ref();
    let spec = volume.spec.as_ref();
    let Some(csi) = spec.and_then(|spec| spec.csi.as_ref()) else {
        return Err(
            "the claim's volume is not of a CSI driver, so there can be no snapshot of it"
                .to_owned(),
        );
    };
    let name = seen.own_name();
    let words = Words {
        content: &name,
        snapshot: Some((Meta::namespace(snapshot), Meta::name(snapshot))),
    };
    let mut annotations = json!({});
    if let Some(secret) = secret_to_make(class, words)? {
        annotations[SECRET_NAME] = secret.name.into();
        annotations[SECRET_NAMESPACE] = secret.namespace.into();
    }
    let mut content = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotContent",
        "metadata": {
            "name": name,
            "annotations": annotations,
            // At once, so that it needs no second request.
            "finalizers": [crate::names::CONTENT_FINALIZER],
        },
        "spec": {
            "volumeSnapshotRef": reference(snapshot),
            "source": {"volumeHandle": csi.volume_handle},
            "volumeSnapshotClassName": Meta::name(class),
            "deletionPolicy": class.deletion_policy,
            "driver": class.driver,
        },
    });
    if let Some(mode) = spec.and_then(|spec| spec.volume_mode.as_ref()) {
        content["spec"]["sourceVolumeMode"] = mode.clone().into();
    }
    Ok(content)
}

/// A reference to exactly this snapshot.
pub(super) fn reference(snapshot: &crate::objects::VolumeSnapshot) -> ObjectReference {
    ObjectReference {
        api_version: Some("snapshot.storage.k8s.io/v1".to_owned()),
        kind: Some("VolumeSnapshot".to_owned()),
        namespace: snapshot.metadata.namespace.clone(),
        name: snapshot.metadata.name.clone(),
        uid: snapshot.metadata.uid.clone(),
        resource_version: snapshot.metadata.resource_version.clone(),
        field_path: None,
    }
}

impl Volume {
    /// What an answer of the API server means.
    pub(super) fn answered(found: Option<k8s_openapi::api::core::v1::PersistentVolume>) -> Self {
        found.map_or(Self::Missing, |found| Self::Found(Box::new(found)))
    }
}
