//! All that is known of the cluster, and which of it has to be looked at when something changes.

use kube::{Api, Client};
use tokio::sync::Notify;

use crate::names::BEING_CREATED;
use crate::objects::{
    Claim, Meta, VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent, key, key_of,
};
use crate::operations::Operations;
use crate::queue::{Backoff, Queue};
use crate::requests::Place;
use crate::store::{Change, Store};

/// Who has changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Somebody else, or the echo of an earlier process.
    Watch,
    /// The binding half of this process.
    Binding,
    /// The driver's half of this process.
    Sidecar,
}

/// Objects, and queues of those that have to be looked at.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) driver: String,
    pub(crate) snapshots: Store<VolumeSnapshot>,
    pub(crate) contents: Store<VolumeSnapshotContent>,
    pub(crate) classes: Store<VolumeSnapshotClass>,
    pub(crate) claims: Store<Claim>,
    /// Snapshots, for the binding half.
    pub(crate) to_bind: Queue,
    /// Contents, for the binding half.
    pub(crate) to_protect: Queue,
    /// Contents, for the driver's half.
    pub(crate) to_call: Queue,
    pub(crate) operations: Operations,
    /// Rings whenever a content has changed.
    pub(crate) bell: Notify,
}

impl World {
    pub(crate) fn new(driver: String, backoff: Backoff, operations: Operations) -> Self {
        Self {
            driver,
            snapshots: Store::new(|snapshot| {
                let claim = snapshot.claim_name()?;
                Some(key(Meta::namespace(snapshot), claim))
            }),
            contents: Store::new(|_content| None),
            classes: Store::new(|_class| None),
            claims: Store::new(Claim::waits_for_snapshot),
            to_bind: Queue::new(backoff),
            to_protect: Queue::new(backoff),
            to_call: Queue::new(backoff),
            operations,
            bell: Notify::new(),
        }
    }

    pub(crate) fn snapshot_changed(&self, change: &Change<VolumeSnapshot>, origin: Origin) {
        if let (Some(old), None) = (&change.old, &change.new) {
            self.operations.gone(Meta::uid(old.as_ref()));
            if let Some(content) = old.bound_content() {
                self.to_protect.add(content);
            }
        }
        if origin != Origin::Watch {
            return;
        }
        match (&change.old, &change.new) {
            // Another controller sees it otherwise: at once, the two would write in turn without end.
            (Some(old), Some(new)) if is_error_alone(old, new) => {
                self.to_bind.add_later(&change.key);
            }
            _ => self.to_bind.add(&change.key),
        }
    }

    pub(crate) fn content_changed(&self, change: &Change<VolumeSnapshotContent>, origin: Origin) {
        self.bell.notify_waiters();
        for content in [&change.old, &change.new].into_iter().flatten() {
            let reference = &content.spec.volume_snapshot_ref;
            if let (Some(namespace), Some(name)) = (&reference.namespace, &reference.name) {
                self.to_bind.add(&key(namespace, name));
            }
        }
        let Some(new) = &change.new else { return };
        if new.spec.driver != self.driver {
            return;
        }
        self.to_protect.add(&change.key);
        let matters = change
            .old
            .as_deref()
            .is_none_or(|old| matters_to_sidecar(old, new));
        if origin != Origin::Sidecar && matters {
            self.to_call.add(&change.key);
        }
    }

    /// Where contents are written by one of the halves.
    pub(crate) fn contents_by(
        &self,
        client: &Client,
        half: Origin,
    ) -> Place<'_, VolumeSnapshotContent, impl Fn(&Change<VolumeSnapshotContent>, bool)> {
        Place {
            api: Api::all(client.clone()),
            store: &self.contents,
            tell: move |change: &Change<_>, foreign| {
                self.content_changed(change, if foreign { Origin::Watch } else { half });
            },
        }
    }

    /// Where snapshots of a namespace are written.
    pub(crate) fn snapshots_in(
        &self,
        client: &Client,
        namespace: &str,
    ) -> Place<'_, VolumeSnapshot, impl Fn(&Change<VolumeSnapshot>, bool)> {
        Place {
            api: Api::namespaced(client.clone(), namespace),
            store: &self.snapshots,
            tell: |change: &Change<_>, foreign| {
                let origin = if foreign {
                    Origin::Watch
                } else {
                    Origin::Binding
                };
                self.snapshot_changed(change, origin);
            },
        }
    }

    /// Where claims of a namespace are written.
    pub(crate) fn claims_in(
        &self,
        client: &Client,
        namespace: &str,
    ) -> Place<'_, Claim, impl Fn(&Change<Claim>, bool)> {
        Place {
            api: Api::namespaced(client.clone(), namespace),
            store: &self.claims,
            tell: |change: &Change<_>, foreign| {
                if foreign {
                    self.claim_changed(change);
                }
            },
        }
    }

    /// A class has come, gone or changed: what waited for it need not wait on.
    pub(crate) fn class_changed(&self, change: &Change<VolumeSnapshotClass>) {
        let waits = |class: Option<&str>| class.is_none_or(|class| class == change.key);
        for snapshot in self
            .snapshots
            .keys(|one| !one.is_ready() && waits(one.class_name()))
        {
            self.to_bind.add(&snapshot);
        }
        let contents = self.contents.keys(|one| {
            let class = one.spec.volume_snapshot_class_name.as_deref();
            one.spec.driver == self.driver && !one.is_ready() && class == Some(&change.key)
        });
        for content in contents {
            self.to_call.add(&content);
        }
    }

    pub(crate) fn claim_changed(&self, change: &Change<Claim>) {
        for snapshot in self.snapshots.find(&change.key) {
            if !snapshot.is_ready() {
                self.to_bind.add(&key_of(snapshot.as_ref()));
            }
        }
        // A claim that was being made from a snapshot, and is not any more.
        if let Some(snapshot) = change.old.as_ref().and_then(|old| old.waits_for_snapshot()) {
            self.to_bind.add(&snapshot);
        }
    }

    /// The driver's half begins.
    pub(crate) fn call(&self) {
        self.to_call.open();
        self.look_for_calls();
    }

    /// The binding half begins, or is left to somebody else.
    pub(crate) fn bind(&self, begins: bool) {
        for queue in [&self.to_bind, &self.to_protect] {
            if begins {
                queue.open();
            } else {
                queue.close();
            }
        }
        self.look_for_bindings();
    }

    /// Looks at everything once more.
    pub(crate) fn look_at_everything(&self) {
        self.look_for_bindings();
        self.look_for_calls();
    }

    fn look_for_bindings(&self) {
        for snapshot in self.snapshots.keys(|_| true) {
            self.to_bind.add(&snapshot);
        }
        for content in self.our_contents() {
            self.to_protect.add(&content);
        }
    }

    fn look_for_calls(&self) {
        for content in self.our_contents() {
            self.to_call.add(&content);
        }
    }

    fn our_contents(&self) -> Vec<String> {
        self.contents.keys(|one| one.spec.driver == self.driver)
    }
}

