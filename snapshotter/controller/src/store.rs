//! The objects of one kind in memory, kept by one watch.
//!
//! What this process has written is put in at once, so that the next decision sees it; the watch confirms it later. Between two lists
//! versions only ever grow: a late event undoes nothing, and what is gone does not come back with a late answer. A list is the truth,
//! whatever was known before: after etcd was restored from a backup, versions are lower and what was gone is back.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::Resource;
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use crate::objects::{Meta, key_of, slim};

/// How late the answer to a request can come: longer than a request may take.
const LATE: Duration = Duration::from_secs(60);

/// What objects are found by beside their key.
type Index<K> = fn(&K) -> Option<String>;

/// How an object has changed.
#[derive(Debug)]
pub(crate) struct Change<K> {
    pub(crate) key: String,
    pub(crate) old: Option<Arc<K>>,
    pub(crate) new: Option<Arc<K>>,
}

/// All objects of one kind.
#[derive(Debug)]
pub(crate) struct Store<K> {
    state: Mutex<State<K>>,
    index: Index<K>,
    current: watch::Sender<bool>,
}

#[derive(Debug)]
struct State<K> {
    objects: HashMap<String, Entry<K>>,
    found_by: HashMap<String, BTreeSet<String>>,
    /// The uids of objects that have gone, and when.
    gone: HashMap<String, Instant>,
    /// A list in progress.
    listing: Option<Listing>,
    /// Counts lists, to tell an own write that came after one had begun.
    round: u64,
}

#[derive(Debug)]
struct Listing {
    begun: Instant,
    /// The keys that it has named so far.
    named: HashSet<String>,
}

#[derive(Debug)]
struct Entry<K> {
    object: Arc<K>,
    /// The round of an own write that no watch has confirmed.
    provisional: Option<u64>,
}

impl<K: Resource<DynamicType = ()>> Store<K> {
    /// Knows nothing yet. `index` gives what an object is found by in [`Store::find`].
    pub(crate) fn new(index: Index<K>) -> Self {
        let state = State {
            objects: HashMap::new(),
            found_by: HashMap::new(),
            gone: HashMap::new(),
            listing: None,
            round: 0,
        };
        Self {
            state: Mutex::new(state),
            index,
            current: watch::channel(false).0,
        }
    }

    /// Takes in one event of a watch.
    pub(crate) fn apply(&self, event: Event<K>) -> Vec<Change<K>> {
        let mut state = self.state();
        let changes = match event {
            Event::Init => {
                state.round += 1;
                state.listing = Some(Listing {
                    begun: Instant::now(),
                    named: HashSet::new(),
                });
                return Vec::new();
            }
            Event::InitApply(object) => state.list(object, self.index).into_iter().collect(),
            Event::InitDone => state.end_list(self.index),
            Event::Apply(object) => state.put(object, None, self.index).into_iter().collect(),
            Event::Delete(object) => state.remove(&object, self.index).into_iter().collect(),
        };
        let listed = state.listing.is_none();
        drop(state);
        self.current
            .send_if_modified(|current| !std::mem::replace(current, listed || *current));
        changes
    }

    /// The API server cannot be asked now.
    pub(crate) fn broken(&self) {
        self.current
            .send_if_modified(|current| std::mem::replace(current, false));
    }

    /// Takes in what an own write has answered.
    pub(crate) fn wrote(&self, object: K) -> Option<Change<K>> {
        let mut state = self.state();
        let round = state.round;
        state.put(object, Some(round), self.index)
    }

    /// Takes in that the object of this key and uid is gone.
    pub(crate) fn lost(&self, key: &str, uid: &str) -> Option<Change<K>> {
        let mut state = self.state();
        let known = state.objects.get(key)?;
        if Meta::uid(known.object.as_ref()) != uid {
            return None;
        }
        state.bury(uid);
        state.take(key, self.index)
    }

