//! All that a control plane tells, kept by watches and sorted by the namespaces that scenarios have: the objects as they are, and the
//! events in the order in which they were written.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

/// Kind and name.
pub type Key = (&'static str, String);

/// An event, when it was first written.
#[derive(Clone, Debug)]
pub struct Told {
    pub kind: String,
    pub uid: String,
    pub name: String,
    pub reason: String,
    pub message: String,
    pub warning: bool,
    pub by: String,
}

/// What there is of a namespace. A content is its snapshot's namespace's.
#[derive(Default)]
pub struct Space {
    pub objects: BTreeMap<Key, Value>,
    /// Every object that ever was, in the order of being seen, by its uid.
    pub ever: Vec<(String, Key)>,
    pub told: Vec<Told>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    spaces: HashMap<String, Space>,
    /// Where the object of a uid is.
    home: HashMap<String, String>,
    /// Events about what is not known yet.
    early: HashMap<String, Vec<Told>>,
    events: HashSet<String>,
}

/// Clones are one mirror.
#[derive(Clone)]
pub struct Mirror(Arc<Mutex<State>>);

impl Mirror {
    /// Watches until the runtime ends.
    pub fn start(client: &Client) -> Self {
        let mirror = Self(Arc::default());
        for (kind, plural) in [
            ("VolumeSnapshot", "volumesnapshots"),
            ("VolumeSnapshotContent", "volumesnapshotcontents"),
        ] {
            let gvk = GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", kind);
            let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            mirror.clone().follow(api, kind);
        }
        let claims: Api<PersistentVolumeClaim> = Api::all(client.clone());
        mirror.clone().follow(claims, "PersistentVolumeClaim");
        let events: Api<Event> = Api::all(client.clone());
        mirror.clone().follow(events, "Event");
        mirror
    }

    /// Looks at a namespace.
    pub fn look<T>(&self, namespace: &str, at: impl FnOnce(&Space) -> T) -> T {
        at(self.state().spaces.entry(namespace.to_owned()).or_default())
    }

    /// Rings whenever something of a namespace has changed.
    pub fn changes(&self, namespace: &str) -> watch::Receiver<u64> {
        self.look(namespace, |space| space.changed.subscribe())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn follow<K>(self, api: Api<K>, kind: &'static str)
    where
        K: Resource + Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
        K::DynamicType: Send + Sync,
    {
        tokio::spawn(async move {
            let mut events = Box::pin(watcher(api, watcher::Config::default()));
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                        let object = serde_json::to_value(&object).unwrap();
                        self.state().put(kind, object);
                    }
                    Ok(watcher::Event::Delete(object)) => {
                        let object = serde_json::to_value(&object).unwrap();
                        self.state().take(kind, &object);
                    }
                    // A list that is begun anew would miss deletions; then the run shows it.
                    Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
                    Err(error) => eprintln!("the watch of {kind}: {error}"),
                }
            }
        });
    }
}

impl State {
    fn put(&mut self, kind: &'static str, object: Value) {
        let uid = text(&object["metadata"]["uid"]);
        if kind == "Event" {
            if self.events.insert(uid) {
                self.tell(told(&object));
            }
            return;
        }
        let (namespace, key) = place(kind, &object);
        let space = self.spaces.entry(namespace.clone()).or_default();
        let first = self.home.insert(uid.clone(), namespace).is_none();
        if first {
            space.ever.push((uid.clone(), key.clone()));
        }
        space.objects.insert(key, object);
        space.changed.send_modify(|count| *count += 1);
        for told in self.early.remove(&uid).into_iter().flatten() {
            self.tell(told);
        }
    }

    fn take(&mut self, kind: &'static str, object: &Value) {
        if kind == "Event" {
            return;
        }
        let (namespace, key) = place(kind, object);
        let space = self.spaces.entry(namespace).or_default();
        space.objects.remove(&key);
        space.changed.send_modify(|count| *count += 1);
    }

    fn tell(&mut self, told: Told) {
        let Some(namespace) = self.home.get(&told.uid) else {
            self.early.entry(told.uid.clone()).or_default().push(told);
            return;
        };
        let space = self.spaces.entry(namespace.clone()).or_default();
        space.told.push(told);
        space.changed.send_modify(|count| *count += 1);
    }
}

fn told(event: &Value) -> Told {
    let about = &event["involvedObject"];
    Told {
        kind: text(&about["kind"]),
        uid: text(&about["uid"]),
        name: text(&about["name"]),
        reason: text(&event["reason"]),
        message: text(&event["message"]),
        warning: event["type"] == "Warning",
        by: text(&event["source"]["component"]),
    }
}

fn place(kind: &'static str, object: &Value) -> (String, Key) {
    let of = &object["metadata"];
    let namespace = if kind == "VolumeSnapshotContent" {
        &object["spec"]["volumeSnapshotRef"]["namespace"]
    } else {
        &of["namespace"]
    };
    (text(namespace), (kind, text(&of["name"])))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
