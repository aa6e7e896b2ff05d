//! Why an agent could not do what an object asks for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The last failure of the operation that `spec` asks for. It is gone once the operation succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// What kind of failure, by the name of the driver's error table: `NoSpace`, `Busy`, `InUse`, `NotFound`, `Unavailable`, ...
    pub kind: String,
    /// What is wrong and what to do about it.
    pub message: String,
    /// The `metadata.generation` whose wish failed.
    pub observed_generation: i64,
    /// How often it has failed in a row. Each attempt counts, so that one who waits can tell a new failure from an old one.
    pub attempts: i64,
    /// When it failed last.
    pub time: Time,
}
