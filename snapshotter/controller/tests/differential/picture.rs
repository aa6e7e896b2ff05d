//! What there is of one scenario, field by field, with nothing in it that is another one in every run: uids, versions, times.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::driver::Driver;
use crate::mirror::{Mirror, Space, Told};

/// What the driver says when it has made a snapshot: only another time is told as such.
const MADE: [&str; 2] = ["2023-11-14T22:13:20Z", "1700000000000000005"];

/// Path and value. A path is an object and a field of it.
pub type Picture = BTreeMap<String, String>;

/// Where a scenario plays.
#[derive(Clone)]
pub struct Source {
    pub mirror: Mirror,
    pub driver: Driver,
    pub namespace: String,
    /// The upstream controller serves it: what that tells or not, as it happens, is left out.
    pub noisy: bool,
}

/// What the upstream controller tells only if something else was faster: the reason, and what is in its message.
const NOISE: &[(&str, &str, &str)] = &[
    (
        "SnapshotContentObjectDeleteError",
        "Failed to delete snapshot content API object",
        "it deletes a content once more whose deletion it has not seen yet",
    ),
    (
        "SnapshotFinalizerError",
        "snapshot controller failed to update",
        "it writes to a snapshot, as it knows it, that has changed since, or is being deleted, or is gone",
    ),
    (
        "ErrorPVCFinalizer",
        "Error check and remove PVC Finalizer",
        "it takes its finalizer off a claim of which it has not seen yet that it is gone",
    ),
];

impl Source {
    pub fn picture(&self) -> Picture {
        let mut picture = Picture::new();
        let words = self.mirror.look(&self.namespace, |space| {
            let words = words(space);
            for ((kind, name), object) in &space.objects {
                let about = format!("{kind}/{}", words.replace(name));
                describe(&mut picture, &words, &about, object);
            }
            events(&mut picture, space, &words, self.noisy);
            words
        });
        self.calls(&mut picture, &words);
        picture
    }

    /// Every event with its message, for who has to find out why one differs.
    pub fn told(&self) -> Vec<String> {
        let line = |told: &Told| {
            let Told {
                kind,
                name,
                reason,
                message,
                by,
                ..
            } = told;
            format!("{kind}/{name} {reason} by {by}: {message}")
        };
        self.mirror.look(&self.namespace, |space| {
            space.told.iter().map(line).collect()
        })
    }

    fn calls(&self, picture: &mut Picture, words: &Words) {
        let volume = format!("vol-{}", self.namespace);
        let ends = [format!(" {volume}"), format!(" handle-{}", self.namespace)];
        let calls: BTreeSet<String> = self
            .driver
            .all_calls()
            .into_iter()
            .map(|call| words.replace(&call))
            .filter(|call| call.contains('{') || ends.iter().any(|end| call.ends_with(end)))
            .collect();
        let calls: Vec<String> = calls.into_iter().collect();
        picture.insert("driver was asked".to_owned(), calls.join(", "));
        let mut kept: Vec<String> = self
            .driver
            .snapshots_of(&volume)
            .iter()
            .map(|id| words.replace(id))
            .collect();
        let handle = format!("handle-{}", self.namespace);
        if self.driver.knows(&handle) {
            kept.push(handle);
        }
        kept.sort();
        picture.insert("driver has".to_owned(), kept.join(", "));
        for (name, (parameters, secrets)) in self.driver.given() {
            let name = words.replace(&name);
            if !name.contains('{') {
                continue;
            }
            for (what, map) in [("parameters", parameters), ("secrets", secrets)] {
                for (key, value) in map {
                    let path = format!("driver was given for {name} {what} {key}");
                    picture.insert(path, words.replace(&value));
                }
            }
        }
        if self.driver.is_asked_again(&volume) {
            // The mark is there during each call, and not between them. Where the driver is made to wait it is compared.
            picture.retain(|path, _| !path.ends_with("volumesnapshot-being-created"));
        }
    }
}

/// Uids of snapshots, and what stands for them.
fn words(space: &Space) -> Words {
    let mut words: Vec<(String, String)> = Vec::new();
    let mut times: BTreeMap<&String, usize> = BTreeMap::new();
    for (uid, (kind, name)) in &space.ever {
        if *kind != "VolumeSnapshot" {
            continue;
        }
        let times = times.entry(name).or_default();
        *times += 1;
        let number = if *times == 1 {
            String::new()
        } else {
            times.to_string()
        };
        words.push((uid.clone(), format!("{{{name}}}{number}")));
    }
    Words(words)
}

fn events(picture: &mut Picture, space: &Space, words: &Words, noisy: bool) {
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut tellers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for told in &space.told {
        let again = words.0.iter().find(|word| word.0 == told.uid);
        let name = match again {
            Some((_, word)) => word.replace(['{', '}'], ""),
            None => words.replace(&told.name),
        };
        let mark = if told.warning { "!" } else { "" };
        let reason = format!("{mark}{}", told.reason);
        let is_noise = |(reason, part, _why): &(&str, &str, &str)| {
            told.reason == *reason && told.message.contains(part)
        };
        if noisy && NOISE.iter().any(is_noise) {
            continue;
        }
        let about = format!("{}/{name}", told.kind);
        let all = reasons.entry(about.clone()).or_default();
        // How often it is told depends on how often it was tried.
        if all.last() != Some(&reason) {
            all.push(reason);
        }
        // csi-provisioner adds where it runs and an id.
        let by = told.by.split('_').next().unwrap_or_default();
        tellers.entry(about).or_default().insert(by.to_owned());
    }
    for (about, reasons) in reasons {
        picture.insert(format!("{about} events"), reasons.join(" "));
    }
    for (about, tellers) in tellers {
        let all: Vec<String> = tellers.into_iter().collect();
        picture.insert(format!("{about} told by"), all.join(", "));
    }
}

/// What stands for what.
struct Words(Vec<(String, String)>);

impl Words {
    fn replace(&self, text: &str) -> String {
        let put = |text: String, (uid, word): &(String, String)| text.replace(uid, word);
        self.0.iter().fold(text.to_owned(), put)
    }
}

fn describe(picture: &mut Picture, words: &Words, about: &str, object: &Value) {
    let of = &object["metadata"];
    let mut kept = json!({"spec": object["spec"], "status": object["status"], "metadata": {}});
    for field in ["finalizers", "annotations", "labels", "ownerReferences"] {
        kept["metadata"][field] = of[field].clone();
    }
    if !of["deletionTimestamp"].is_null() {
        kept["metadata"]["deletionTimestamp"] = json!("some");
    }
    picture.insert(about.to_owned(), "is there".to_owned());
    flatten(picture, words, about, "", &kept);
}

fn flatten(picture: &mut Picture, words: &Words, about: &str, path: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, field) in fields {
                // The name of an annotation has dots of its own.
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                flatten(picture, words, about, &path, field);
            }
        }
        Value::Array(items) if items.is_empty() => {}
        other => {
            let text = match other {
                Value::String(text) => words.replace(text),
                other => words.replace(&other.to_string()),
            };
            picture.insert(format!("{about} {path}"), steady(path, text));
        }
    }
}

/// Without what is another one in every run.
fn steady(path: &str, text: String) -> String {
    if path.ends_with(".resourceVersion") || path.ends_with("error.time") {
        return "some".to_owned();
    }
    if path == "status.creationTime" && !MADE.contains(&text.as_str()) {
        return "the present".to_owned();
    }
    text
}
