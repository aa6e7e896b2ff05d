//! A copy in memory of all objects of one kind, kept by one watch for the whole process.
//!
//! Whoever waits for an object waits on a bell of that object alone. What this process has written itself is put in at once,
//! so that two calls in a row see it; the watch confirms it later.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

/// How often the API server says that nothing has happened, at the latest: the watch is renewed after it.
const WATCH_SECONDS: u32 = 240;

/// How late the answer to a request can come: longer than a request may take.
const LATE: Duration = Duration::from_secs(60);

/// What is known of one kind. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Mirror<K> {
    state: Arc<Mutex<State<K>>>,
    synced: Arc<Notify>,
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct State<K> {
    objects: BTreeMap<String, Entry<K>>,
    bells: HashMap<String, Arc<Notify>>,
    /// The uids of objects that have gone, and when: an answer that was on its way meanwhile must not bring one back.
    gone: HashMap<String, Instant>,
    /// The names that a list in progress has named so far.
    listing: Option<Vec<String>>,
    /// Counts lists, to tell an own write that came after one had begun.
    round: u64,
    synced: bool,
    /// The API server could not be asked when it was tried last.
    broken: bool,
}

#[derive(Debug)]
struct Entry<K> {
    object: Arc<K>,
    /// When it last changed, by our own clock.
    changed: Instant,
    /// An own write that the watch has not confirmed, and the round it came in.
    provisional: Option<u64>,
}

impl<K> Default for Mirror<K> {
    fn default() -> Self {
        let state = State {
            objects: BTreeMap::new(),
            bells: HashMap::new(),
            gone: HashMap::new(),
            listing: None,
            round: 0,
            synced: false,
            broken: false,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            synced: Arc::default(),
            changed: Arc::default(),
        }
    }
}

impl<K> Mirror<K>
where
    K: Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    /// Follows the API server until dropped. Never ends by itself.
    pub(crate) async fn follow(&self, api: Api<K>) {
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let mut events = pin!(::api::watching(api, config).default_backoff());
        let mut failing = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    failing &= !is_answer(&event);
                    self.apply(event);
                }
                Err(error) => {
                    self.state().broken = true;
                    if !std::mem::replace(&mut failing, true) {
                        let kind = K::kind(&());
                        tracing::warn!(%kind, %error, "the watch is broken; trying again");
                    }
                }
            }
        }
    }

    /// Takes in one event of a watch.
    pub(crate) fn apply(&self, event: watcher::Event<K>) {
        let mut state = self.state();
        state.broken &= !is_answer(&event);
        self.changed.notify_one();
        match event {
            watcher::Event::Init => {
                state.round += 1;
                state.listing = Some(Vec::new());
            }
            watcher::Event::InitApply(object) => {
                let name = object.name_any();
                if let Some(listing) = state.listing.as_mut() {
                    listing.push(name);
                }
                state.listed(object);
            }
            watcher::Event::InitDone => {
                state.end_list();
                self.synced.notify_waiters();
            }
            watcher::Event::Apply(object) => state.put(object, None),
            watcher::Event::Delete(object) => state.remove(&object),
        }
    }

    /// Takes in what an own write has answered.
    pub(crate) fn wrote(&self, object: K) {
        let mut state = self.state();
        if object.uid().is_some_and(|uid| state.is_gone(&uid)) {
            return;
        }
        let round = state.round;
        state.put(object, Some(round));
    }

    /// The object of this name as known now.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<K>> {
        let state = self.state();
        state
            .objects
            .get(name)
            .map(|entry| Arc::clone(&entry.object))
    }

    /// All objects, in order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        let state = self.state();
        state
            .objects
            .values()
            .map(|entry| Arc::clone(&entry.object))
            .collect()
    }

    /// All objects, with when each has changed last.
    pub(crate) fn all_with_change(&self) -> Vec<(Arc<K>, Instant)> {
        let state = self.state();
        let entries = state.objects.values();
        entries
            .map(|entry| (Arc::clone(&entry.object), entry.changed))
            .collect()
    }

    /// All objects, with how long ago each has changed.
    pub(crate) fn all_with_age(&self) -> Vec<(Arc<K>, Duration)> {
        let all = self.all_with_change().into_iter();
        all.map(|(object, changed)| (object, changed.elapsed()))
            .collect()
    }

    /// Whether the first list is complete.
    pub(crate) fn is_synced(&self) -> bool {
        self.state().synced
    }

    /// Returns once the first list is complete.
    pub(crate) async fn synced(&self) {
        loop {
            let notified = self.synced.notified();
            if self.is_synced() {
                return;
            }
            notified.await;
        }
    }

    /// The next event since this was last awaited. For one who waits alone.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether what is known is complete and the watch stands.
    pub(crate) fn is_current(&self) -> bool {
        let state = self.state();
        state.synced && !state.broken
    }

    /// Rings whenever the object of this name has changed.
    pub(crate) fn bell(&self, name: &str) -> Bell<K> {
        let bell = Arc::clone(self.state().bells.entry(name.to_owned()).or_default());
        Bell {
            mirror: self.clone(),
            name: name.to_owned(),
            bell,
        }
    }
}

