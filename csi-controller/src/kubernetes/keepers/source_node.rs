//! On which node the content is that a claim is to be filled with.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{Api, ResourceExt};
use proto::errors::Failure;

use super::foreign::{VolumeCloneSource, VolumeSnapshot, VolumeSnapshotContent};
use crate::kubernetes::objects::within;
use crate::kubernetes::volumes::Volumes;

/// CDI's annotation for a source in another namespace.
const SOURCE_NAMESPACE: &str = "cdi.kubevirt.io/dataSourceNamespace";

/// What a claim is to be filled from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    Snapshot { namespace: String, name: String },
    Claim { namespace: String, name: String },
    CloneSource { namespace: String, name: String },
}

/// What was found of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is on this node.
    On(String),
    /// It is not there, or not complete, yet.
    NotYet,
    /// It is not of this driver.
    Foreign,
}

/// The source that a claim names, if it is of a kind that can be this driver's.
pub(super) fn reference(claim: &PersistentVolumeClaim) -> Option<Reference> {
    let own = claim.namespace()?;
    let spec = claim.spec.as_ref()?;
    let (group, kind, name, namespace) = match (&spec.data_source_ref, &spec.data_source) {
        (Some(source), _) => (
            source.api_group.as_deref(),
            source.kind.as_str(),
            source.name.clone(),
            source.namespace.clone(),
        ),
        (None, Some(source)) => (
            source.api_group.as_deref(),
            source.kind.as_str(),
            source.name.clone(),
            None,
        ),
        (None, None) => return None,
    };
    match (group.unwrap_or_default(), kind) {
        ("snapshot.storage.k8s.io", "VolumeSnapshot") => Some(Reference::Snapshot {
            namespace: namespace.unwrap_or(own),
            name,
        }),
        ("", "PersistentVolumeClaim") => Some(Reference::Claim {
            namespace: namespace.unwrap_or(own),
            name,
        }),
        ("cdi.kubevirt.io", "VolumeCloneSource") => {
            let told = claim.annotations().get(SOURCE_NAMESPACE).cloned();
            Some(Reference::CloneSource {
                namespace: namespace.or(told).unwrap_or(own),
                name,
            })
        }
        _ => None,
    }
}

/// Finds the node.
pub(super) async fn find(
    volumes: &Volumes,
    driver: &str,
    reference: &Reference,
) -> Result<Found, Failure> {
    match reference {
        Reference::Snapshot { namespace, name } => {
            of_snapshot(volumes, driver, namespace, name).await
        }
        Reference::Claim { namespace, name } => of_claim(volumes, driver, namespace, name).await,
        Reference::CloneSource { namespace, name } => {
            let api: Api<VolumeCloneSource> = Api::namespaced(volumes.client.clone(), namespace);
            let doing = format!("read VolumeCloneSource {namespace}/{name}");
            let Some(found) = within(&doing, api.get_opt(name)).await? else {
                return Ok(Found::NotYet);
            };
            let source = &found.spec.source;
            match source.kind.as_str() {
                "VolumeSnapshot" => of_snapshot(volumes, driver, namespace, &source.name).await,
                "PersistentVolumeClaim" => of_claim(volumes, driver, namespace, &source.name).await,
                _ => Ok(Found::Foreign),
            }
        }
    }
}

async fn of_snapshot(
    volumes: &Volumes,
    driver: &str,
    namespace: &str,
    name: &str,
) -> Result<Found, Failure> {
    let api: Api<VolumeSnapshot> = Api::namespaced(volumes.client.clone(), namespace);
    let doing = format!("read VolumeSnapshot {namespace}/{name}");
    let found = within(&doing, api.get_opt(name)).await?;
    let bound = found
        .and_then(|found| found.status)
        .and_then(|status| status.bound_volume_snapshot_content_name);
    let Some(bound) = bound else {
        return Ok(Found::NotYet);
    };
    let api: Api<VolumeSnapshotContent> = Api::all(volumes.client.clone());
    let doing = format!("read VolumeSnapshotContent {bound}");
    let Some(content) = within(&doing, api.get_opt(&bound)).await? else {
        return Ok(Found::NotYet);
    };
    if content.spec.driver != driver {
        return Ok(Found::Foreign);
    }
    let Some(id) = content.handle(driver) else {
        return Ok(Found::NotYet);
    };
    let snapshot = volumes.snapshots.get(id).await?;
    Ok(snapshot.map_or(Found::NotYet, |snapshot| Found::On(snapshot.spec.node_name)))
}

async fn of_claim(
    volumes: &Volumes,
    driver: &str,
    namespace: &str,
    name: &str,
) -> Result<Found, Failure> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(volumes.client.clone(), namespace);
    let doing = format!("read claim {namespace}/{name}");
    let found = within(&doing, api.get_opt(name)).await?;
    let bound = found.and_then(|claim| claim.spec?.volume_name);
    let Some(bound) = bound.filter(|bound| !bound.is_empty()) else {
        return Ok(Found::NotYet);
    };
    let api: Api<PersistentVolume> = Api::all(volumes.client.clone());
    let doing = format!("read PersistentVolume {bound}");
    let Some(volume) = within(&doing, api.get_opt(&bound)).await? else {
        return Ok(Found::NotYet);
    };
    let Some(csi) = volume.spec.and_then(|spec| spec.csi) else {
        return Ok(Found::Foreign);
    };
    if csi.driver != driver {
        return Ok(Found::Foreign);
    }
    let volume = volumes.volumes.get(&csi.volume_handle).await?;
    Ok(volume.map_or(Found::NotYet, |volume| Found::On(volume.spec.node_name)))
}
