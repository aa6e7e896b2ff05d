//! Which objects are looked at, and when: each when it changes, when it was published or unpublished, when the pool comes or
//! goes, and now and then.

use std::future::{Ready, ready};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::controller::{Action, Error as ControllerError, ReconcileRequest};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{Config, WatchStreamExt as _, applier, watcher};

use super::managed::Managed;
use super::patch::Error;
use super::reconcile::reconcile;
use super::setbacks::Setbacks;
use crate::agent::Agent;

/// How long events are gathered before an object is looked at: our own changes come back as events, a few at once.
const DEBOUNCE: Duration = Duration::from_millis(5);
/// How soon an object is looked at again after somebody else changed it at the same time.
const STALE: Duration = Duration::from_millis(100);
/// How many objects are worked on at once. Operations on data have bounds of their own.
const AT_ONCE: u16 = 64;

/// This node's objects of one kind, as far as they are known.
pub(crate) type Objects<K> = Store<K>;

/// Reconciles all objects of one kind until it is dropped. `writer` belongs to the store that others read; `extra` names
/// objects to look at besides those that changed.
pub(crate) async fn run<K: Managed + Unpin>(
    agent: Arc<Agent>,
    writer: reflector::store::Writer<K>,
    extra: impl Stream<Item = String> + Send + 'static,
) {
    let objects = writer.as_reader();
    let listed = objects.clone();
    let mine = watcher::Config::default().fields(&format!("spec.nodeName={}", agent.node.name()));
    let changed = Arc::clone(&agent);
    let forgetful = Arc::clone(&agent);
    let seen = api::watching(Api::<K>::all(agent.client.clone()), mine)
        .filter_map(told_once(K::WHAT))
        .map(Ok::<_, watcher::Error>)
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        // Not by waiting for the store to be ready: of several who wait for that, only one is woken.
        .inspect(first_list(Arc::clone(&agent)))
        .inspect(move |event| {
            if let Ok(watcher::Event::Delete(object)) = event {
                forgetful.running.forget(&object.uid().unwrap_or_default());
            }
        })
        .inspect(move |event| {
            // An object that came or went may make or end an orphan.
            if let Ok(
                watcher::Event::Apply(object)
                | watcher::Event::InitApply(object)
                | watcher::Event::Delete(object),
            ) = event
                && object.meta().deletion_timestamp.is_some()
            {
                changed.changed.notify_one();
            }
        })
        .flat_map(move |event| {
            let wanted = match event {
                Ok(event) => to_look_at(&event, &listed).into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(wanted)
        });
    let everything = pool_changes(&agent, objects.clone());
    let extra = extra.map(|name| ObjectRef::<K>::new(&name));
    let others = futures::stream::select(everything, extra).map(Ok);
    let queue =
        futures::stream::select(seen, others).map(|wanted| wanted.map(ReconcileRequest::from));
    let config = Config::default().debounce(DEBOUNCE).concurrency(AT_ONCE);
    let setbacks = Arc::new(Setbacks::default());
    let begin = |object: Arc<K>, agent: Arc<Agent>| {
        let span = tracing::info_span!("reconcile", name = object.name_any());
        let work = looked_at(object, agent, Arc::clone(&setbacks));
        Box::pin(tracing::Instrument::instrument(work, span))
    };
    let retry = |object: Arc<K>, error: &Error, _agent| again(object.as_ref(), error, &setbacks);
    let mut results = std::pin::pin!(applier(begin, retry, agent, objects, queue, config));
    while let Some(result) = results.next().await {
        match result {
            Ok(_) | Err(ControllerError::ReconcilerFailed(..)) => {}
            Err(ControllerError::ObjectNotFound(object)) => setbacks.end(&object.name),
            Err(error) => tracing::error!(%error, what = K::WHAT, "objects cannot be looked at"),
        }
    }
}

/// What to look at after an event that `objects` has taken in. Of a list all of it, once all of it is there: an object that is looked
/// at before is not found, or seen as it was before the list, and nothing would come of its change.
fn to_look_at<K: Managed>(event: &watcher::Event<K>, objects: &Objects<K>) -> Vec<ObjectRef<K>> {
    match event {
        watcher::Event::Apply(object) | watcher::Event::Delete(object) => {
            vec![ObjectRef::from_obj(object)]
        }
        watcher::Event::Init | watcher::Event::InitApply(_) => Vec::new(),
        watcher::Event::InitDone => all(objects).collect(),
    }
}

fn all<K: Managed>(objects: &Objects<K>) -> impl Iterator<Item = ObjectRef<K>> + use<K> {
    let objects = objects.state().into_iter();
    objects.map(|object| ObjectRef::from_obj(object.as_ref()))
}

/// Lets events pass, and tells of the first of many errors.
fn told_once<K>(
    what: &'static str,
) -> impl FnMut(watcher::Result<watcher::Event<K>>) -> Ready<Option<watcher::Event<K>>> {
    let mut failing = false;
    move |event| {
        let event = match event {
            Ok(event) => {
                failing &= !api::is_answer(&event);
                Some(event)
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, what, "the API server cannot be watched; it is tried again");
                }
                None
            }
        };
        ready(event)
    }
}

