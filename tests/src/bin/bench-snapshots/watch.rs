//! Watching snapshots become ready, and go.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::stream::{BoxStream, StreamExt as _};
use kube::core::DynamicObject;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt as _};

use crate::objects::snapshots;

/// Longer than anything takes that ends.
const PATIENCE: Duration = Duration::from_secs(600);

/// A watch on all snapshots.
pub(crate) struct Watch {
    events: BoxStream<'static, watcher::Result<Event<DynamicObject>>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// When this answers, the API server tells of every change.
    pub(crate) async fn start(client: &Client) -> Result<Self> {
        let events = watcher(snapshots(client), watcher::Config::default()).boxed();
        let mut watch = Self { events };
        while !matches!(watch.next().await?, Event::InitDone) {}
        Ok(watch)
    }

    /// Returns once each of these was seen ready.
    pub(crate) async fn until_ready(&mut self, names: &[String]) -> Result<()> {
        let is_ready = |object: &DynamicObject| object.data["status"]["readyToUse"] == true;
        self.until(names, |event| match event {
            Event::Apply(object) | Event::InitApply(object) if is_ready(object) => {
                Some(object.name_any())
            }
            _ => None,
        })
        .await
        .context("waiting until snapshots are ready")
    }

    /// Returns once each of these was seen to go.
    pub(crate) async fn until_gone(&mut self, names: &[String]) -> Result<()> {
        self.until(names, |event| match event {
            Event::Delete(object) => Some(object.name_any()),
            _ => None,
        })
        .await
        .context("waiting until snapshots are gone")
    }

    async fn until(
        &mut self,
        names: &[String],
        done: impl Fn(&Event<DynamicObject>) -> Option<String>,
    ) -> Result<()> {
        let mut missing: HashSet<&str> = names.iter().map(String::as_str).collect();
        let seen = async {
            while !missing.is_empty() {
                if let Some(name) = done(&self.next().await?) {
                    let _seen = missing.remove(name.as_str());
                }
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, seen)
            .await
            .context("nothing comes any more")?
    }

    async fn next(&mut self) -> Result<Event<DynamicObject>> {
        let event = self.events.next().await.context("the watch ended")?;
        event.context("the watch failed")
    }
}
