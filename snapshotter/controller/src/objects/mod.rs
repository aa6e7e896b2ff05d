//! The objects of Kubernetes that are read here, as little of each as is needed: what is kept in memory stays small, and a
//! field that nobody reads cannot be malformed.
//!
//! A field that is malformed all the same is taken for one that is not there. The definitions of snapshots allow more than they
//! should, and may have been others when an object was written; a list is read as a whole, so one object that cannot be read would
//! hide all the others.
//!
//! Nothing is ever written back as a whole, so fields that are not here are never lost.

/// Makes a kind of the group of snapshots. Not derived: that would read `spec` and `status` as strictly as anything.
macro_rules! resource {
    ($kind:ident, $scope:ty, $plural:literal) => {
        impl kube::Resource for $kind {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                stringify!($kind).into()
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                $crate::names::GROUP.into()
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                "v1".into()
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(
                &mut self,
            ) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

mod claim;
mod class;
mod content;
mod snapshot;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

pub use claim::{Claim, ClaimSpec, ClaimStatus, DataSource};
pub use class::VolumeSnapshotClass;
pub use content::{
    ContentSource, DeletionPolicy, VolumeSnapshotContent, VolumeSnapshotContentSpec,
    VolumeSnapshotContentStatus,
};
pub use snapshot::{SnapshotSource, VolumeSnapshot, VolumeSnapshotSpec, VolumeSnapshotStatus};

/// Why something did not work, in a status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct StatusError {
    /// When it was first seen.
    #[serde(default, deserialize_with = "lenient")]
    pub time: Option<String>,
    /// What to do about it.
    #[serde(default, deserialize_with = "lenient")]
    pub message: Option<String>,
}

/// A size in a status, as far as it matters here. Whoever writes one may choose: a number, or a quantity like `10Mi`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Size {
    /// In bytes.
    Number(i64),
    /// A quantity.
    Text(String),
}

impl Size {
    /// Whether it is none.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Number(bytes) => *bytes == 0,
            Self::Text(text) => {
                let number = text.split(|c: char| c.is_ascii_alphabetic()).next();
                !number.is_some_and(|number| number.contains(|c| matches!(c, '1'..='9')))
            }
        }
    }
}

/// What is not as it should be is taken for what is not there.
fn lenient<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let value = Value::deserialize(from)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::{Meta, Size, VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};

    fn snapshot() -> Value {
        json!({
            "metadata": {"namespace": "n", "name": "s", "uid": "1"},
            "spec": {
                "source": {"persistentVolumeClaimName": "c", "volumeSnapshotContentName": "x"},
                "volumeSnapshotClassName": "k",
            },
            "status": {
                "boundVolumeSnapshotContentName": "x", "creationTime": "2026-01-01T00:00:00Z", "readyToUse": true,
                "restoreSize": "1Gi", "error": {"time": "2026-01-01T00:00:00Z", "message": "m"}, "volumeGroupSnapshotName": "g",
            },
        })
    }

    fn content() -> Value {
        json!({
            "metadata": {"name": "x", "uid": "2"},
            "spec": {
                "volumeSnapshotRef": {"namespace": "n", "name": "s", "uid": "1"}, "deletionPolicy": "Delete", "driver": "d",
                "volumeSnapshotClassName": "k", "source": {"volumeHandle": "v", "snapshotHandle": "h"}, "sourceVolumeMode": "Block",
            },
            "status": {
                "snapshotHandle": "h", "creationTime": 1, "restoreSize": 2, "readyToUse": true, "error": {"message": "m"},
                "volumeGroupSnapshotHandle": "g",
            },
        })
    }

    fn class() -> Value {
        json!({"metadata": {"name": "k"}, "driver": "d", "deletionPolicy": "Delete", "parameters": {"a": "b"}})
    }

    /// The object with each of its fields but the metadata's made something else, one at a time.
    fn malformed(object: &Value) -> Vec<Value> {
        fn walk(whole: &Value, path: &str, at: &Value, found: &mut Vec<Value>) {
            let others = [
                json!(null),
                json!(true),
                json!(-1),
                json!(3_000_000_000_u64),
                json!(u64::MAX),
                json!(1.5),
                json!(""),
                json!("what"),
                json!([1]),
                json!({"what": {}}),
            ];
            for (name, field) in at.as_object().into_iter().flatten() {
                let path = format!("{path}/{name}");
                if path == "/metadata" {
                    continue;
                }
                for other in &others {
                    let mut changed = whole.clone();
                    *changed.pointer_mut(&path).unwrap() = other.clone();
                    found.push(changed);
                }
                walk(whole, &path, field, found);
            }
        }
        let mut found = Vec::new();
        walk(object, "", object, &mut found);
        found
    }

    #[test]
    fn an_object_with_a_malformed_field_is_read_all_the_same() {
        fn all_are_read<K: kube::Resource + DeserializeOwned>(object: &Value) {
            let name = object["metadata"]["name"].as_str().unwrap();
            let all = malformed(object);
            assert!(all.len() >= 30);
            for changed in all {
                let read: K = serde_json::from_value(changed.clone())
                    .unwrap_or_else(|error| panic!("{changed}: {error}"));
                assert_eq!(Meta::name(&read), name);
            }
        }
        all_are_read::<VolumeSnapshot>(&snapshot());
        all_are_read::<VolumeSnapshotContent>(&content());
        all_are_read::<VolumeSnapshotClass>(&class());
    }

    #[test]
    fn a_malformed_field_hides_no_other_one() {
        let mut object = content();
        object["status"]["restoreSize"] = json!("ten");
        object["spec"]["source"]["volumeHandle"] = json!(7);
        let read: VolumeSnapshotContent = serde_json::from_value(object).unwrap();
        assert_eq!(read.handle(), Some("h"));
        assert!(read.is_ready());
        assert_eq!(read.spec.source.volume_handle, None);
        assert_eq!(read.spec.source.snapshot_handle.as_deref(), Some("h"));
    }

    #[test]
    fn a_size_is_a_number_or_a_quantity() {
        for (size, zero) in [
            (json!(0), true),
            (json!(3_000_000_000_u64), false),
            (json!("0"), true),
            (json!("0Gi"), true),
            (json!("0.00"), true),
            (json!("0e9"), true),
            (json!("10Mi"), false),
            (json!("0.5Gi"), false),
            (json!("1e3"), false),
        ] {
            let read: Size = serde_json::from_value(size.clone()).unwrap();
            assert_eq!(read.is_zero(), zero, "{size}");
        }
    }
}
