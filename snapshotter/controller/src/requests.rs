//! Writing to the API server. Every change says which state it is about, by uid and version: if that is not the newest any more,
//! nothing is written, and the newest is what the next decision is made from.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Request;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::objects::{Meta, key_of};
use crate::store::{Change, Store};

/// How long one request to the API server may take.
const REQUEST: Duration = Duration::from_secs(15);
/// Who writes, in the objects' managed fields.
const FIELD_MANAGER: &str = "snapshotter";

/// Why a request did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The object is not as it was seen any more.
    Changed,
    /// The API server says no, and why.
    Refused(String),
    /// It cannot be done now.
    Failed(String),
}

impl Failure {
    /// Why, in words.
    pub(crate) fn message(self) -> String {
        match self {
            Self::Changed => "somebody else has changed it".to_owned(),
            Self::Refused(message) | Self::Failed(message) => message,
        }
    }
}

/// Where objects of a kind are written, and who has to hear of it.
pub(crate) struct Place<'a, K, T> {
    pub(crate) api: Api<K>,
    pub(crate) store: &'a Store<K>,
    /// Told what has changed, and whether somebody else has changed it.
    pub(crate) tell: T,
}

/// What a change is made to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Object,
    Status,
}

/// A kind that is written here.
pub(crate) trait Kind:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}
impl<K> Kind for K where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

impl<K: Kind, T: Fn(&Change<K>, bool)> Place<'_, K, T> {
    /// Changes fields of an object, and gives it as it is then.
    pub(crate) async fn change(
        &self,
        seen: &K,
        part: Part,
        mut change: Value,
    ) -> Result<Option<Arc<K>>, Failure> {
        change["metadata"]["uid"] = Meta::uid(seen).into();
        change["metadata"]["resourceVersion"] = json!(seen.meta().resource_version);
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let (api, name) = (&self.api, Meta::name(seen));
        let patch = Patch::Merge(&change);
        let doing = || format!("change {} {}", K::kind(&()), key_of(seen));
        let written = match part {
            Part::Object => within(doing, api.patch(name, &parameters, &patch)).await,
            Part::Status => within(doing, api.patch_status(name, &parameters, &patch)).await,
        };
        match written {
            Ok(object) => Ok(self.took(self.store.wrote(object), false)),
            Err(answer) => Err(self.after(answer, seen).await),
        }
    }

    /// Deletes exactly this object. It may stay until its finalizers are off.
    pub(crate) async fn delete(&self, seen: &K) -> Result<(), Failure> {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(Meta::uid(seen).to_owned()),
                resource_version: seen.meta().resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        let doing = || format!("delete {} {}", K::kind(&()), key_of(seen));
        let deleted = within(doing, self.api.delete(Meta::name(seen), &parameters)).await;
        let change = match deleted {
            Ok(answer) => match answer.left() {
                Some(object) => self.store.wrote(object),
                None => self.store.lost(&key_of(seen), Meta::uid(seen)),
            },
            Err(answer) => return Err(self.after(answer, seen).await),
        };
        self.took(change, false);
        Ok(())
    }

    /// Makes the object of this name; one that is there already is as good.
    pub(crate) async fn create(&self, name: &str, object: &Value) -> Result<(), Failure> {
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let doing = || format!("create {} {name}", K::kind(&()));
        let request = Request::new(self.api.resource_url())
            .create(&parameters, object.to_string().into_bytes())
            .map_err(|error| Failure::Failed(error.to_string()))?;
        let client = self.api.clone().into_client();
        match within(doing, client.request(request)).await {
            Ok(made) => {
                self.took(self.store.wrote(made), false);
                Ok(())
            }
            Err(Answer::Conflict) => match read(&self.api, name).await? {
                Some(found) => {
                    self.took(self.store.wrote(found), true);
                    Ok(())
                }
                None => Err(Failure::Changed),
            },
            Err(Answer::Gone) => Err(Failure::Refused(format!("{}: not found", doing()))),
            Err(Answer::Not(failure)) => Err(failure),
        }
    }

    /// After a write that did not succeed: brings the store up to date, so that the next decision is a new one. What others have
    /// changed has to be told as a watch would: it will be nothing new when the watch brings it.
    async fn after(&self, answer: Answer, seen: &K) -> Failure {
        let found = match answer {
            Answer::Not(failure) => return failure,
            Answer::Gone => None,
            Answer::Conflict => match read(&self.api, Meta::name(seen)).await {
                Ok(found) => found,
                Err(failure) => return failure,
            },
        };
        let change = match found {
            Some(found) => self.store.wrote(found),
            None => self.store.lost(&key_of(seen), Meta::uid(seen)),
        };
        self.took(change, true);
        Failure::Changed
    }

    fn took(&self, change: Option<Change<K>>, foreign: bool) -> Option<Arc<K>> {
        let change = change?;
        (self.tell)(&change, foreign);
        change.new
    }
}

/// An object as it is now.
pub(crate) async fn read<K>(api: &Api<K>, name: &str) -> Result<Option<K>, Failure>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let doing = || format!("read {} {name}", K::kind(&()));
    match within(doing, api.get_opt(name)).await {
        Ok(found) => Ok(found),
        Err(Answer::Gone) => Ok(None),
        Err(Answer::Conflict) => Err(Failure::Failed(format!("{}: conflict", doing()))),
        Err(Answer::Not(failure)) => Err(failure),
    }
}

/// What the API server made of a request.
enum Answer {
    Conflict,
    Gone,
    Not(Failure),
}

async fn within<T>(
    doing: impl Fn() -> String,
    work: impl Future<Output = kube::Result<T>>,
) -> Result<T, Answer> {
    match tokio::time::timeout(REQUEST, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_already_exists() => {
            Err(Answer::Conflict)
        }
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() => Err(Answer::Gone),
        Ok(Err(kube::Error::Api(status))) => {
            let message = format!("{}: {}", doing(), status.message);
            Err(Answer::Not(Failure::Refused(message)))
        }
        Ok(Err(error)) => {
            let message = format!("{}: {error}", doing());
            Err(Answer::Not(Failure::Failed(message)))
        }
        Err(_elapsed) => {
            let limit = REQUEST.as_secs();
            let message = format!("{}: no answer within {limit} s", doing());
            Err(Answer::Not(Failure::Failed(message)))
        }
    }
}
