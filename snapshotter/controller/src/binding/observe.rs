//! What a decision about a snapshot is made from.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolume;

use crate::names::content_of;
use crate::objects::{Claim, Meta, VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};

/// A snapshot and all that matters to it.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    /// The driver that is served; objects of others are left alone.
    pub(crate) driver: String,
    pub(crate) now: String,
    pub(crate) snapshot: Arc<VolumeSnapshot>,
    /// The class that the snapshot names.
    pub(crate) class: Option<Arc<VolumeSnapshotClass>>,
    /// The classes for snapshots that name none, of every driver.
    pub(crate) default_classes: Vec<Arc<VolumeSnapshotClass>>,
    /// The content that the snapshot asks to be bound to.
    pub(crate) wanted: Option<Arc<VolumeSnapshotContent>>,
    /// The content of the name that is made for the snapshot.
    pub(crate) own: Option<Arc<VolumeSnapshotContent>>,
    /// The content that the snapshot's status names.
    pub(crate) bound: Option<Arc<VolumeSnapshotContent>>,
    pub(crate) claim: Option<Arc<Claim>>,
    pub(crate) volume: Volume,
    /// Another snapshot of the claim is not ready.
    pub(crate) claim_is_wanted: bool,
    /// A claim that is being made from the snapshot.
    pub(crate) restored_to: Option<String>,
}

/// The PersistentVolume of the claim. It is asked for only when it matters.
#[derive(Clone, Debug)]
pub(crate) enum Volume {
    NotAsked,
    Missing,
    Found(Box<PersistentVolume>),
}

/// Whose a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Us,
    AnotherDriver,
    /// Nothing says so. It may be ours, so its user is told what is missing.
    Unknown,
}

impl Observed {
    /// Whose the snapshot is, as far as is known without its volume.
    pub(crate) fn owner(&self) -> Owner {
        if self.snapshot.is_of_a_group() {
            // Drivers with groups have a controller that knows groups.
            return Owner::AnotherDriver;
        }
        let contents = [&self.wanted, &self.bound, &self.own];
        let content = contents.into_iter().flatten().next();
        let driver = match (content, &self.class) {
            (Some(content), _) => &content.spec.driver,
            (None, Some(class)) => &class.driver,
            (None, None) => return Owner::Unknown,
        };
        if *driver == self.driver {
            Owner::Us
        } else {
            Owner::AnotherDriver
        }
    }

    /// The content of this name, as it was seen.
    pub(crate) fn content(&self, name: &str) -> Option<&VolumeSnapshotContent> {
        let contents = [&self.wanted, &self.bound, &self.own];
        let mut contents = contents.into_iter().flatten().map(Arc::as_ref);
        contents.find(|content| Meta::name(*content) == name)
    }

    /// The name of the content that is made for the snapshot.
    pub(crate) fn own_name(&self) -> String {
        content_of(Meta::uid(self.snapshot.as_ref()))
    }
}