impl<K> Mirror<K> {
    /// Nothing in here panics while it holds the lock; were it so, the state is still a state.
    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Resource<DynamicType = ()>> State<K> {
    /// Takes in what a watch tells or an own write has answered: the newer of the two counts.
    fn put(&mut self, object: K, provisional: Option<u64>) {
        let known = self.objects.get_mut(&object.name_any());
        match known.map(|known| (version(known.object.as_ref()).cmp(&version(&object)), known)) {
            Some((Ordering::Greater, _)) => {}
            Some((Ordering::Equal, known)) => {
                if provisional.is_none() {
                    known.provisional = None;
                }
            }
            Some((Ordering::Less, _)) | None => self.insert(object, provisional),
        }
    }

    /// Takes in what a list names: it is the truth, also if it is older than what was known, as it is after etcd was restored. Only
    /// an own write that came after the list had begun may be newer.
    fn listed(&mut self, object: K) {
        if let Some(uid) = object.uid() {
            self.gone.remove(&uid);
        }
        let round = self.round;
        match self.objects.get_mut(&object.name_any()) {
            Some(known) if known.provisional == Some(round) => self.put(object, None),
            Some(known) if is_same(known.object.as_ref(), &object) => known.provisional = None,
            Some(_) | None => self.insert(object, None),
        }
    }

    fn insert(&mut self, mut object: K, provisional: Option<u64>) {
        // Half of an object's size, and of no use here.
        object.meta_mut().managed_fields = None;
        let name = object.name_any();
        let entry = Entry {
            object: Arc::new(object),
            changed: Instant::now(),
            provisional,
        };
        self.objects.insert(name.clone(), entry);
        self.ring(&name);
    }

    fn remove(&mut self, object: &K) {
        let name = object.name_any();
        self.bury(object.uid());
        let newer = self.objects.get(&name).is_some_and(|known| {
            known.object.meta().uid != object.meta().uid
                && version(known.object.as_ref()) > version(object)
        });
        if !newer && self.objects.remove(&name).is_some() {
            self.ring(&name);
        }
    }

    /// A list is the truth: what it does not name is gone, unless this process wrote it after the list had begun.
    fn end_list(&mut self) {
        self.synced = true;
        let listed: std::collections::BTreeSet<String> = self
            .listing
            .take()
            .unwrap_or_default()
            .into_iter()
            .collect();
        let round = self.round;
        let gone: Vec<String> = self
            .objects
            .iter()
            .filter(|(name, entry)| {
                !listed.contains(*name) && entry.provisional.is_none_or(|wrote| wrote < round)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            let entry = self.objects.remove(&name);
            self.bury(entry.and_then(|entry| entry.object.uid()));
            self.ring(&name);
        }
    }

    fn is_gone(&self, uid: &str) -> bool {
        self.gone
            .get(uid)
            .is_some_and(|since| since.elapsed() < LATE)
    }

    fn bury(&mut self, uid: Option<String>) {
        self.gone.retain(|_, since| since.elapsed() < LATE);
        if let Some(uid) = uid {
            self.gone.insert(uid, Instant::now());
        }
    }

    fn ring(&self, name: &str) {
        if let Some(bell) = self.bells.get(name) {
            bell.notify_waiters();
        }
    }
}

/// Whether an event shows that the API server answers: that a list was begun says nothing yet.
fn is_answer<K>(event: &watcher::Event<K>) -> bool {
    !matches!(event, watcher::Event::Init)
}

/// Whether nothing has changed between two states of an object.
fn is_same<K: Resource>(one: &K, other: &K) -> bool {
    let (one, other) = (one.meta(), other.meta());
    (&one.uid, &one.resource_version) == (&other.uid, &other.resource_version)
}

/// Versions grow with every change, until etcd is restored to an older state; one that is no number is taken for the oldest.
fn version<K: Resource>(object: &K) -> u64 {
    let version = object.meta().resource_version.as_deref();
    version
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

/// Waits for one object.
#[derive(Debug)]
pub(crate) struct Bell<K> {
    mirror: Mirror<K>,
    name: String,
    bell: Arc<Notify>,
}

impl<K> Bell<K> {
    /// The next change after the moment of this call (not after its first poll).
    pub(crate) fn next(&self) -> tokio::sync::futures::Notified<'_> {
        self.bell.notified()
    }
}

impl<K> Drop for Bell<K> {
    fn drop(&mut self) {
        let mut state = self.mirror.state();
        // Ours and the table's: nobody else waits.
        if Arc::strong_count(&self.bell) <= 2 {
            state.bells.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use api::LocalVolume;
    use kube::runtime::watcher::Event;

    use super::Mirror;

    fn object(name: &str, uid: &str, version: u64) -> LocalVolume {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "vd.csi.io/v1alpha1", "kind": "LocalVolume",
            "metadata": {"name": name, "uid": uid, "resourceVersion": version.to_string()},
            "spec": {"nodeName": "n", "name": name, "requestedBytes": 1, "sizeBytes": 1_048_576, "volumeMode": "Block"}
        }))
        .unwrap()
    }

    fn versions(mirror: &Mirror<LocalVolume>) -> Vec<String> {
        let all = mirror.all();
        all.iter()
            .map(|one| {
                let meta = &one.metadata;
                format!(
                    "{}@{}",
                    meta.name.as_deref().unwrap(),
                    meta.resource_version.as_deref().unwrap()
                )
            })
            .collect()
    }

    #[test]
    fn a_late_event_does_not_undo_an_own_write() {
        let mirror = Mirror::default();
        mirror.wrote(object("a", "1", 7));
        mirror.apply(Event::Apply(object("a", "1", 5)));
        assert_eq!(versions(&mirror), ["a@7"]);
    }

    #[test]
    fn a_list_ends_what_it_does_not_name() {
        let mirror = Mirror::default();
        mirror.wrote(object("old", "1", 3));
        mirror.apply(Event::Init);
        mirror.apply(Event::InitApply(object("b", "2", 4)));
        mirror.wrote(object("new", "3", 9));
        mirror.apply(Event::InitDone);
        assert!(mirror.is_synced());
        assert_eq!(versions(&mirror), ["b@4", "new@9"]);
    }

    #[test]
    fn the_end_of_an_earlier_object_does_not_end_its_successor() {
        let mirror = Mirror::default();
        mirror.wrote(object("a", "2", 9));
        mirror.apply(Event::Delete(object("a", "1", 8)));
        assert_eq!(versions(&mirror), ["a@9"]);
        mirror.apply(Event::Delete(object("a", "2", 10)));
        assert!(mirror.all().is_empty());
    }

    #[test]
    fn a_late_answer_does_not_bring_back_what_is_gone() {
        let mirror = Mirror::default();
        mirror.apply(Event::Apply(object("a", "1", 5)));
        mirror.apply(Event::Delete(object("a", "1", 6)));
        mirror.wrote(object("a", "1", 5));
        assert!(mirror.all().is_empty());
        mirror.wrote(object("a", "2", 7));
        mirror.apply(Event::Init);
        mirror.apply(Event::InitDone);
        mirror.wrote(object("a", "2", 7));
        assert!(mirror.all().is_empty());
        mirror.wrote(object("a", "3", 8));
        assert_eq!(versions(&mirror), ["a@8"]);
    }

    fn list(mirror: &Mirror<LocalVolume>, objects: &[LocalVolume]) {
        mirror.apply(Event::Init);
        for object in objects {
            mirror.apply(Event::InitApply(object.clone()));
        }
        mirror.apply(Event::InitDone);
    }

    #[test]
    fn a_list_of_an_older_database_is_the_truth() {
        let mirror = Mirror::default();
        list(&mirror, &[object("a", "1", 5000), object("b", "2", 5001)]);
        mirror.wrote(object("c", "3", 5002));
        mirror.apply(Event::Apply(object("e", "5", 5003)));
        mirror.apply(Event::Delete(object("e", "5", 5004)));
        // What was deleted a moment ago is back, and what was made since is gone.
        let old = [
            object("a", "1", 50),
            object("b", "2", 5001),
            object("e", "5", 51),
        ];
        list(&mirror, &old);
        assert_eq!(versions(&mirror), ["a@50", "b@5001", "e@51"]);
        mirror.apply(Event::Apply(object("a", "1", 60)));
        mirror.wrote(object("e", "5", 61));
        assert_eq!(versions(&mirror), ["a@60", "b@5001", "e@61"]);
    }

    #[test]
    fn an_own_write_after_a_list_has_begun_is_newer_than_the_list() {
        let mirror = Mirror::default();
        mirror.apply(Event::Init);
        mirror.wrote(object("a", "1", 7));
        mirror.apply(Event::InitApply(object("a", "1", 5)));
        mirror.apply(Event::InitDone);
        assert_eq!(versions(&mirror), ["a@7"]);
    }

    #[test]
    fn a_list_that_tells_nothing_new_is_no_change() {
        let mirror = Mirror::default();
        list(&mirror, &[object("a", "1", 5)]);
        let since = mirror.state().objects["a"].changed;
        list(&mirror, &[object("a", "1", 5)]);
        assert_eq!(mirror.state().objects["a"].changed, since);
    }

    #[test]
    fn a_watch_that_begins_again_and_again_is_not_current() {
        let mirror = Mirror::default();
        list(&mirror, &[object("a", "1", 5)]);
        mirror.state().broken = true;
        mirror.apply(Event::Init);
        assert!(!mirror.is_current());
        mirror.apply(Event::InitApply(object("a", "1", 5)));
        assert!(mirror.is_current());
    }

    #[tokio::test]
    async fn a_bell_rings_for_its_object_only_and_is_taken_down() {
        let mirror = Mirror::default();
        let bell = mirror.bell("a");
        let next = bell.next();
        mirror.wrote(object("b", "1", 1));
        mirror.wrote(object("a", "1", 2));
        next.await;
        drop(bell);
        assert!(mirror.state().bells.is_empty());
    }
}