/// Whether a snapshot has changed in nothing but its error.
fn is_error_alone(old: &VolumeSnapshot, new: &VolumeSnapshot) -> bool {
    let error = |snapshot: &VolumeSnapshot| snapshot.status.as_ref().and_then(|s| s.error.clone());
    let beside = |snapshot: &VolumeSnapshot| {
        let mut beside = snapshot.clone();
        beside.metadata.resource_version = None;
        if let Some(status) = &mut beside.status {
            status.error = None;
        }
        beside
    };
    error(old) != error(new) && beside(old) == beside(new)
}

/// Whether the driver may have to be called because of a change. Its own status and finalizers are no reason, else a snapshot that
/// is not ready would be asked for without end; but one that has become ready may have been deleted meanwhile.
fn matters_to_sidecar(old: &VolumeSnapshotContent, new: &VolumeSnapshotContent) -> bool {
    let annotations = |content: &VolumeSnapshotContent| {
        let mut all = content.metadata.annotations.clone().unwrap_or_default();
        all.remove(BEING_CREATED);
        all
    };
    Meta::uid(old) != Meta::uid(new)
        || old.is_going() != new.is_going()
        || (!old.is_ready() && new.is_ready())
        || annotations(old) != annotations(new)
        || old.spec != new.spec
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{is_error_alone, matters_to_sidecar};
    use crate::objects::{VolumeSnapshot, VolumeSnapshotContent};

    #[test]
    fn only_an_error_is_not_urgent() {
        let snapshot = |version: &str, name: &str, status: Value| -> VolumeSnapshot {
            serde_json::from_value(json!({
                "metadata": {"namespace": "n", "name": name, "resourceVersion": version}, "status": status,
            }))
            .unwrap()
        };
        let told = |text: &str| json!({"readyToUse": false, "error": {"message": text}});
        let old = snapshot("1", "s", told("a"));
        assert!(is_error_alone(&old, &snapshot("2", "s", told("b"))));
        assert!(is_error_alone(
            &old,
            &snapshot("2", "s", json!({"readyToUse": false}))
        ));
        assert!(!is_error_alone(&old, &snapshot("2", "s", told("a"))));
        let ready = json!({"readyToUse": true, "error": {"message": "b"}});
        assert!(!is_error_alone(&old, &snapshot("2", "s", ready)));
        assert!(!is_error_alone(&old, &snapshot("2", "t", told("b"))));
    }

    fn content(change: impl FnOnce(&mut Value)) -> VolumeSnapshotContent {
        let mut content = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": {"name": "c", "uid": "1", "annotations": {"a": "b"}},
            "spec": {"driver": "vd.csi.io", "deletionPolicy": "Delete", "source": {"volumeHandle": "v"},
                "volumeSnapshotRef": {"namespace": "n", "name": "s", "uid": "2"}},
        });
        change(&mut content);
        serde_json::from_value(content).unwrap()
    }

    #[test]
    fn only_what_a_call_may_depend_on_matters() {
        type Edit = fn(&mut Value);
        let created = "snapshot.storage.kubernetes.io/volumesnapshot-being-created";
        let deleted = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";
        assert!(created != deleted);
        let cases: [(&str, bool, Edit); 9] = [
            ("nothing", false, |_| {}),
            ("a status", false, |c| {
                c["status"] = json!({"readyToUse": false});
            }),
            ("readiness", true, |c| {
                c["status"] = json!({"readyToUse": true});
            }),
            ("a finalizer", false, |c| {
                c["metadata"]["finalizers"] = json!(["x"]);
            }),
            ("its own annotation", false, |c| {
                c["metadata"]["annotations"]["snapshot.storage.kubernetes.io/volumesnapshot-being-created"] =
                    json!("yes");
            }),
            ("the mark of deletion", true, |c| {
                c["metadata"]["annotations"]["snapshot.storage.kubernetes.io/volumesnapshot-being-deleted"] =
                    json!("yes");
            }),
            ("a deletion", true, |c| {
                c["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }),
            ("a policy", true, |c| {
                c["spec"]["deletionPolicy"] = json!("Retain");
            }),
            ("another object", true, |c| {
                c["metadata"]["uid"] = json!("9");
            }),
        ];
        for (what, matters, edit) in cases {
            assert_eq!(
                matters_to_sidecar(&content(|_| {}), &content(edit)),
                matters,
                "{what}"
            );
        }
    }
}
