//! A namespace for one test.

use std::time::Duration;

use serde_json::Value;

use super::DRIVER;
use super::events::{self, Event};
use super::leftovers::Leftovers;
use crate::cluster::Cluster;

/// A namespace of its own for a test. [`Self::finish`] deletes it and proves that nothing is left; when the test has
/// failed it is only deleted, after its events were shown.
#[derive(Debug)]
pub struct Namespace {
    /// The cluster it is in.
    pub cluster: &'static Cluster,
    /// Its name, which is another one at each run.
    pub name: String,
    /// Objects outside of namespaces that go with it, as `kind/name`.
    beside: Vec<String>,
    finished: bool,
}

/// One field of an object, by JSON path.
#[track_caller]
pub fn field(cluster: &Cluster, words: &[&str], path: &str) -> String {
    let path = format!("jsonpath={path}");
    let all = [&["get"], words, &["-o", &path]].concat();
    cluster.kubectl(&all).unwrap()
}

impl Namespace {
    /// Makes one whose name starts with `name`.
    #[track_caller]
    #[must_use]
    pub fn new(cluster: &'static Cluster, name: &str) -> Self {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("{name}-{}", &random[..6]);
        let _made = cluster.kubectl(&["create", "namespace", &name]).unwrap();
        let made = Self {
            cluster,
            name,
            beside: Vec::new(),
            finished: false,
        };
        made.wait("serviceaccount/default", "create");
        made
    }

