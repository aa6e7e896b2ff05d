//! The agent of one Kubernetes node: the CSI services for kubelet, its own registration, and the node's custom resources.
//!
//! ```text
//! kubelet ── plugins_registry/<driver>-reg.sock ──> registration
//!         ── csi.sock ──> Identity, Node ──────────────┐
//! API server ── LocalVolume, LocalSnapshot ──> objects ─┼──> LocalNode ──> pool
//!            <── LocalPool, events ── pool_report ──────┘
//! ```
//! kubelet's side needs no API server: mounts and probes work without it, also from the start. The other side catches up once
//! it is back.

mod authority;
mod condition;
mod connect;
mod events;
mod metrics;
pub mod objects;
mod pool_report;
mod quantity;
pub mod registration;
mod serve;
mod settings;
mod standing;
pub mod supervisor;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{Stream, StreamExt as _, stream};
use kube::Client;
use kube::runtime::reflector;
pub use serve::run;
pub use settings::{PoolInit, Settings};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use self::events::Events;
use self::metrics::{Operations, PoolGauges};
use self::objects::Running;
use self::pool_report::Reporter;
use self::standing::Standing;
use crate::LocalNode;

/// What all parts of the agent share.
pub(crate) struct Agent {
    pub(crate) node: LocalNode,
    pub(crate) client: Client,
    pub(crate) events: Events,
    pub(crate) operations: Operations,
    pub(crate) pool_gauges: PoolGauges,
    pub(crate) standing: Arc<Standing>,
    pub(crate) running: Running,
    /// Rung when something changed that the LocalPool shows.
    pub(crate) changed: Notify,
    /// How many kinds of objects are known: of volumes and of snapshots, all of this node.
    pub(crate) synced: AtomicUsize,
}

impl Agent {
    /// Whether all objects of this node are known.
    pub(crate) fn knows_all_objects(&self) -> bool {
        self.synced.load(Ordering::Acquire) == 2
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Agent")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Works for the custom resources until it is dropped. It returns only when a part of it has ended, which none does by
/// itself. `published` names volumes whose mounts changed.
pub(crate) async fn work(agent: Arc<Agent>, may_init: bool, published: mpsc::Receiver<String>) {
    let (volumes, volume_writer) = reflector::store();
    let (snapshots, snapshot_writer) = reflector::store();
    let reporter = Reporter::new(Arc::clone(&agent), volumes, snapshots, may_init);
    let mut parts = JoinSet::new();
    parts.spawn(reporter.run());
    let told = told(Arc::clone(&agent), published);
    parts.spawn(objects::run(Arc::clone(&agent), volume_writer, told));
    let found = found(Arc::clone(&agent));
    parts.spawn(objects::run(Arc::clone(&agent), snapshot_writer, found));
    if let Some(ended) = parts.join_next().await {
        tracing::error!(?ended, "a part of the work on objects ended");
    }
}

/// The names of snapshots of whose data something new is known.
fn found(agent: Arc<Agent>) -> impl Stream<Item = String> + Send + 'static {
    let changes = agent.node.snapshot_changes();
    stream::unfold((changes, agent), |(mut changes, agent)| async move {
        loop {
            match changes.recv().await {
                Ok(name) => {
                    agent.changed.notify_one();
                    return Some((name, (changes, agent)));
                }
                // All objects are looked at from time to time.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

fn told(
    agent: Arc<Agent>,
    published: mpsc::Receiver<String>,
) -> impl Stream<Item = String> + Send + 'static {
    ReceiverStream::new(published).inspect(move |_name| agent.changed.notify_one())
}