    pub(crate) fn get(&self, key: &str) -> Option<Arc<K>> {
        let state = self.state();
        state
            .objects
            .get(key)
            .map(|entry| Arc::clone(&entry.object))
    }

    /// The objects for which the index gives this.
    pub(crate) fn find(&self, by: &str) -> Vec<Arc<K>> {
        let state = self.state();
        let keys = state.found_by.get(by).into_iter().flatten();
        keys.filter_map(|key| state.objects.get(key))
            .map(|entry| Arc::clone(&entry.object))
            .collect()
    }

    /// The keys of the objects that match.
    pub(crate) fn keys(&self, wanted: impl Fn(&K) -> bool) -> Vec<String> {
        let state = self.state();
        let matching = state.objects.iter();
        matching
            .filter(|(_, entry)| wanted(&entry.object))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// The objects that match.
    pub(crate) fn all(&self, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let state = self.state();
        let objects = state.objects.values().map(|entry| &entry.object);
        objects.filter(|object| wanted(object)).cloned().collect()
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> usize {
        self.state().objects.len()
    }

    /// Returns once all objects are known.
    pub(crate) async fn synced(&self) {
        let mut current = self.current.subscribe();
        // The sender is here, so it cannot be gone.
        current.wait_for(|current| *current).await.ok();
    }

    /// Whether all objects are known and the watch stands.
    pub(crate) fn is_current(&self) -> bool {
        *self.current.borrow()
    }

    /// Nothing in here panics while it holds the lock; were it so, the state is still a state.
    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Resource<DynamicType = ()>> State<K> {
    fn put(&mut self, object: K, provisional: Option<u64>, index: Index<K>) -> Option<Change<K>> {
        let gone = self.gone.get(Meta::uid(&object));
        if gone.is_some_and(|since| since.elapsed() < LATE) {
            return None;
        }
        let key = key_of(&object);
        if let Some(known) = self.objects.get_mut(&key) {
            let known_version = version(known.object.as_ref());
            if provisional.is_none() && known_version <= version(&object) {
                known.provisional = None;
            }
            if known_version >= version(&object) {
                return None;
            }
        }
        Some(self.replace(key, object, provisional, index))
    }

    /// Takes in an object that a list names.
    fn list(&mut self, object: K, index: Index<K>) -> Option<Change<K>> {
        let (key, uid) = (key_of(&object), Meta::uid(&object));
        let begun = self.listing.as_mut().map(|listing| {
            listing.named.insert(key.clone());
            listing.begun
        });
        // What went or was written after the list had begun may be in it as it was before.
        if let Some(since) = self.gone.get(uid)
            && begun.is_some_and(|begun| *since >= begun)
        {
            return None;
        }
        self.gone.remove(uid);
        if let Some(known) = self.objects.get_mut(&key) {
            let (before, now) = (version(known.object.as_ref()), version(&object));
            if known.provisional == Some(self.round) && before >= now {
                return None;
            }
            if before == now && Meta::uid(known.object.as_ref()) == uid {
                known.provisional = None;
                return None;
            }
        }
        Some(self.replace(key, object, None, index))
    }

    fn replace(
        &mut self,
        key: String,
        mut object: K,
        provisional: Option<u64>,
        index: Index<K>,
    ) -> Change<K> {
        slim(object.meta_mut());
        let old = self.take(&key, index).and_then(|change| change.old);
        let object = Arc::new(object);
        if let Some(by) = index(&object) {
            self.found_by.entry(by).or_default().insert(key.clone());
        }
        let entry = Entry {
            object: Arc::clone(&object),
            provisional,
        };
        self.objects.insert(key.clone(), entry);
        Change {
            key,
            old,
            new: Some(object),
        }
    }

    fn remove(&mut self, object: &K, index: Index<K>) -> Option<Change<K>> {
        self.bury(Meta::uid(object));
        let key = key_of(object);
        let known = self.objects.get(&key)?;
        let successor = Meta::uid(known.object.as_ref()) != Meta::uid(object)
            && version(known.object.as_ref()) > version(object);
        if successor {
            None
        } else {
            self.take(&key, index)
        }
    }

    /// A list is the truth: what it does not name is gone, unless this process wrote it after the list had begun.
    fn end_list(&mut self, index: Index<K>) -> Vec<Change<K>> {
        let listed = self.listing.take().map(|listing| listing.named);
        let listed = listed.unwrap_or_default();
        let round = self.round;
        let gone: Vec<String> = self
            .objects
            .iter()
            .filter(|(key, entry)| {
                !listed.contains(*key) && entry.provisional.is_none_or(|wrote| wrote < round)
            })
            .map(|(key, _)| key.clone())
            .collect();
        let mut changes = Vec::new();
        for key in gone {
            let change = self.take(&key, index);
            if let Some(old) = change.as_ref().and_then(|change| change.old.as_ref()) {
                self.bury(Meta::uid(old.as_ref()));
            }
            changes.extend(change);
        }
        changes
    }

    fn take(&mut self, key: &str, index: Index<K>) -> Option<Change<K>> {
        let entry = self.objects.remove(key)?;
        if let Some(by) = index(&entry.object)
            && let Some(keys) = self.found_by.get_mut(&by)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.found_by.remove(&by);
            }
        }
        Some(Change {
            key: key.to_owned(),
            old: Some(entry.object),
            new: None,
        })
    }

    fn bury(&mut self, uid: &str) {
        self.gone.retain(|_, since| since.elapsed() < LATE);
        if !uid.is_empty() {
            self.gone.insert(uid.to_owned(), Instant::now());
        }
    }
}

/// Versions grow with every change; one that is no number is taken for the oldest.
fn version<K: Resource>(object: &K) -> u64 {
    let version = object.meta().resource_version.as_deref();
    version
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

    use super::Store;
    use crate::objects::{Claim, Meta};

    fn claim(name: &str, uid: &str, version: u64) -> Claim {
        serde_json::from_value(serde_json::json!({"metadata": {
            "namespace": "n", "name": name, "uid": uid, "resourceVersion": version.to_string(),
            "labels": {"a": "b"}, "managedFields": [],
        }}))
        .unwrap()
    }

    fn store() -> Store<Claim> {
        Store::new(|claim| Some(Meta::uid(claim).to_owned()))
    }

    #[test]
    fn a_late_event_does_not_undo_an_own_write() {
        let store = store();
        assert!(store.wrote(claim("a", "1", 7)).is_some());
        assert!(store.apply(Event::Apply(claim("a", "1", 5))).is_empty());
        assert_eq!(
            store
                .get("n/a")
                .unwrap()
                .metadata
                .resource_version
                .as_deref(),
            Some("7")
        );
    }

    #[test]
    fn the_echo_of_an_own_write_is_no_change() {
        let store = store();
        store.wrote(claim("a", "1", 7));
        assert!(store.apply(Event::Apply(claim("a", "1", 7))).is_empty());
        assert_eq!(store.apply(Event::Apply(claim("a", "1", 8))).len(), 1);
    }

    #[test]
    fn a_list_ends_what_it_does_not_name() {
        let store = store();
        store.wrote(claim("old", "1", 3));
        store.apply(Event::Init);
        store.apply(Event::InitApply(claim("b", "2", 4)));
        assert!(!store.is_current());
        store.wrote(claim("new", "3", 9));
        let changes = store.apply(Event::InitDone);
        assert!(store.is_current());
        assert!(matches!(&changes[..], [gone] if gone.key == "n/old" && gone.new.is_none()));
        assert!(store.get("n/b").is_some() && store.get("n/new").is_some());
        store.broken();
        assert!(!store.is_current());
    }

    #[test]
    fn the_end_of_an_earlier_object_does_not_end_its_successor() {
        let store = store();
        store.wrote(claim("a", "2", 9));
        assert!(store.apply(Event::Delete(claim("a", "1", 8))).is_empty());
        assert_eq!(store.apply(Event::Delete(claim("a", "2", 10))).len(), 1);
        assert!(store.get("n/a").is_none());
    }

    #[test]
    fn a_late_answer_does_not_bring_back_what_is_gone() {
        let store = store();
        store.apply(Event::Apply(claim("a", "1", 5)));
        store.apply(Event::Delete(claim("a", "1", 6)));
        assert!(store.wrote(claim("a", "1", 5)).is_none());
        store.apply(Event::Apply(claim("b", "2", 7)));
        assert!(store.lost("n/b", "another").is_none());
        assert!(store.lost("n/b", "2").is_some());
        assert!(store.apply(Event::Apply(claim("b", "2", 7))).is_empty());
    }

    fn listed(store: &Store<Claim>, objects: Vec<Claim>) -> usize {
        store.apply(Event::Init);
        let all = objects.into_iter().map(Event::InitApply);
        let all = all.chain([Event::InitDone]);
        all.map(|event| store.apply(event).len()).sum()
    }

    fn version_of(store: &Store<Claim>, key: &str) -> Option<String> {
        store.get(key)?.metadata.resource_version.clone()
    }

    #[test]
    fn a_list_is_the_truth_also_where_everything_in_it_is_older() {
        let store = store();
        listed(&store, vec![claim("a", "1", 70), claim("b", "2", 71)]);
        store.apply(Event::Apply(claim("a", "1", 80)));
        store.apply(Event::Delete(claim("b", "2", 81)));
        store.apply(Event::Apply(claim("c", "3", 82)));
        // etcd is restored to what it was when all but the last were there.
        let backup = || vec![claim("a", "1", 70), claim("b", "2", 71)];
        assert_eq!(listed(&store, backup()), 3);
        assert_eq!(version_of(&store, "n/a").as_deref(), Some("70"));
        assert_eq!(version_of(&store, "n/b").as_deref(), Some("71"));
        assert!(store.get("n/c").is_none());
        // What is written from there on counts.
        assert!(store.wrote(claim("a", "1", 72)).is_some());
        assert!(store.apply(Event::Apply(claim("b", "2", 73))).len() == 1);
        // The same list once more is no change.
        let now = vec![claim("a", "1", 72), claim("b", "2", 73)];
        assert_eq!(listed(&store, now), 0);
    }

    #[test]
    fn what_was_done_while_a_list_was_under_way_is_newer_than_the_list() {
        let store = store();
        listed(&store, vec![claim("a", "1", 5), claim("b", "2", 6)]);
        store.apply(Event::Init);
        store.wrote(claim("a", "1", 7));
        store.lost("n/b", "2");
        assert!(store.apply(Event::InitApply(claim("a", "1", 5))).is_empty());
        assert!(store.apply(Event::InitApply(claim("b", "2", 6))).is_empty());
        assert!(store.apply(Event::InitDone).is_empty());
        assert_eq!(version_of(&store, "n/a").as_deref(), Some("7"));
        assert!(store.get("n/b").is_none());
    }

    #[test]
    fn objects_are_found_by_their_index_as_long_as_it_is_theirs() {
        let store = store();
        store.apply(Event::Apply(claim("a", "1", 5)));
        assert_eq!(store.find("1").len(), 1);
        store.apply(Event::Apply(claim("a", "2", 6)));
        assert!(store.find("1").is_empty());
        assert_eq!(store.find("2").len(), 1);
        store.apply(Event::Delete(claim("a", "2", 7)));
        assert!(store.find("2").is_empty());
    }

    #[test]
    fn what_nobody_reads_is_not_kept() {
        let store = store();
        store.apply(Event::Apply(claim("a", "1", 5)));
        let kept = store.get("n/a").unwrap();
        assert!(kept.metadata.labels.is_none() && kept.metadata.managed_fields.is_none());
    }
}
