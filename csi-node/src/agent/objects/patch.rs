//! What the agent changes of an object: its finalizer, one annotation, and status. Each names the object's uid, so that
//! nothing is ever written to another object that has taken its name.

use std::time::Duration;

use api::{AGENT_FINALIZER, CREATED_ANNOTATION};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::managed::Managed;

/// How long the API server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why an object could not be read or written.
#[derive(Debug)]
pub(crate) enum Error {
    /// The API server's answer, or none.
    Api(kube::Error),
    /// It did not answer in time.
    Timeout,
    /// A status that is no JSON; a fault of ours.
    Status(serde_json::Error),
    /// The object is gone, or is another one of its name.
    Gone,
}

impl std::fmt::Display for Error {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Api(error) => write!(out, "the API server: {error}"),
            Self::Timeout => out.write_str("the API server does not answer"),
            Self::Status(error) => write!(out, "a status cannot be written: {error}"),
            Self::Gone => out.write_str("the object is gone"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    fn code(&self) -> Option<u16> {
        match self {
            Self::Api(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// The object is gone.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Gone) || self.code() == Some(404)
    }

    /// The object has changed meanwhile: look again. (422 is no such answer, though a patch whose test fails hears it too: it is
    /// what admission policies and the definition of the object refuse with.)
    pub(crate) fn is_stale(&self) -> bool {
        self.code() == Some(409)
    }

    /// The API server will not have it, however often it is asked: somebody has to change something first.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.code(), Some(400 | 403 | 422))
    }
}

/// An answer of the API server, with an end to waiting for it.
pub(crate) async fn answer<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(answered) => answered.map_err(Error::Api),
        Err(_elapsed) => Err(Error::Timeout),
    }
}

/// The object as it is now.
pub(super) async fn get<K: Managed>(api: &Api<K>, object: &K) -> Result<K, Error> {
    let found = answer(api.get(&object.name_any())).await?;
    if found.uid() == object.uid() {
        Ok(found)
    } else {
        Err(Error::Gone)
    }
}

/// Sets our finalizer.
pub(super) async fn hold<K: Managed>(api: &Api<K>, object: &K) -> Result<K, Error> {
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(AGENT_FINALIZER.to_owned());
    finalize(api, object, &finalizers).await
}

/// Takes our finalizer away.
pub(super) async fn release<K: Managed>(api: &Api<K>, object: &K) -> Result<K, Error> {
    let mut finalizers = object.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != AGENT_FINALIZER);
    finalize(api, object, &finalizers).await
}

/// The list is written whole, so only if the object is as it was read.
async fn finalize<K: Managed>(api: &Api<K>, object: &K, finalizers: &[String]) -> Result<K, Error> {
    let meta = object.meta();
    let change = json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "finalizers": finalizers,
    }});
    merge(api, object, &change).await
}

/// Annotates that the object's data exists in the pool `uuid`.
pub(super) async fn mark_made<K: Managed>(
    api: &Api<K>,
    object: &K,
    uuid: &str,
) -> Result<K, Error> {
    let change = json!({"metadata": {
        "uid": object.meta().uid,
        "annotations": {CREATED_ANNOTATION: uuid},
    }});
    merge(api, object, &change).await
}

async fn merge<K: Managed>(api: &Api<K>, object: &K, change: &Value) -> Result<K, Error> {
    let name = object.name_any();
    let parameters = PatchParams::default();
    answer(api.patch(&name, &parameters, &Patch::Merge(change))).await
}

/// Replaces the whole status, unless it is the same.
pub(super) async fn status<K: Managed>(api: &Api<K>, before: &K, after: K) -> Result<K, Error> {
    let status = after.status_value().map_err(Error::Status)?;
    if before.status_value().map_err(Error::Status)? == status {
        return Ok(after);
    }
    replace_status(api, before, &status).await
}

/// Replaces the status of the very object that was read.
pub(crate) async fn replace_status<K>(api: &Api<K>, object: &K, status: &Value) -> Result<K, Error>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let change = json!([
        {"op": "test", "path": "/metadata/uid", "value": object.meta().uid},
        {"op": "add", "path": "/status", "value": status},
    ]);
    let change = serde_json::from_value(change).map_err(Error::Status)?;
    let name = object.name_any();
    let parameters = PatchParams::default();
    answer(api.patch_status(&name, &parameters, &Patch::<()>::Json(change))).await
}
