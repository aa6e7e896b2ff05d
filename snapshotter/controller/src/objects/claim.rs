//! PersistentVolumeClaim, as far as snapshots care.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

use super::key;
use crate::names::GROUP;

/// A claim.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = PersistentVolumeClaim)]
pub struct Claim {
    /// Its name and finalizers.
    pub metadata: ObjectMeta,
    /// What it asks for.
    #[serde(default)]
    pub spec: ClaimSpec,
    /// What it got.
    #[serde(default)]
    pub status: ClaimStatus,
}

/// What a claim asks for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSpec {
    /// What it is to be made from.
    #[serde(default)]
    pub data_source: Option<DataSource>,
    /// Its PersistentVolume.
    #[serde(default)]
    pub volume_name: Option<String>,
}

/// What a claim is to be made from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataSource {
    /// The API group.
    #[serde(default)]
    pub api_group: Option<String>,
    /// The kind.
    #[serde(default)]
    pub kind: String,
    /// The name, in the claim's namespace.
    #[serde(default)]
    pub name: String,
}

/// What a claim got.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ClaimStatus {
    /// `Pending`, `Bound` or `Lost`.
    #[serde(default)]
    pub phase: Option<String>,
}

impl Claim {
    /// Whether it has its volume.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.status.phase.as_deref() == Some("Bound")
    }

    /// The key of the snapshot that a volume is being made from for it.
    #[must_use]
    pub fn waits_for_snapshot(&self) -> Option<String> {
        let source = self.spec.data_source.as_ref()?;
        let is_snapshot =
            source.kind == "VolumeSnapshot" && source.api_group.as_deref() == Some(GROUP);
        let waits = is_snapshot && self.status.phase.as_deref() == Some("Pending");
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        waits.then(|| key(namespace, &source.name))
    }
}
