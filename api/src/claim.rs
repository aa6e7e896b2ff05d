//! Which claim an object was made for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A PersistentVolumeClaim. For people who look at an object, and for events: nothing is decided by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimReference {
    /// The namespace of the claim.
    pub namespace: String,
    /// The name of the claim.
    pub name: String,
    /// The uid of the claim, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}
