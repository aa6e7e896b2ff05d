//! A scenario's part on one side.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use kube::core::DynamicObject;
use serde_json::Value;
use tokio::sync::Barrier;

use crate::beat::Beat;
use crate::compare::Meeting;
use crate::mirror::Mirror;
use crate::side::{Servers, Side};
use crate::stage::Stage;

/// Longest wait for the scenarios that share a restart.
const PATIENCE: Duration = Duration::from_secs(200);

/// What a scenario acts on, on one side.
pub struct Part {
    pub stage: Stage,
    pub side: Side,
    pub meeting: Arc<Meeting>,
    pub mirror: Mirror,
    pub beat: Beat,
    pub servers: Arc<Servers>,
    /// All who share a restart of the side's programs.
    pub together: Arc<Barrier>,
}

impl Deref for Part {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl Part {
    /// Compares the sides, once all of them are here and have come to rest.
    pub async fn compare(&self, at: &'static str) {
        self.meeting.compare(self.side, at).await;
    }

    /// Waits until the controllers have seen what was made up to now.
    pub async fn seen(&self) {
        self.beat.one().await;
    }

    /// A class, a bound claim, and a snapshot once those are known: what a controller tells when its view is late is not compared.
    pub async fn begin(&self) -> DynamicObject {
        let class = self.class(|_| {}).await;
        self.claim(self.driver.name).await;
        self.seen().await;
        self.snapshot(Some(&class)).await
    }

    /// The same with a class of one's own.
    pub async fn begin_with(&self, change: impl FnOnce(&mut Value)) -> DynamicObject {
        let class = self.class(change).await;
        self.claim(self.driver.name).await;
        self.seen().await;
        self.snapshot(Some(&class)).await
    }

    /// Waits until the snapshot has its content and both finalizers, whatever becomes of it.
    pub async fn until_bound(&self) {
        self.until_snapshot("bound", |s| {
            let finalizers = s["metadata"]["finalizers"].as_array();
            finalizers.is_some_and(|all| all.len() == 2)
        })
        .await;
    }

    /// A handle of the scenario's own.
    pub fn handle(&self) -> String {
        format!("handle-{}", self.name)
    }

    /// Deletes `snap` and waits until it and its content are gone.
    pub async fn delete_all(&self, content: &str) {
        self.delete(&self.snapshots(), "snap").await;
        self.until_gone(&self.snapshots(), "snap").await;
        self.until_gone(&self.contents(), content).await;
    }

    /// Returns when all who share the restart are here and the side's programs are killed.
    pub async fn killed(&self) {
        self.until_all_told().await;
        self.with_the_others(false).await;
    }

    /// Returns when all who share the restart are here and the side's programs run again.
    pub async fn started(&self) {
        self.with_the_others(true).await;
    }

    async fn with_the_others(&self, start: bool) {
        let waiting = async {
            if self.together.wait().await.is_leader() {
                if start {
                    self.servers.start().await;
                } else {
                    self.servers.kill().await;
                }
            }
            self.together.wait().await;
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(
            waited.is_ok(),
            "{}: the others that share the restart do not come",
            self.name
        );
    }
}
