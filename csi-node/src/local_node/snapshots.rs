//! Cutting and deleting snapshots.

use std::fs::File;
use std::time::{Duration, Instant};

use pool::fault::{Step, reached};
use pool::record::{SnapshotRecord, Timestamp, VolumeRecord};
use pool::{ErrorKind, NewSnapshot, Pool, SnapshotContent, SnapshotId, VolumeId};
use proto::errors::Failure;
use snapshot_engine::{Cut, Watch};

use super::{LocalNode, quiet};
use crate::claims::{Hold, Object};
use crate::failure;

/// A snapshot to be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// The id, made from the name.
    pub id: SnapshotId,
    /// The orchestrator's name for it.
    pub name: String,
    /// The volume to cut.
    pub source: VolumeId,
}

impl LocalNode {
    /// Cuts a snapshot, or finds the one that has this id, which may be of another volume. When this answers, the cut is
    /// made and durable.
    ///
    /// # Errors
    /// `NotFound` for the volume, `Precondition` when it cannot be copied now, `NoSpace`, `Busy`.
    pub async fn create_snapshot(
        &self,
        request: SnapshotRequest,
    ) -> Result<SnapshotRecord, Failure> {
        let id = request.id.to_string();
        self.0
            .creating_snapshots
            .run(&id, &request.clone(), || {
                let node = self.clone();
                async move { node.create_snapshot_alone(request).await }
            })
            .await
    }

    async fn create_snapshot_alone(
        &self,
        request: SnapshotRequest,
    ) -> Result<SnapshotRecord, Failure> {
        let wanted = [
            (Object::Snapshot(request.id.to_string()), Hold::Alone),
            (Object::Volume(request.source.to_string()), Hold::Shared),
        ];
        let claimed = self.0.claims.try_claim("snapshot", &wanted)?;
        let cut = self.claim_cut(&request.source).await?;
        self.long(move |node| {
            let _claims = (claimed, cut);
            create(&*node.pool()?, request, &|| node.may_go_on()).map_err(failure::of)
        })
        .await
    }

    /// Deletes a snapshot; one that is not there is deleted already.
    ///
    /// # Errors
    /// `Corrupt` when its record cannot be trusted, `Busy` while it is restored.
    pub async fn delete_snapshot(&self, id: &SnapshotId) -> Result<(), Failure> {
        let key = id.to_string();
        self.0
            .deleting
            .run(&key, &(), || {
                let (node, id) = (self.clone(), id.clone());
                async move {
                    let wanted = [(Object::Snapshot(id.to_string()), Hold::Alone)];
                    let claimed = node.0.claims.try_claim("deletion", &wanted)?;
                    let deleted = node
                        .long(move |node| {
                            let _claimed = claimed;
                            node.pool()?.delete_snapshot(&id).map_err(failure::of)
                        })
                        .await;
                    node.empty_trash_soon();
                    deleted
                }
            })
            .await
    }
}

fn create(
    pool: &Pool,
    request: SnapshotRequest,
    go_on: &dyn Fn() -> bool,
) -> pool::Result<SnapshotRecord> {
    match pool.snapshot(&request.id) {
        Ok(existing) => return Ok(existing),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let source = pool.volume(&request.source)?;
    let shares_blocks = pool.reflink()?;
    let live = pool.checked_image(&source, false)?;
    let new = NewSnapshot {
        id: request.id,
        name: request.name,
        source: source.clone(),
        shares_blocks,
    };
    pool.create_snapshot(new, |image| {
        if shares_blocks {
            share(&source, &live, image)
        } else {
            copy(&source, &live, image, go_on)
        }
    })
}

/// Holds the volume still, cuts with one call, lets it go on, and only then writes the tables.
fn share(source: &VolumeRecord, live: &File, image: &File) -> pool::Result<SnapshotContent> {
    let cut = Cut::prepare(image, source.size_bytes)?;
    let held = Instant::now();
    let quiet = quiet::hold(source, live, true)?;
    reached(Step::SnapshotFrozen)?;
    let created = Timestamp::now();
    let stall = cut.reflink(live)?;
    reached(Step::SnapshotCut)?;
    let stall = if quiet.deadline().is_some() {
        held.elapsed()
    } else {
        stall
    };
    quiet.release(true)?;
    reached(Step::SnapshotThawed)?;
    finish(cut, created, stall)
}

fn copy(
    source: &VolumeRecord,
    live: &File,
    image: &File,
    go_on: &dyn Fn() -> bool,
) -> pool::Result<SnapshotContent> {
    let cut = Cut::prepare(image, source.size_bytes)?;
    let held = Instant::now();
    let quiet = quiet::hold(source, live, false)?;
    reached(Step::SnapshotFrozen)?;
    let created = Timestamp::now();
    let watch = Watch {
        deadline: quiet.deadline(),
        keep_going: go_on,
        ..Watch::UNWATCHED
    };
    cut.copy(live, &watch)?;
    reached(Step::SnapshotCut)?;
    quiet.release(false)?;
    reached(Step::SnapshotThawed)?;
    finish(cut, created, held.elapsed())
}

fn finish(cut: Cut<'_>, created: Timestamp, stall: Duration) -> pool::Result<SnapshotContent> {
    let captured = cut.finish()?;
    Ok(SnapshotContent {
        created,
        virtual_bytes: captured.virtual_bytes,
        charge_bytes: captured.charge_bytes,
        data_offset: captured.data_offset,
        metadata_digest: captured.metadata_digest,
        extents: captured.runs,
        stall_us: u64::try_from(stall.as_micros()).unwrap_or(u64::MAX),
    })
}
