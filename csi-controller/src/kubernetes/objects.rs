//! Reading and writing objects of one kind at the API server, safely beside another copy of this process.
//!
//! Reads are of the newest state (quorum). Every write says which state it is about, by uid and version: if that is not the
//! newest any more, nothing is written and the caller looks again.

use std::time::Duration;

use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use proto::errors::Failure;
use serde_json::{Value, json};

use super::failure;
use super::managed::Managed;
use super::mirror::Mirror;
use super::wait::{Deadline, GaveUp, Verdict, wait};

/// How long one request to the API server may take.
pub(crate) const REQUEST: Duration = Duration::from_secs(15);
/// How many objects are asked for at once.
const PAGE: u32 = 500;
/// Who writes, in the objects' managed fields.
pub(crate) const FIELD_MANAGER: &str = "csi-controller";

/// The objects of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Objects<K> {
    api: Api<K>,
    mirror: Mirror<K>,
}

impl<K: Managed> Objects<K> {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            api: Api::all(client),
            mirror: Mirror::default(),
        }
    }

    pub(crate) fn mirror(&self) -> &Mirror<K> {
        &self.mirror
    }

    /// Keeps the mirror. Never ends.
    pub(crate) async fn follow(&self) {
        self.mirror.follow(self.api.clone()).await;
    }

    /// The object of this name as it is now.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<K>, Failure> {
        let doing = format!("read {} {name}", K::WORD);
        let found = within(&doing, self.api.get_opt(name)).await?;
        if let Some(object) = &found {
            self.mirror.wrote(object.clone());
        }
        Ok(found)
    }

    /// Makes an object; `None` if there is one of that name already.
    pub(crate) async fn create(&self, object: &K) -> Result<Option<K>, Failure> {
        let doing = format!("create {} {}", K::WORD, object.name_any());
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        match request(self.api.create(&parameters, object)).await {
            Ok(Ok(made)) => {
                self.mirror.wrote(made.clone());
                Ok(Some(made))
            }
            Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => Ok(None),
            Ok(Err(error)) => Err(failure::of_api(&error, &doing)),
            Err(elapsed) => Err(failure::unreachable(&doing, &elapsed)),
        }
    }

    /// Changes fields of `spec`; `None` if the object is not as it was seen any more.
    pub(crate) async fn patch(&self, seen: &K, spec: Value) -> Result<Option<K>, Failure> {
        self.change(seen, json!({"spec": spec})).await
    }

    /// Takes an annotation off; `None` if the object is not as it was seen any more.
    pub(crate) async fn take_off(&self, seen: &K, annotation: &str) -> Result<Option<K>, Failure> {
        let off = json!({"metadata": {"annotations": {annotation: null}}});
        self.change(seen, off).await
    }

    async fn change(&self, seen: &K, mut patch: Value) -> Result<Option<K>, Failure> {
        let name = seen.name_any();
        let doing = format!("change {} {name}", K::WORD);
        patch["metadata"]["uid"] = json!(seen.meta().uid);
        patch["metadata"]["resourceVersion"] = json!(seen.meta().resource_version);
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        match request(self.api.patch(&name, &parameters, &Patch::Merge(&patch))).await {
            Ok(Ok(now)) => {
                self.mirror.wrote(now.clone());
                Ok(Some(now))
            }
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_not_found() => {
                Ok(None)
            }
            Ok(Err(error)) => Err(failure::of_api(&error, &doing)),
            Err(elapsed) => Err(failure::unreachable(&doing, &elapsed)),
        }
    }

    /// Deletes the object; `false` if it is not as it was seen any more.
    pub(crate) async fn remove(&self, seen: &K) -> Result<bool, Failure> {
        let name = seen.name_any();
        let doing = format!("delete {} {name}", K::WORD);
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: seen.meta().uid.clone(),
                resource_version: seen.meta().resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        match request(self.api.delete(&name, &parameters)).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_not_found() => {
                Ok(false)
            }
            Ok(Err(error)) => Err(failure::of_api(&error, &doing)),
            Err(elapsed) => Err(failure::unreachable(&doing, &elapsed)),
        }
    }

    /// Waits until `judge` settles. Before giving up, the API server is asked once: a watch may be broken while requests work.
    pub(crate) async fn wait<T>(
        &self,
        name: &str,
        deadline: Deadline,
        mut judge: impl FnMut(Option<&K>) -> Verdict<T>,
    ) -> Result<T, GaveUp> {
        let gave_up = match wait(&self.mirror, name, deadline, &mut judge).await {
            Ok(settled) => return Ok(settled),
            Err(gave_up) => gave_up,
        };
        match self.get(name).await.map(|now| judge(now.as_ref())) {
            Ok(Verdict::Settled(settled)) => Ok(settled),
            Ok(Verdict::Working) => Err(GaveUp { working: true }),
            Ok(Verdict::Silent) => Err(GaveUp { working: false }),
            Err(_unreachable) => Err(gave_up),
        }
    }

    /// All objects as they are now, in order of their names, those that match the field selector.
    pub(crate) async fn list(&self, fields: Option<&str>) -> Result<Vec<K>, Failure> {
        let doing = format!("list {}s", K::WORD);
        let mut parameters = ListParams::default().limit(PAGE);
        parameters.field_selector = fields.map(str::to_owned);
        let mut all = Vec::new();
        loop {
            let page = within(&doing, self.api.list(&parameters)).await?;
            all.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters.continue_token = Some(token),
                None => return Ok(all),
            }
        }
    }
}

/// A request, within its time.
pub(crate) async fn within<T>(
    doing: &str,
    work: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Failure> {
    match request(work).await {
        Ok(answer) => answer.map_err(|error| failure::of_api(&error, doing)),
        Err(elapsed) => Err(failure::unreachable(doing, &elapsed)),
    }
}

async fn request<T>(
    work: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Result<T, kube::Error>, String> {
    let limit = REQUEST.as_secs();
    tokio::time::timeout(REQUEST, work)
        .await
        .map_err(|_elapsed| format!("no answer within {limit} s"))
}
