//! What Kubernetes tells a person who looks at an object.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cluster::Cluster;
use crate::tools;

/// How long an event may take to come, in seconds.
const PATIENCE: &str = "110";

/// An event of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The name of the object that it is about.
    pub object: String,
    /// `ProvisioningFailed`, `FailedScheduling`, ...
    pub reason: String,
    /// What it says.
    pub message: String,
}

impl Event {
    /// kube-controller-manager wrote to a claim that somebody else had changed, and will do so again.
    pub(super) fn is_lost_race(&self) -> bool {
        self.message.starts_with(
            "Error saving claim: Operation cannot be fulfilled on persistentvolumeclaims",
        ) && self
            .message
            .ends_with("please apply your changes to the latest version and try again")
    }
}

/// All events of a namespace.
#[track_caller]
pub(super) fn all(cluster: &Cluster, namespace: &str) -> Vec<Event> {
    let told = cluster
        .kubectl(&["get", "events", "-n", namespace, "-o", "json"])
        .unwrap();
    let list: Value = serde_json::from_str(&told).expect("kubectl prints JSON");
    let entries = list["items"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    entries
        .iter()
        .map(|one| Event {
            object: text(&one["involvedObject"]["name"]),
            reason: text(&one["reason"]),
            message: text(&one["message"]),
        })
        .collect()
}

/// Watches until there is an event about `object` for `reason` whose message contains `part`, and returns the message.
#[track_caller]
pub(super) fn first(
    cluster: &Cluster,
    namespace: &str,
    object: &str,
    reason: &str,
    part: &str,
) -> String {
    let chosen = format!("--field-selector=involvedObject.name={object},reason={reason}");
    let kubectl = cluster.command("kubectl");
    let mut command = Command::new("timeout");
    let _command = command
        .arg(PATIENCE)
        .arg(kubectl.get_program())
        .args(["get", "events", "-n", namespace, &chosen, "--watch"])
        .args(["-o", "jsonpath={.message}{\"\\n\"}"])
        .env("KUBECONFIG", cluster.kubeconfig())
        .stdout(Stdio::piped());
    let mut watch = tools::start(&mut command).expect("kubectl starts");
    let lines = BufReader::new(watch.stdout.take().expect("it is piped")).lines();
    let mut seen = Vec::new();
    let mut found = None;
    for line in lines.map_while(Result::ok) {
        if line.contains(part) {
            found = Some(line);
            break;
        }
        seen.push(line);
    }
    // Also when it has ended by itself.
    let _asked_to_end = watch.kill();
    let _ended = watch.wait();
    found.unwrap_or_else(|| {
        panic!("no event {reason} of {object} says {part:?}; there were {seen:#?}")
    })
}
