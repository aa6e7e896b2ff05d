//! Waits for what the mirror of the control plane shows: one watch for all, however many wait.

use std::time::Duration;

use kube::Api;
use kube::core::DynamicObject;
use serde_json::Value;
use tokio::time::timeout;

use crate::mirror::Space;
use crate::part::Part;

/// Longest wait for anything. Nothing waits that long but what never comes.
const PATIENCE: Duration = Duration::from_secs(90);

impl Part {
    /// Waits until the object is so, and gives it.
    pub async fn until(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        let key = (kind(api), name.to_owned());
        let found = self
            .shown(|space| space.objects.get(&key).filter(|o| holds(o)).cloned())
            .await;
        found.unwrap_or_else(|| panic!("{}: {name} is never {what}: {}", self.name, self.all()))
    }

    pub async fn until_snapshot(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.until(&self.snapshots(), "snap", what, holds).await
    }

    /// Waits until the snapshot is ready and has both finalizers, and gives it.
    pub async fn until_ready(&self) -> Value {
        self.until_snapshot("ready", |s| {
            let finalizers = s["metadata"]["finalizers"].as_array();
            s["status"]["readyToUse"] == true && finalizers.is_some_and(|all| all.len() == 2)
        })
        .await
    }

    /// Waits until its status has an error with this text, or any of a program that is not ours.
    pub async fn until_error(&self, text: &str) -> Value {
        self.until_snapshot(&format!("telling {text:?}"), |s| {
            let message = s["status"]["error"]["message"].as_str();
            message.is_some_and(|message| !self.texts || message.contains(text))
        })
        .await
    }

    /// Waits until what was there is gone.
    pub async fn until_gone(&self, api: &Api<DynamicObject>, name: &str) {
        let key = (kind(api), name.to_owned());
        let gone = self
            .shown(|space| {
                let was = space.ever.iter().any(|(_, known)| *known == key);
                (was && !space.objects.contains_key(&key)).then_some(())
            })
            .await;
        assert!(
            gone.is_some(),
            "{}: {name} never goes: {}",
            self.name,
            self.all()
        );
    }

    /// Waits until the claim `data` has such finalizers.
    pub async fn until_claim(&self, what: &str, holds: impl Fn(&[String]) -> bool) {
        let key = ("PersistentVolumeClaim", "data".to_owned());
        let found = self
            .shown(|space| {
                let finalizers = &space.objects.get(&key)?["metadata"]["finalizers"];
                let finalizers: Vec<String> =
                    serde_json::from_value(finalizers.clone()).unwrap_or_default();
                holds(&finalizers).then_some(())
            })
            .await;
        assert!(
            found.is_some(),
            "{}: the claim is never {what}: {}",
            self.name,
            self.all()
        );
    }

    /// Waits for an event with this reason about an object of this name.
    pub async fn until_told(&self, about: &str, reason: &str) {
        let told = self
            .shown(|space| {
                let mut told = space.told.iter();
                let is = told.any(|told| told.name == about && told.reason == reason);
                is.then_some(())
            })
            .await;
        assert!(
            told.is_some(),
            "{}: {reason} is not told about {about}: {}",
            self.name,
            self.all()
        );
    }

    /// Waits until it is told of everything that is ready: events are written after all else, or lost with who would write them.
    pub async fn until_all_told(&self) {
        let told = self
            .shown(|space| {
                let told = |name: &String| {
                    let mut of = space.told.iter().filter(|told| told.name == *name);
                    of.any(|told| told.reason == "SnapshotReady")
                };
                let mut ready = space.objects.iter().filter(|((kind, _), object)| {
                    *kind == "VolumeSnapshot" && object["status"]["readyToUse"] == true
                });
                ready.all(|((_, name), _)| told(name)).then_some(())
            })
            .await;
        assert!(
            told.is_some(),
            "{}: not all is told: {}",
            self.name,
            self.all()
        );
    }

    async fn shown<T>(&self, find: impl Fn(&Space) -> Option<T>) -> Option<T> {
        let mut changes = self.mirror.changes(&self.name);
        let waiting = async {
            loop {
                changes.mark_unchanged();
                if let Some(found) = self.mirror.look(&self.name, &find) {
                    return found;
                }
                changes.changed().await.expect("the mirror goes on");
            }
        };
        timeout(PATIENCE, waiting).await.ok()
    }

    /// For who reads why it failed.
    fn all(&self) -> String {
        self.mirror.look(&self.name, |space| {
            let objects: Vec<&Value> = space.objects.values().collect();
            let objects = serde_json::to_string(&objects).unwrap();
            format!("{:?}: {objects}; told {:?}", self.side, space.told)
        })
    }
}

fn kind(api: &Api<DynamicObject>) -> &'static str {
    if api.resource_url().ends_with("volumesnapshotcontents") {
        "VolumeSnapshotContent"
    } else {
        "VolumeSnapshot"
    }
}
