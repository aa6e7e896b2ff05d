//! VolumeSnapshot: what a user asks for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::NamespaceResourceScope;
use serde::Deserialize;

use super::{Meta, Size, StatusError, filled, lenient};
use crate::names::{BOUND_FINALIZER, GROUP_OF_GROUPS, SOURCE_FINALIZER};

/// A snapshot.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct VolumeSnapshot {
    /// Its name, finalizers and owners.
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default, deserialize_with = "lenient")]
    pub spec: VolumeSnapshotSpec,
    /// What has become of it.
    #[serde(default, deserialize_with = "lenient")]
    pub status: Option<VolumeSnapshotStatus>,
}

resource!(VolumeSnapshot, NamespaceResourceScope, "volumesnapshots");

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSnapshotSpec {
    /// Of what.
    #[serde(default, deserialize_with = "lenient")]
    pub source: SnapshotSource,
    /// With which class; none: the default one of the driver.
    #[serde(default, deserialize_with = "lenient")]
    pub volume_snapshot_class_name: Option<String>,
}

/// Exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotSource {
    /// A claim, of which a snapshot is to be made.
    #[serde(default, deserialize_with = "lenient")]
    pub persistent_volume_claim_name: Option<String>,
    /// A content, whose snapshot somebody else has made.
    #[serde(default, deserialize_with = "lenient")]
    pub volume_snapshot_content_name: Option<String>,
}

/// What has become of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSnapshotStatus {
    /// Its content.
    #[serde(default, deserialize_with = "lenient")]
    pub bound_volume_snapshot_content_name: Option<String>,
    /// The point in time.
    #[serde(default, deserialize_with = "lenient")]
    pub creation_time: Option<String>,
    /// Whether a claim can be made from it.
    #[serde(default, deserialize_with = "lenient")]
    pub ready_to_use: Option<bool>,
    /// How large such a claim has to be at least.
    #[serde(default, deserialize_with = "lenient")]
    pub restore_size: Option<Size>,
    /// What went wrong last.
    #[serde(default, deserialize_with = "lenient")]
    pub error: Option<StatusError>,
    /// The group it was made in.
    #[serde(default, deserialize_with = "lenient")]
    pub volume_group_snapshot_name: Option<String>,
}

impl VolumeSnapshot {
    /// The content that its status names.
    #[must_use]
    pub fn bound_content(&self) -> Option<&str> {
        let status = self.status.as_ref()?;
        filled(status.bound_volume_snapshot_content_name.as_ref())
    }

    /// Whether a claim can be made from it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let status = self.status.as_ref();
        status.is_some_and(|status| status.ready_to_use == Some(true))
    }

    /// Whether the point in time is behind it.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        let status = self.status.as_ref();
        status.is_some_and(|status| status.creation_time.is_some())
    }

    /// The claim it is to be made of.
    #[must_use]
    pub fn claim_name(&self) -> Option<&str> {
        self.spec.source.persistent_volume_claim_name.as_deref()
    }

    /// The content it is to be bound to.
    #[must_use]
    pub fn wanted_content(&self) -> Option<&str> {
        self.spec.source.volume_snapshot_content_name.as_deref()
    }

    /// The class it names.
    #[must_use]
    pub fn class_name(&self) -> Option<&str> {
        self.spec.volume_snapshot_class_name.as_deref()
    }

    /// Whether it is part of a group of snapshots, which others look after.
    #[must_use]
    pub fn is_of_a_group(&self) -> bool {
        let status = self.status.as_ref();
        let named = status.is_some_and(|s| filled(s.volume_group_snapshot_name.as_ref()).is_some());
        let owners = self.metadata.owner_references.iter().flatten();
        let owned = owners.into_iter().any(|owner| {
            owner.kind == "VolumeGroupSnapshot" && owner.api_version.starts_with(GROUP_OF_GROUPS)
        });
        named || owned
    }

    /// Whether it was deleted and waits for this controller.
    #[must_use]
    pub fn waits_for_deletion(&self) -> bool {
        self.is_going()
            && (self.has_finalizer(SOURCE_FINALIZER) || self.has_finalizer(BOUND_FINALIZER))
    }
}
