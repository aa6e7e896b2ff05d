//! Which claim an object was made for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A PersistentVolumeClaim. For people who look at an object: a volume can be bound to another claim later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimReference {
    /// The namespace of the claim.
    pub namespace: String,
    /// The name of the claim.
    pub name: String,
}
