//! What volumes and snapshots have in common for the reconciler.

use std::future::Future;

use api::Failure as LastFailure;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Resource;
use kube::core::ClusterResourceScope;
use proto::errors::Failure;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::plan::{Data, State};
use crate::LocalNode;

/// What was seen of an object's data.
#[derive(Clone, Debug)]
pub(crate) struct Seen<R> {
    /// The data.
    pub(crate) data: Data,
    /// What its record says, if it can be trusted.
    pub(crate) record: Option<R>,
}

/// What an operation found worth telling.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    /// A snapshot was cut: how long writers stood still, in microseconds, and over how many extents.
    pub(crate) cut: Option<(u64, u64)>,
}

/// What status says.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) state: State,
    pub(crate) pool_uuid: Option<String>,
    pub(crate) generation: i64,
    pub(crate) failure: Option<LastFailure>,
    pub(crate) condition: Condition,
    pub(crate) progress: Option<i32>,
}

/// An object whose data is on this node.
pub(crate) trait Managed:
    Resource<DynamicType = (), Scope = ClusterResourceScope>
    + Clone
    + std::fmt::Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
    /// What the pool records of it.
    type Record: Clone + Send + Sync + 'static;
    /// `volume` or `snapshot`.
    const WHAT: &'static str;

    /// Whether its name is an id of ours.
    fn named(&self) -> bool;
    /// `spec.delete`.
    fn wants_deletion(&self) -> bool;
    /// The node in `spec`.
    fn node_name(&self) -> &str;
    /// The state that was reported last.
    fn state(&self) -> State;
    /// Whether what `spec` asks for was done, as far as the last report says.
    fn satisfied(&self) -> bool;
    /// The last failure.
    fn failure(&self) -> Option<&LastFailure>;
    /// The conditions.
    fn conditions(&self) -> &[Condition];
    /// The claim to tell of failures, and its uid.
    fn claim(&self) -> Option<(api::ClaimReference, Option<String>)>;

    /// Looks at the data.
    fn look(&self, node: &LocalNode) -> impl Future<Output = Seen<Self::Record>> + Send;
    /// Makes the data.
    fn make(self, node: LocalNode) -> impl Future<Output = Result<Measured, Failure>> + Send;
    /// Makes the data larger.
    fn grow(self, node: LocalNode) -> impl Future<Output = Result<Measured, Failure>> + Send;
    /// Removes the data.
    fn remove(self, node: LocalNode) -> impl Future<Output = Result<Measured, Failure>> + Send;
    /// What making it is called in metrics: `create_volume`, `restore`, `clone`, `create_snapshot`.
    fn making(&self) -> &'static str;

    /// The status, whole.
    fn status(&self, report: Report, record: Option<&Self::Record>, now: &Time) -> Self;
    /// The status of an object as JSON.
    fn status_value(&self) -> Result<serde_json::Value, serde_json::Error>;
}

/// What an object asks of a size or a counter, where the API has signed numbers.
pub(super) fn unsigned(value: i64, field: &str) -> Result<u64, Failure> {
    u64::try_from(value).map_err(|_negative| {
        Failure::invalid(format!("spec.{field} is {value}: it must not be negative"))
    })
}

/// A size as the API has it.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