    /// Applies objects: those that have no namespace come into this one.
    #[track_caller]
    pub fn apply(&self, objects: &[Value]) {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, list.to_string().as_bytes()).unwrap();
        let path = file.path().to_str().expect("a plain path").to_owned();
        let _applied = self.kubectl(&["apply", "-f", &path]);
    }

    /// Applies an object outside of namespaces, which is deleted with this namespace.
    #[track_caller]
    pub fn apply_beside(&mut self, object: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        self.beside.push(format!("{kind}/{name}"));
        self.apply(std::slice::from_ref(object));
    }

    /// Runs `kubectl` in the namespace, which must succeed, and returns what it printed.
    #[track_caller]
    #[must_use]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let all = [&["-n", &self.name], arguments].concat();
        self.cluster.kubectl(&all).unwrap()
    }

    /// Watches an object (`kind/name`) until `what` holds, as `kubectl wait --for` takes it.
    #[track_caller]
    pub fn wait(&self, object: &str, what: &str) {
        let waited = self.cluster.wait_for(object, what, &["-n", &self.name]);
        waited.unwrap();
    }

    /// Watches until a pod is ready.
    #[track_caller]
    pub fn ready(&self, pod: &str) {
        self.wait(&format!("pod/{pod}"), "condition=Ready");
    }

    /// Watches until a claim is bound.
    #[track_caller]
    pub fn bound(&self, claim: &str) {
        self.wait(&format!("pvc/{claim}"), "jsonpath={.status.phase}=Bound");
    }

    /// Watches until a snapshot can be restored.
    #[track_caller]
    pub fn snapshot_ready(&self, snapshot: &str) {
        let ready = "jsonpath={.status.readyToUse}=true";
        self.wait(&format!("volumesnapshot/{snapshot}"), ready);
    }

    /// Runs a shell line in a pod, which must succeed, and returns what it printed without the spaces around.
    #[track_caller]
    pub fn sh(&self, pod: &str, line: &str) -> String {
        let told = self.kubectl(&["exec", pod, "--", "sh", "-c", line]);
        told.trim().to_owned()
    }

    /// Runs a shell line in a pod and says whether it succeeded.
    #[must_use]
    pub fn sh_succeeds(&self, pod: &str, line: &str) -> bool {
        let words = ["-n", &self.name, "exec", pod, "--", "sh", "-c", line];
        self.cluster.try_kubectl(&words).code == Some(0)
    }

    /// One field of an object (`kind/name`), by JSON path.
    #[track_caller]
    #[must_use]
    pub fn field(&self, object: &str, path: &str) -> String {
        field(self.cluster, &["-n", &self.name, object], path)
    }

    /// An object.
    #[track_caller]
    #[must_use]
    pub fn object(&self, object: &str) -> Value {
        let told = self.kubectl(&["get", object, "-o", "json"]);
        serde_json::from_str(&told).expect("kubectl prints JSON")
    }

    /// The node of a pod.
    #[track_caller]
    #[must_use]
    pub fn node_of(&self, pod: &str) -> String {
        self.field(&format!("pod/{pod}"), "{.spec.nodeName}")
    }

    /// The name of the volume of a claim, which is bound.
    #[track_caller]
    #[must_use]
    pub fn volume_of(&self, claim: &str) -> String {
        self.field(&format!("pvc/{claim}"), "{.spec.volumeName}")
    }

    /// The node of the volume of a claim, which is bound.
    #[track_caller]
    #[must_use]
    pub fn node_of_volume(&self, claim: &str) -> String {
        let volume = format!("localvolume/{}", self.volume_of(claim));
        self.field(&volume, "{.spec.nodeName}")
    }

    /// Deletes an object (`kind/name`) and waits until it is gone.
    #[track_caller]
    pub fn delete(&self, object: &str) {
        let _deleted = self.kubectl(&["delete", object]);
    }

    /// Asks for more space.
    #[track_caller]
    pub fn grow(&self, claim: &str, size: &str) {
        let patch = format!(r#"{{"spec":{{"resources":{{"requests":{{"storage":"{size}"}}}}}}}}"#);
        let _patched = self.kubectl(&["patch", "pvc", claim, "-p", &patch]);
    }

    /// All events of the namespace.
    #[track_caller]
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        events::all(self.cluster, &self.name)
    }

    /// Watches until there is an event about `object` (its name) for `reason` that says `part`; returns what it says.
    #[track_caller]
    pub fn event(&self, object: &str, reason: &str, part: &str) -> String {
        events::first(self.cluster, &self.name, object, reason, part)
    }

    /// No claim ever had an event `ProvisioningFailed`: one is enough to end an upload to CDI.
    ///
    /// One there may be on a claim that names a source, which nobody uploads to: kube-scheduler has chosen a node, our controller
    /// chooses the source's instead, and kube-controller-manager, which was writing to the claim just then, says that it tries again.
    #[track_caller]
    pub fn nothing_failed_to_provision(&self) {
        let failed: Vec<Event> = self
            .events()
            .into_iter()
            .filter(|event| event.reason == "ProvisioningFailed")
            .filter(|event| !(event.is_lost_race() && self.names_a_source(&event.object)))
            .collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }

    #[track_caller]
    fn names_a_source(&self, claim: &str) -> bool {
        let claim = format!("pvc/{claim}");
        let words = ["-n", &self.name, &claim, "--ignore-not-found"];
        !field(self.cluster, &words, "{.spec.dataSourceRef.name}").is_empty()
    }

    /// The end of a test in which nothing went wrong: no claim had failed to be provisioned, and everything goes.
    #[track_caller]
    pub fn finish(self) {
        self.nothing_failed_to_provision();
        self.clear();
    }

    /// Deletes everything in the namespace as people do, and proves that nothing is left, as [`Self::vanish`] does. The empty
    /// namespace is left to Kubernetes, which takes its time.
    #[track_caller]
    pub fn clear(self) {
        let kinds = "statefulsets,pods,persistentvolumeclaims,volumesnapshots";
        self.go(|space| drop(space.kubectl(&["delete", kinds, "--all"])));
    }

    /// Deletes the namespace with all in it, and proves that nothing is left: no persistent volume, no object of the
    /// driver, no file, mount or loop device on any node; and that the pools are in order.
    #[track_caller]
    pub fn vanish(self) {
        self.go(|space| drop(space.kubectl(&["delete", "namespace", &space.name])));
    }

    #[track_caller]
    fn go(mut self, delete: impl FnOnce(&Self)) {
        let before = Leftovers::of(self.cluster, &self.name);
        delete(&self);
        // What was on its way meanwhile counts too.
        before
            .and(Leftovers::of(self.cluster, &self.name))
            .are_gone();
        for object in &self.beside {
            let _deleted = self
                .cluster
                .kubectl(&["delete", "--ignore-not-found", object])
                .unwrap();
        }
        self.away();
        self.finished = true;
    }

    /// Asks for the end of the namespace.
    fn away(&self) {
        let away = ["delete", "namespace", &self.name, "--wait=false"];
        let _asked_or_gone = self.cluster.try_kubectl(&away);
    }

    /// What a person would look at first.
    fn explain(&self) -> String {
        let (here, there) = (&self.name, DRIVER);
        let going = "-o custom-columns=NAME:.metadata.name,DELETED:.metadata.deletionTimestamp,FINALIZERS:.metadata.finalizers,\
             ERROR:.status.error.message,CONDITIONS:.status.conditions[*].message";
        let logs = format!(
            "logs -n {there} --selector=app.kubernetes.io/name=vd-csi --all-containers --max-log-requests=50 --ignore-errors --prefix \
             --timestamps --tail=400"
        );
        let asked = [
            format!("get pods,pvc,volumesnapshots -n {here} -o wide"),
            format!("get events -n {here} --sort-by=.metadata.creationTimestamp"),
            "get events -n default --sort-by=.metadata.creationTimestamp".to_owned(),
            "get localvolumes,localsnapshots".to_owned(),
            format!("get volumesnapshots -n {here} {going}"),
            format!("get volumesnapshotcontents {going}"),
            format!("get localvolumes,localsnapshots {going}"),
            format!("get pods,leases -n {there} -o wide"),
            format!("{logs} --previous"),
            logs,
        ];
        let answer = |line: &String| {
            let words: Vec<&str> = line.split(' ').collect();
            self.cluster.try_kubectl(&words).out
        };
        asked.iter().map(answer).collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if std::thread::panicking() {
            eprintln!("{}", self.explain());
        }
        if std::env::var_os("VD_KEEP_CLUSTER").is_some() {
            return;
        }
        self.away();
        for object in &self.beside {
            let away = ["delete", "--ignore-not-found", "--wait=false", object];
            let _asked = self.cluster.try_kubectl(&away);
        }
    }
}

/// How long a node may take to let go of something after its object is gone.
pub(super) const SETTLES: Duration = Duration::from_secs(30);