/// Notes, once, that the first list of objects is whole.
fn first_list<K>(agent: Arc<Agent>) -> impl FnMut(&watcher::Result<watcher::Event<K>>) {
    let mut known = false;
    move |event| {
        if !known && matches!(event, Ok(watcher::Event::InitDone)) {
            known = true;
            agent.synced.fetch_add(1, Ordering::AcqRel);
            agent.changed.notify_one();
        }
    }
}

/// Reconciles an object. What the API server does not do of it is told once, and where people look what it never will.
async fn looked_at<K: Managed>(
    object: Arc<K>,
    agent: Arc<Agent>,
    setbacks: Arc<Setbacks>,
) -> Result<Action, Error> {
    let name = object.name_any();
    let result = reconcile(Arc::clone(&object), Arc::clone(&agent)).await;
    match &result {
        Ok(_) => setbacks.end(&name),
        Err(error) if error.is_stale() => {
            tracing::debug!(name, %error, "changed meanwhile; it is looked at again");
        }
        Err(error) => {
            if setbacks.add(&name, error.to_string()) {
                tracing::warn!(name, what = K::WHAT, %error, "cannot be reconciled now; it is tried again");
                if error.is_refusal() {
                    let note =
                        format!("what csi-node has to write of this object is refused: {error}");
                    let reference = object.object_ref(&());
                    agent.events.object(&reference, "Refused", &note).await;
                }
            }
        }
    }
    result
}

/// What to do after the API server did not do its part.
fn again<K: Managed>(object: &K, error: &Error, setbacks: &Setbacks) -> Action {
    if error.is_stale() {
        return Action::requeue(STALE);
    }
    let name = object.name_any();
    Action::requeue(spread(setbacks.pause(&name), &name))
}

/// Every object, each time when the pool was opened or went away.
fn pool_changes<K: Managed>(
    agent: &Agent,
    objects: Objects<K>,
) -> impl Stream<Item = ObjectRef<K>> + Send + 'static + use<K> {
    let standing = agent.standing.subscribe();
    futures::stream::unfold(standing, |mut standing| async move {
        standing.changed().await.ok()?;
        Some(((), standing))
    })
    .flat_map(move |()| futures::stream::iter(all(&objects)))
}

/// Up to a fifth more than `time`, always the same for one name: so that not all are due in the same instant.
pub(super) fn spread(time: Duration, name: &str) -> Duration {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let part = u32::try_from(hasher.finish() % 200).unwrap_or(0);
    time + time * part / 1000
}

#[cfg(test)]
mod tests {
    use api::LocalVolume;
    use kube::runtime::{reflector, watcher::Event};
    use serde_json::json;

    use super::to_look_at;

    fn object(name: &str) -> LocalVolume {
        serde_json::from_value(json!({
            "apiVersion": "vd.csi.io/v1alpha1", "kind": "LocalVolume", "metadata": {"name": name},
            "spec": {"nodeName": "n", "name": name, "requestedBytes": 1, "sizeBytes": 1, "volumeMode": "Block"},
        }))
        .unwrap()
    }

    #[test]
    fn objects_of_a_list_are_looked_at_once_the_store_has_them_all() {
        let mut writer = reflector::store::Writer::default();
        let objects = writer.as_reader();
        let mut looked_at = |event: Event<LocalVolume>| {
            writer.apply_watcher_event(&event);
            let mut names: Vec<String> = to_look_at(&event, &objects)
                .into_iter()
                .map(|object| object.name)
                .collect();
            names.sort_unstable();
            names.join(" ")
        };
        assert_eq!(looked_at(Event::Init), "");
        assert_eq!(looked_at(Event::InitApply(object("a"))), "");
        assert_eq!(looked_at(Event::InitApply(object("b"))), "");
        assert_eq!(looked_at(Event::InitDone), "a b");
        assert_eq!(looked_at(Event::Apply(object("c"))), "c");
        assert_eq!(looked_at(Event::Delete(object("a"))), "a");
    }
}
