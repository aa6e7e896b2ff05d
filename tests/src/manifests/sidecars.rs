//! The sidecars, stock and our own, as processes, with the flags and exactly the rights of `deploy/vd-csi.yaml`.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::api_server::{ApiServer, User, program};
use super::documents::shipped;
use crate::{binaries, tools};

/// Where the sidecars of the pod find the driver.
const SOCKET: &str = "/run/csi/csi.sock";
/// The pod that they believe to be in.
const POD: &str = "csi-controller-test";

/// csi-provisioner, csi-resizer and snapshotter. Stopped when they go out of scope.
#[derive(Debug)]
pub struct Sidecars {
    children: Vec<Child>,
    logs: Vec<std::path::PathBuf>,
}

impl Sidecars {
    /// Starts them against the driver that listens on `socket`, as the service account of the pod. Logs go to `folder`.
    #[must_use]
    pub fn start(server: &ApiServer, socket: &Path, folder: &Path) -> Self {
        make_pod(server);
        let account = [
            "-n",
            "vd-csi",
            "create",
            "token",
            "csi-controller",
            "--duration=1h",
        ];
        let token = server.kubectl(&User::Admin, &account).ok();
        let kubeconfig = server.kubeconfig(&User::Token(token.trim().to_owned()));
        let mut all = Self {
            children: Vec::new(),
            logs: Vec::new(),
        };
        for container in containers() {
            let name = container["name"].as_str().expect("a name");
            let log = folder.join(name).with_extension("log");
            let file = std::fs::File::create(&log).expect("a log");
            // Only our own image has other programs than the one it is named after.
            let mut command = Command::new(match container["command"][0].as_str() {
                Some(ours) => binaries::program(ours),
                None => program(name),
            });
            let _command = command
                .args(arguments(&container, socket))
                .arg(format!("--kubeconfig={}", kubeconfig.display()))
                // In a pod it is the pod's own.
                .arg("--leader-election-namespace=vd-csi")
                .envs([("POD_NAME", POD), ("NAMESPACE", "vd-csi")])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(file);
            all.children
                .push(tools::start(&mut command).expect("start a sidecar"));
            all.logs.push(log);
        }
        all
    }

    /// Every line that one of them wrote.
    #[must_use]
    pub fn said(&self) -> String {
        let texts = self
            .logs
            .iter()
            .map(|log| std::fs::read_to_string(log).expect("a log"));
        texts.collect()
    }
}

impl Drop for Sidecars {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What they said tells why; the logs go with the test.
            eprintln!("{}", self.said());
        }
        for child in &mut self.children {
            // One that has ended by itself is waited for all the same.
            let _killed = child.kill();
            let _status = child.wait();
        }
    }
}

fn deployment() -> Value {
    let found = shipped()
        .into_iter()
        .find(|object| object["kind"] == "Deployment");
    found.expect("a Deployment is shipped")
}

/// The containers of the controller's pod beside the driver.
fn containers() -> Vec<Value> {
    let pod = &deployment()["spec"]["template"]["spec"];
    let all = pod["containers"].as_array().expect("containers").clone();
    all.into_iter()
        .filter(|container| container["name"] != "csi-controller")
        .collect()
}

/// The shipped arguments, but for places that are a pod's own.
fn arguments(container: &Value, socket: &Path) -> Vec<String> {
    let shipped = container["args"].as_array().expect("arguments").iter();
    let texts = shipped.map(|argument| argument.as_str().expect("text").to_owned());
    texts
        // Tests that run at once would want the same port.
        .filter(|argument| !argument.starts_with("--http-endpoint="))
        .map(|argument| argument.replace(SOCKET, &socket.display().to_string()))
        .map(|argument| {
            if argument.starts_with("--metrics-listen=") {
                "--metrics-listen=127.0.0.1:0".to_owned()
            } else {
                argument
            }
        })
        .collect()
}

/// The pod and its ReplicaSet, which a controller would make: csi-provisioner goes from the one to the other to the Deployment.
fn make_pod(server: &ApiServer) {
    let get = [
        "-n",
        "vd-csi",
        "get",
        "deployment/csi-controller",
        "-o",
        "jsonpath={.metadata.uid}",
    ];
    let deployment = server.kubectl(&User::Admin, &get).ok();
    let owner = |kind: &str, name: &str, uid: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true}]);
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    let labels = json!({"a": "b"});
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": POD, "namespace": "vd-csi",
            "ownerReferences": owner("Deployment", "csi-controller", &deployment)},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec}},
    });
    let uid = ["create", "-o", "jsonpath={.metadata.uid}"];
    let set = server.send(&User::Admin, &uid, &set).ok();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": POD, "namespace": "vd-csi", "ownerReferences": owner("ReplicaSet", POD, &set)},
        "spec": spec,
    });
    let _output = server.send(&User::Admin, &["create"], &pod).ok();
}
