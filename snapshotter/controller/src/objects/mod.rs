//! The objects of Kubernetes that are read here, as little of each as is needed: what is kept in memory stays small, and a
//! field that nobody reads cannot be malformed.
//!
//! Nothing is ever written back as a whole, so fields that are not here are never lost.

mod claim;
mod class;
mod content;
mod snapshot;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

pub use claim::{Claim, ClaimSpec, ClaimStatus, DataSource};
pub use class::VolumeSnapshotClass;
pub use content::{
    ContentSource, DeletionPolicy, VolumeSnapshotContent, VolumeSnapshotContentSpec,
    VolumeSnapshotContentStatus,
};
pub use snapshot::{SnapshotSource, VolumeSnapshot, VolumeSnapshotSpec, VolumeSnapshotStatus};

/// Why something did not work, in a status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusError {
    /// When it was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What is the same for all kinds.
pub trait Meta: kube::Resource {
    /// The finalizers.
    fn finalizers_now(&self) -> &[String] {
        self.meta().finalizers.as_deref().unwrap_or_default()
    }

    /// Whether it has this finalizer.
    fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers_now().iter().any(|one| one == name)
    }

    /// The value of an annotation.
    fn annotation(&self, name: &str) -> Option<&str> {
        let all = self.meta().annotations.as_ref()?;
        all.get(name).map(String::as_str)
    }

    /// Whether somebody has deleted it.
    fn is_going(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }

    /// Its name.
    fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }

    /// Its namespace; empty for kinds without.
    fn namespace(&self) -> &str {
        self.meta().namespace.as_deref().unwrap_or_default()
    }

    /// Its uid.
    fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }
}

impl<K: kube::Resource> Meta for K {}

/// A key among the objects of one kind: `namespace/name`, or the name alone.
#[must_use]
pub fn key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

/// The key of an object.
pub fn key_of<K: kube::Resource>(object: &K) -> String {
    key(object.namespace(), Meta::name(object))
}

/// Drops what nobody reads: together it is most of an object.
pub(crate) fn slim(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    meta.labels = None;
    meta.generate_name = None;
    meta.self_link = None;
    if let Some(annotations) = meta.annotations.as_mut() {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// Takes an empty text for none: what is required to be there may still be empty.
pub(crate) fn filled(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}
