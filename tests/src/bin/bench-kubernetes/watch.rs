//! Watching objects come and become what they should.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tests::cluster::Cluster;

/// The last of what was there before, in a watch that begins with it.
const END_OF_LIST: &str = "/object/metadata/annotations/k8s.io~1initial-events-end";

/// A watch on one kind of object in one namespace.
#[derive(Debug)]
pub(crate) struct Watch {
    child: Child,
    lines: BufReader<ChildStdout>,
    /// Where the watched value is, as a JSON pointer into the object.
    field: &'static str,
}

impl Watch {
    /// Watches `field` of the objects at `path` of the API. When this answers, the API server tells of every change.
    pub(crate) fn start(cluster: &Cluster, path: &str, field: &'static str) -> Result<Self> {
        let request = format!(
            "{path}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
        );
        let mut child = cluster
            .command("kubectl")
            .args(["get", "--raw", &request])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start kubectl")?;
        let lines = BufReader::new(child.stdout.take().context("no output")?);
        let mut watch = Self {
            child,
            lines,
            field,
        };
        while watch.event()?.pointer(END_OF_LIST).is_none() {}
        Ok(watch)
    }

    /// Waits until each of `names` has been seen with `value`. The time from when the first of them was seen.
    pub(crate) fn until(&mut self, names: &[String], value: &Value) -> Result<Duration> {
        let mut missing: HashSet<&str> = names.iter().map(String::as_str).collect();
        let mut first = None;
        while !missing.is_empty() {
            let event = self.event()?;
            let name = event.pointer("/object/metadata/name");
            let name = name.and_then(Value::as_str).unwrap_or_default();
            if names.iter().any(|one| one == name) {
                let _since = first.get_or_insert_with(Instant::now);
                if event["object"].pointer(self.field) == Some(value) {
                    let _seen = missing.remove(name);
                }
            }
        }
        Ok(first.map_or(Duration::ZERO, |first| first.elapsed()))
    }

    fn event(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            bail!("the watch ended");
        }
        let event: Value = serde_json::from_str(&line).context("an event of a watch")?;
        ensure!(event["type"] != "ERROR", "the watch failed: {event}");
        Ok(event)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
