//! VolumeSnapshotClass: which driver, and how.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::ClusterResourceScope;
use serde::Deserialize;

use super::{DeletionPolicy, Meta, lenient};
use crate::names::IS_DEFAULT_CLASS;

/// A class. It has no `spec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSnapshotClass {
    /// Its name and annotations.
    pub metadata: ObjectMeta,
    /// The CSI driver.
    #[serde(default, deserialize_with = "lenient")]
    pub driver: String,
    /// What becomes of the driver's snapshots.
    #[serde(default, deserialize_with = "lenient")]
    pub deletion_policy: DeletionPolicy,
    /// For the driver; those under `csi.storage.k8s.io/` are for the controller.
    #[serde(default, deserialize_with = "lenient")]
    pub parameters: Option<BTreeMap<String, String>>,
}

resource!(
    VolumeSnapshotClass,
    ClusterResourceScope,
    "volumesnapshotclasses"
);

impl VolumeSnapshotClass {
    /// Whether it is for snapshots that name no class.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.annotation(IS_DEFAULT_CLASS) == Some("true")
    }
}
