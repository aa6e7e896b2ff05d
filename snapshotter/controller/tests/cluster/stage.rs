//! What a scenario acts on: a namespace of its own, a driver, and the objects of a user.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, PersistentVolume, PersistentVolumeClaim, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::driver::Driver;

/// Longest wait for anything. Nothing waits that long but what never comes.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Stage {
    pub client: Client,
    pub driver: Driver,
    /// The scenario's name: its namespace, and part of what is cluster-wide.
    pub name: String,
    /// Whether errors have to read as ours do; else any will do.
    pub texts: bool,
}

impl Stage {
    fn api(&self, kind: &str, plural: &str, namespaced: bool) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        if namespaced {
            Api::namespaced_with(self.client.clone(), &self.name, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        }
    }

    pub fn snapshots(&self) -> Api<DynamicObject> {
        self.api("VolumeSnapshot", "volumesnapshots", true)
    }

    pub fn contents(&self) -> Api<DynamicObject> {
        self.api("VolumeSnapshotContent", "volumesnapshotcontents", false)
    }

    pub fn classes(&self) -> Api<DynamicObject> {
        self.api("VolumeSnapshotClass", "volumesnapshotclasses", false)
    }

    pub fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// The handle of the scenario's volume.
    pub fn volume(&self) -> String {
        format!("vol-{}", self.name)
    }

