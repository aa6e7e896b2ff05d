//! Everything one node does with its pool on behalf of a controller: volumes, snapshots, restores, clones.
//!
//! `vdctl serve` calls it in the same process; an agent on Kubernetes calls it from its reconcilers. Each operation is
//!
//! ```text
//! join or start ─> claim the objects ─> blocking thread: pool + snapshot engine ─> answer, also to those who joined
//! ```
//! and goes on when the caller goes away.

mod forgotten;
mod health;
mod integrity;
mod progress;
mod quiet;
mod read;
mod release;
mod repack;
mod scrub;
mod snapshots;
mod still;
mod volumes;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use health::Problem;
pub use integrity::{Verdict, describe};
use pool::Pool;
use pool::record::{Packing, SnapshotRecord, Source, VolumeRecord};
pub use progress::Wanted;
use proto::errors::{Failure, Kind};
pub use read::Page;
pub use scrub::{Period, Rate, Scrub};
pub use snapshots::SnapshotRequest;
pub use volumes::VolumeRequest;

use crate::blocking::{Blocking, Turn, Work};
use crate::claims::Claims;
use crate::failure;
use crate::joiner::Joiner;
use crate::pool_handle::PoolHandle;

/// One node's pool and everything that runs on it. Cheap to clone; all clones are the same node.
#[derive(Clone, Debug)]
pub struct LocalNode(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    pool: PoolHandle,
    claims: Claims,
    blocking: Blocking,
    stopping: AtomicBool,
    copying: progress::Copies,
    repacking: repack::Repacking,
    integrity: integrity::Integrity,
    creating_volumes: Joiner<VolumeRequest, VolumeRecord>,
    creating_snapshots: Joiner<SnapshotRequest, SnapshotRecord>,
    expanding: Joiner<(u64, u64), VolumeRecord>,
    deleting: Joiner<(), ()>,
}

impl LocalNode {
    /// The node `name` with the pool behind `pool`.
    #[must_use]
    pub fn new(name: String, pool: PoolHandle) -> Self {
        Self(Arc::new(Inner {
            name,
            pool,
            claims: Claims::default(),
            blocking: Blocking::default(),
            stopping: AtomicBool::new(false),
            copying: progress::Copies::default(),
            repacking: repack::Repacking::default(),
            integrity: integrity::Integrity::default(),
            creating_volumes: Joiner::default(),
            creating_snapshots: Joiner::default(),
            expanding: Joiner::default(),
            deleting: Joiner::default(),
        }))
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Where the pool is opened, and which one is expected there.
    #[must_use]
    pub fn handle(&self) -> &PoolHandle {
        &self.0.pool
    }

    /// How far a copy for this volume or snapshot is, in percent; `None` when nothing is copied for it.
    #[must_use]
    pub fn progress(&self, id: &str) -> Option<i32> {
        self.0.copying.percent(id)
    }

    /// Lets no copy of `volume` go on until the answer is dropped, so that whoever wants to use it need not wait for one.
    #[must_use]
    pub fn want(&self, volume: &str) -> Wanted {
        Wanted::new(self.clone(), volume)
    }

    /// The claims of running operations, for the Node service.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.0.claims
    }

    /// The threads for blocking work, for the Node service.
    #[must_use]
    pub fn blocking(&self) -> &Blocking {
        &self.0.blocking
    }

    /// The pool, opened if need be. Blocks.
    ///
    /// # Errors
    /// Why it cannot be used now.
    pub fn pool(&self) -> Result<Arc<Pool>, Failure> {
        self.0.pool.get().map_err(failure::of)
    }

    /// Where the pool is, or would be.
    #[must_use]
    pub fn pool_path(&self) -> &Path {
        self.0.pool.path()
    }

    /// Whether volumes can be served now.
    ///
    /// # Errors
    /// Why not.
    pub async fn probe(&self) -> Result<(), Failure> {
        let node = self.clone();
        self.0
            .blocking
            .run(Work::Short, move || node.pool().map(drop))
            .await
    }

    /// Keeps the pool open and its trash empty, and compresses what is to be compressed, until the future is dropped. A pool
    /// that went away is opened again here, also when nobody asks for anything.
    pub async fn maintain(&self, interval: Duration) {
        tokio::join!(self.keep_trash_empty(interval), self.keep_packed(interval));
    }

    async fn keep_trash_empty(&self, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        loop {
            ticks.tick().await;
            self.empty_trash().await;
        }
    }

    /// Frees what was deleted.
    async fn empty_trash(&self) {
        let node = self.clone();
        let emptied = self
            .0
            .blocking
            .run(Work::Freeing, move || {
                node.pool()?.empty_trash().map_err(failure::of)
            })
            .await;
        if let Err(error) = emptied {
            tracing::debug!(%error, "the trash was not emptied; it is tried again");
        }
    }

    /// Frees what was deleted, without anybody waiting for it.
    fn empty_trash_soon(&self) {
        let node = self.clone();
        tokio::spawn(async move { node.empty_trash().await });
    }

    /// Ends the node's work: nothing new is begun, copies stop and leave nothing, everything else is waited for, at most
    /// for `patience`. What is published stays as it is.
    pub async fn stop(&self, patience: Duration) {
        self.0.stopping.store(true, Ordering::Release);
        if tokio::time::timeout(patience, self.0.blocking.idle())
            .await
            .is_err()
        {
            tracing::warn!("work is still running; the next start finishes or removes it");
        }
    }

    fn watch<'node>(
        &'node self,
        copying: &'node progress::Copying<'node>,
    ) -> progress::Running<'node> {
        progress::Running {
            node: self,
            copying,
        }
    }

    fn may_go_on(&self) -> bool {
        !self.0.stopping.load(Ordering::Acquire)
    }

    /// Runs `work` that copies no data.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let turn = self.turn(Work::Change).await?;
        self.run_now(turn, work).await
    }

    /// Waits until work of this kind may run. Nothing is claimed meanwhile: what waits behind copies of hours keeps nobody from
    /// using its volume.
    async fn turn(&self, kind: Work) -> Result<Turn, Failure> {
        let turn = self.0.blocking.turn(kind).await?;
        if self.may_go_on() {
            return Ok(turn);
        }
        Err(Failure::new(
            Kind::Unavailable,
            "the driver is stopping; try again",
        ))
    }

    async fn run_now<T: Send + 'static>(
        &self,
        turn: Turn,
        work: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let node = self.clone();
        self.0.blocking.run_now(turn, move || work(&node)).await
    }

    /// What kind of work it is to make something of `source`: a copy, where blocks cannot be shared, or are packed. Who cannot be
    /// asked makes no work.
    async fn work_for(&self, source: Source) -> Result<Work, Failure> {
        // The usual case, and the one in which milliseconds count: no thread has to be woken for it.
        if matches!(source, Source::Volume(_)) {
            let known = self.0.pool.opened().and_then(|pool| pool.known_reflink());
            if known == Some(true) {
                return Ok(Work::Change);
            }
        }
        self.short(move |node| {
            let copies = node.pool().and_then(|pool| {
                let packed = match &source {
                    Source::Volume(_) => false,
                    Source::Snapshot(id) => {
                        let record = pool.snapshot(id).map_err(failure::of)?;
                        matches!(record.packing, Packing::Done(_))
                    }
                };
                Ok(packed || !pool.reflink().map_err(failure::of)?)
            });
            Ok(match copies {
                Ok(true) => Work::Copy,
                Ok(false) | Err(_) => Work::Change,
            })
        })
        .await
    }
}
