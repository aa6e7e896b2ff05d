//! Cutting and deleting snapshots.

use std::fs::File;
use std::time::{Duration, Instant};

use pool::fault::{Step, reached};
use pool::record::{Checksum, Compression, SnapshotRecord, Source, Timestamp, VolumeRecord};
use pool::{Context, ErrorKind, NewSnapshot, Pool, SnapshotContent, SnapshotId, VolumeId};
use proto::errors::Failure;
use snapshot_engine::{Cut, ReadBack};

use super::progress::Running;
use super::{LocalNode, integrity, quiet, still};
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
    /// The image is to be compressed once it is there.
    pub compression: Option<Compression>,
    /// How its data is to be digested in the background, once it is cut.
    pub checksum: Option<Checksum>,
}

impl LocalNode {
    /// Cuts a snapshot, or finds the one that has this id, which may be of another volume. When this answers, the cut is
    /// made and durable.
    ///
    /// # Errors
    /// `NotFound` for the volume, `Precondition` when it cannot be copied now, `NoSpace`, `Busy`; `Corrupt` for one that exists
    /// and is known to be damaged.
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
        let kind = self
            .work_for(Source::Volume(request.source.clone()))
            .await?;
        let turn = self.turn(kind).await?;
        let claimed = self.0.claims.try_claim("snapshot", &wanted)?;
        let cut = self.claim_cut(&request.source).await?;
        let made = self
            .run_now(turn, move |node| {
                let _claims = (claimed, cut);
                let copying = node.0.copying.begin(request.id.as_str());
                create(&*node.pool()?, request, &node.watch(&copying)).map_err(failure::of)
            })
            .await?;
        if made.checksum.is_some() {
            self.0.integrity.wanted.notify_one();
        }
        if made.packing.is_wanted() {
            self.repack_soon();
        }
        Ok(made)
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
                        .change(move |node| {
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
    watch: &Running<'_>,
) -> pool::Result<SnapshotRecord> {
    match pool.snapshot(&request.id) {
        Ok(existing) => {
            integrity::refuse_damaged(&existing)?;
            return Ok(existing);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let source = pool.settled_volume(&request.source)?;
    let shares_blocks = pool.reflink()?;
    let live = pool.checked_image(&source, false)?;
    let new = NewSnapshot {
        id: request.id,
        name: request.name,
        source: source.clone(),
        shares_blocks,
        compression: request.compression,
        checksum: request.checksum,
    };
    pool.create_snapshot(new, |image| {
        let (content, read_back) = if shares_blocks {
            share(&source, &live, image)?
        } else {
            copy(&source, &live, image, watch)?
        };
        Ok((content, Box::new(move |image| read_back.compare(image))))
    })
}

/// A snapshot's image that is durable, and what it has to read back as.
type Finished = (SnapshotContent, ReadBack);

/// Holds the volume still, cuts with one call, lets it go on, and only then writes the tables.
fn share(source: &VolumeRecord, live: &File, image: &File) -> pool::Result<Finished> {
    let cut = Cut::prepare(image, source.size_bytes)?;
    let held = Instant::now();
    let quiet = quiet::hold(live)?;
    reached(Step::SnapshotFrozen)?;
    let created = Timestamp::now();
    let stall = cut.reflink(live)?;
    reached(Step::SnapshotCut)?;
    let stall = if quiet.is_frozen() {
        held.elapsed()
    } else {
        stall
    };
    quiet.release()?;
    reached(Step::SnapshotThawed)?;
    finish(cut, created, stall)
}

/// Copies what is proved to be one moment, and only then writes the tables.
fn copy(
    source: &VolumeRecord,
    live: &File,
    image: &File,
    running: &Running<'_>,
) -> pool::Result<Finished> {
    let copied = still::copy(source, live, running, |watch| {
        // The second time it begins anew.
        image.set_len(0).during("empty the new image")?;
        let cut = Cut::prepare(image, source.size_bytes)?;
        reached(Step::SnapshotFrozen)?;
        let created = Timestamp::now();
        cut.copy(live, watch)?;
        reached(Step::SnapshotCut)?;
        Ok((cut, created))
    })?;
    reached(Step::SnapshotThawed)?;
    let (cut, created) = copied.made;
    finish(cut, created, copied.held)
}

fn finish(cut: Cut<'_>, created: Timestamp, stall: Duration) -> pool::Result<Finished> {
    let (captured, read_back) = cut.finish()?;
    let content = SnapshotContent {
        created,
        virtual_bytes: captured.virtual_bytes,
        charge_bytes: captured.charge_bytes,
        data_offset: captured.data_offset,
        metadata_digest: captured.metadata_digest,
        extents: captured.runs,
        stall_us: u64::try_from(stall.as_micros()).unwrap_or(u64::MAX),
    };
    Ok((content, read_back))
}