    /// A class of the scenario's own.
    pub async fn class(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut class = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
            "metadata": {"name": self.name}, "driver": self.driver.name, "deletionPolicy": "Delete",
        });
        change(&mut class);
        self.make(&self.classes(), class).await;
        self.name.clone()
    }

    /// A claim `data` that is bound to a volume of this driver.
    pub async fn claim(&self, driver: &str) {
        self.unbound_claim("data", json!({})).await;
        self.bind(driver).await;
    }

    pub async fn unbound_claim(&self, name: &str, spec: Value) {
        let mut claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": self.name},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}, "volumeName": format!("pv-{}", self.name)},
        });
        for (key, value) in spec.as_object().unwrap() {
            claim["spec"][key] = value.clone();
        }
        let claim = serde_json::from_value(claim).unwrap();
        self.claims()
            .create(&PostParams::default(), &claim)
            .await
            .unwrap();
        self.phase(name, "Pending").await;
    }

    pub async fn bind(&self, driver: &str) {
        self.bind_with(driver, |_| {}).await;
    }

    /// To a volume that is changed so.
    pub async fn bind_with(&self, driver: &str, change: impl FnOnce(&mut Value)) {
        let claim = self.claims().get("data").await.unwrap();
        let mut volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("pv-{}", self.name)},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Mi"}, "volumeMode": "Block",
                "csi": {"driver": driver, "volumeHandle": self.volume()},
                "claimRef": {"namespace": self.name, "name": "data", "uid": claim.uid()},
            },
        });
        change(&mut volume);
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        api.create(
            &PostParams::default(),
            &serde_json::from_value(volume).unwrap(),
        )
        .await
        .unwrap();
        self.phase("data", "Bound").await;
    }

    pub async fn phase(&self, claim: &str, phase: &str) {
        let status = json!({"status": {"phase": phase}});
        let patch = Patch::Merge(&status);
        self.claims()
            .patch_status(claim, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// A snapshot `snap` of the claim `data`.
    pub async fn snapshot(&self, class: Option<&str>) -> DynamicObject {
        let mut spec = json!({"source": {"persistentVolumeClaimName": "data"}});
        if let Some(class) = class {
            spec["volumeSnapshotClassName"] = class.into();
        }
        self.snapshot_of("snap", spec).await
    }

    pub async fn snapshot_of(&self, name: &str, spec: Value) -> DynamicObject {
        let snapshot = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
            "metadata": {"name": name, "namespace": self.name}, "spec": spec,
        });
        self.make(&self.snapshots(), snapshot).await
    }

    /// A class, a bound claim and a snapshot of it, made with that class.
    pub async fn begin(&self) -> DynamicObject {
        let class = self.class(|_| {}).await;
        self.claim(self.driver.name).await;
        self.snapshot(Some(&class)).await
    }

    /// A content that somebody else has made.
    pub async fn content(
        &self,
        handle: &str,
        policy: &str,
        change: impl FnOnce(&mut Value),
    ) -> String {
        let mut content = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": {"name": format!("given-{}", self.name)},
            "spec": {
                "driver": self.driver.name, "deletionPolicy": policy, "source": {"snapshotHandle": handle},
                "volumeSnapshotRef": {"namespace": self.name, "name": "snap"},
            },
        });
        change(&mut content);
        self.make(&self.contents(), content).await.name_any()
    }

    pub async fn make(&self, api: &Api<DynamicObject>, object: Value) -> DynamicObject {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap()
    }

    pub async fn secret(&self, name: &str) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": self.name},
            "stringData": {"key": "word"},
        });
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.name);
        api.create(
            &PostParams::default(),
            &serde_json::from_value(secret).unwrap(),
        )
        .await
        .unwrap();
    }

    /// Waits until the object is so, and gives it.
    pub async fn until(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        let condition = |object: Option<&DynamicObject>| {
            object.is_some_and(|object| holds(&serde_json::to_value(object).unwrap()))
        };
        match tokio::time::timeout(PATIENCE, await_condition(api.clone(), name, condition)).await {
            Ok(found) => serde_json::to_value(found.unwrap()).unwrap(),
            Err(_elapsed) => {
                let now = api.get_opt(name).await.unwrap();
                panic!(
                    "{}: {name} is never {what}: {}",
                    self.name,
                    serde_json::to_string_pretty(&now).unwrap()
                );
            }
        }
    }

    pub async fn until_snapshot(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.until(&self.snapshots(), "snap", what, holds).await
    }

    /// Waits until the snapshot is ready and has both finalizers, and gives it.
    pub async fn until_ready(&self) -> Value {
        self.until_snapshot("ready", |s| {
            s["status"]["readyToUse"] == json!(true)
                && s["metadata"]["finalizers"]
                    .as_array()
                    .is_some_and(|all| all.len() == 2)
        })
        .await
    }

    /// Waits until its status has an error with this text.
    pub async fn until_error(&self, text: &str) -> Value {
        let has = |s: &Value| {
            s["status"]["error"]["message"]
                .as_str()
                .is_some_and(|m| !self.texts || m.contains(text))
        };
        self.until_snapshot(&format!("telling {text:?}"), has).await
    }

    pub async fn until_gone(&self, api: &Api<DynamicObject>, name: &str) {
        let gone = |object: Option<&DynamicObject>| object.is_none();
        if tokio::time::timeout(PATIENCE, await_condition(api.clone(), name, gone))
            .await
            .is_err()
        {
            let now = api.get_opt(name).await.unwrap();
            panic!(
                "{}: {name} never goes: {}",
                self.name,
                serde_json::to_string_pretty(&now).unwrap()
            );
        }
    }

    pub async fn delete(&self, api: &Api<DynamicObject>, name: &str) {
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub async fn change(&self, api: &Api<DynamicObject>, name: &str, change: Value) {
        api.patch(name, &PatchParams::default(), &Patch::Merge(&change))
            .await
            .unwrap();
    }

    /// The finalizers of the claim `data`.
    pub async fn until_claim(&self, what: &str, holds: impl Fn(&[String]) -> bool) {
        let condition = |claim: Option<&PersistentVolumeClaim>| {
            claim.is_some_and(|claim| holds(claim.finalizers()))
        };
        let waiting = await_condition(self.claims(), "data", condition);
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("{}: the claim is never {what}", self.name);
        }
    }

    /// Waits for an event with this reason about an object of this name.
    pub async fn until_told(&self, about: &str, reason: &str) {
        let namespace = if about.starts_with("snapcontent-") || about.starts_with("given-") {
            "default"
        } else {
            &self.name
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let parameters = ListParams::default().fields(&format!("involvedObject.name={about}"));
        let begun = tokio::time::Instant::now();
        // Events are written beside everything else, and nothing else tells that they are.
        loop {
            let events = api.list(&parameters).await.unwrap();
            let reasons: Vec<_> = events
                .items
                .into_iter()
                .filter_map(|event| event.reason)
                .collect();
            if reasons.iter().any(|one| one == reason) {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{}: {reason} is not told about {about}, but {reasons:?}",
                self.name
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The content that is made for a snapshot, and the driver's id of it.
pub fn made_for(snapshot: &DynamicObject) -> (String, String) {
    let uid = snapshot.uid().unwrap();
    (format!("snapcontent-{uid}"), format!("snapshot-{uid}"))
}
