//! What LocalVolume and LocalSnapshot have in common: a node does what `spec` asks for and says so in `status`.

use std::fmt::Debug;

use api::{
    AGENT_FINALIZER, CREATED_ANNOTATION, LocalSnapshot, LocalVolume, READY_CONDITION,
    SnapshotState, VolumeState,
};
use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Where an object is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing was made yet.
    Pending,
    /// It exists and can be used.
    Ready,
    /// It exists and cannot be used.
    Failed,
    /// It existed, and its data is not there.
    DataMissing,
    /// Its data is being removed.
    Deleting,
    /// Its data was removed.
    Deleted,
}

/// An object that one node serves.
pub(crate) trait Managed:
    Resource<DynamicType = (), Scope = ClusterResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
    /// What people call it, in messages.
    const WORD: &'static str;

    /// The node whose agent serves it.
    fn node(&self) -> &str;
    /// Whether its data is to be removed.
    fn delete(&self) -> bool;
    /// Where it is in its life.
    fn stage(&self) -> Stage;
    /// Why what `spec` asks for failed last.
    fn failure(&self) -> Option<&api::Failure>;
    /// The generation that the status is about.
    fn observed_generation(&self) -> i64;
    /// The conditions of the status.
    fn conditions(&self) -> &[Condition];
    /// How far a long copy is.
    fn progress(&self) -> Option<i32>;

    /// Whether the agent has taken it on, so that there may be data.
    fn taken_on(&self) -> bool {
        self.finalizers().iter().any(|one| one == AGENT_FINALIZER)
            || self.annotations().contains_key(CREATED_ANNOTATION)
    }

    /// Whether data was made for it, which may be lost by now.
    fn was_made(&self) -> bool {
        self.annotations().contains_key(CREATED_ANNOTATION)
            || !matches!(self.stage(), Stage::Pending | Stage::Deleted)
    }

    /// Whether the status is about the newest `spec`.
    fn is_observed(&self) -> bool {
        self.meta()
            .generation
            .is_none_or(|generation| self.observed_generation() >= generation)
    }

    /// What the condition says that keeps it from being used.
    fn problem(&self) -> String {
        let ready = self
            .conditions()
            .iter()
            .find(|condition| condition.type_ == READY_CONDITION && condition.status != "True");
        match (ready, self.failure()) {
            (Some(condition), _) if !condition.message.is_empty() => condition.message.clone(),
            (_, Some(failure)) => failure.message.clone(),
            _ => "its agent gives no reason".to_owned(),
        }
    }
}

impl Managed for LocalVolume {
    const WORD: &'static str = "volume";

    fn node(&self) -> &str {
        &self.spec.node_name
    }

    fn delete(&self) -> bool {
        self.spec.delete
    }

    fn stage(&self) -> Stage {
        match self.status.as_ref().map(|status| status.state) {
            None | Some(VolumeState::Pending) => Stage::Pending,
            Some(VolumeState::Ready) => Stage::Ready,
            Some(VolumeState::Failed) => Stage::Failed,
            Some(VolumeState::DataMissing) => Stage::DataMissing,
            Some(VolumeState::Deleting) => Stage::Deleting,
            Some(VolumeState::Deleted) => Stage::Deleted,
        }
    }

    fn failure(&self) -> Option<&api::Failure> {
        self.status.as_ref()?.failure.as_ref()
    }

    fn observed_generation(&self) -> i64 {
        self.status
            .as_ref()
            .map_or(0, |status| status.observed_generation)
    }

    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map_or(&[], |status| status.conditions.as_slice())
    }

    fn progress(&self) -> Option<i32> {
        self.status.as_ref()?.progress
    }
}

impl Managed for LocalSnapshot {
    const WORD: &'static str = "snapshot";

    fn node(&self) -> &str {
        &self.spec.node_name
    }

    fn delete(&self) -> bool {
        self.spec.delete
    }

    fn stage(&self) -> Stage {
        match self.status.as_ref().map(|status| status.state) {
            None | Some(SnapshotState::Pending) => Stage::Pending,
            Some(SnapshotState::Ready) => Stage::Ready,
            Some(SnapshotState::Failed) => Stage::Failed,
            Some(SnapshotState::DataMissing) => Stage::DataMissing,
            Some(SnapshotState::Deleting) => Stage::Deleting,
            Some(SnapshotState::Deleted) => Stage::Deleted,
        }
    }

    fn failure(&self) -> Option<&api::Failure> {
        self.status.as_ref()?.failure.as_ref()
    }

    fn observed_generation(&self) -> i64 {
        self.status
            .as_ref()
            .map_or(0, |status| status.observed_generation)
    }

    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map_or(&[], |status| status.conditions.as_slice())
    }

    fn progress(&self) -> Option<i32> {
        self.status.as_ref()?.progress
    }
}
