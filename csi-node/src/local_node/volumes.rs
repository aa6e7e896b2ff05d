//! Making, growing and deleting volumes.

use std::fs::File;
use std::time::Duration;

use pool::record::{Format, FormatState, Provisioning, Source, VolumeMode, VolumeRecord};
use pool::{Error, ErrorKind, NewVolume, OpenSnapshot, Pool, VolumeId};
use proto::errors::Failure;
use snapshot_engine::Watch;

use super::progress::Running;
use super::{LocalNode, integrity, quiet, release, still};
use crate::blocking::Work;
use crate::claims::{Hold, Object};
use crate::failure;

/// A volume to be made. Sizes are decided: nothing is rounded or defaulted here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRequest {
    /// The id, made from the name.
    pub id: VolumeId,
    /// The orchestrator's name for it.
    pub name: String,
    /// The size asked for, in bytes.
    pub requested_bytes: u64,
    /// The size of the image, in bytes.
    pub size_bytes: u64,
    /// Whether blocks are allocated ahead.
    pub provisioning: Provisioning,
    /// How pods will see it. With a source, the state of a filesystem's format is decided by the source's record.
    pub mode: VolumeMode,
    /// Access modes by their CSI names.
    pub access_modes: Vec<String>,
    /// Where its content comes from.
    pub source: Option<Source>,
}

impl LocalNode {
    /// Makes a volume, or finds the one that has this id, which may differ from what is asked.
    ///
    /// # Errors
    /// `NotFound` for the source, `NoSpace`, `Precondition` when the source cannot be copied now, `Busy`.
    pub async fn create_volume(&self, request: VolumeRequest) -> Result<VolumeRecord, Failure> {
        let id = request.id.to_string();
        self.0
            .creating_volumes
            .run(&id, &request.clone(), || {
                let node = self.clone();
                async move { node.create_volume_alone(request).await }
            })
            .await
    }

    async fn create_volume_alone(&self, request: VolumeRequest) -> Result<VolumeRecord, Failure> {
        let kind = match &request.source {
            None => Work::Change,
            Some(source) => self.work_for(source.clone()).await?,
        };
        let turn = self.turn(kind).await?;
        let mut wanted = vec![(Object::Volume(request.id.to_string()), Hold::Alone)];
        match &request.source {
            Some(Source::Snapshot(id)) => {
                wanted.push((Object::Snapshot(id.to_string()), Hold::Shared));
            }
            Some(Source::Volume(id)) if *id != request.id => {
                wanted.push((Object::Volume(id.to_string()), Hold::Shared));
            }
            Some(Source::Volume(_)) | None => {}
        }
        let claimed = self.0.claims.try_claim("creation", &wanted)?;
        let cut = match &request.source {
            Some(Source::Volume(id)) => Some(self.claim_cut(id).await?),
            Some(Source::Snapshot(_)) | None => None,
        };
        self.run_now(turn, move |node| {
            let _claims = (claimed, cut);
            let copying = node.0.copying.begin(request.id.as_str());
            create(&*node.pool()?, request, &node.watch(&copying)).map_err(failure::of)
        })
        .await
    }

    /// Waits for the right to cut a volume: cuts of one volume take turns.
    pub(super) async fn claim_cut(&self, id: &VolumeId) -> Result<crate::claims::Claimed, Failure> {
        /// A cut takes a second at most. Who waits for a copy of the same volume is asked to come again.
        const PATIENCE: Duration = Duration::from_secs(10);
        let wanted = [(Object::Cut(id.to_string()), Hold::Alone)];
        self.0.claims.claim("cut", &wanted, PATIENCE).await
    }

    /// Grows a volume's image and devices to at least `size_bytes`.
    ///
    /// # Errors
    /// `NotFound`, `NoSpace`, `Busy`.
    pub async fn expand_volume(
        &self,
        id: &VolumeId,
        requested_bytes: u64,
        size_bytes: u64,
    ) -> Result<VolumeRecord, Failure> {
        let id = id.clone();
        self.0
            .expanding
            .run(id.as_str(), &(requested_bytes, size_bytes), || {
                let (node, id) = (self.clone(), id.clone());
                async move {
                    let wanted = [(Object::Volume(id.to_string()), Hold::Alone)];
                    let claimed = node.0.claims.try_claim("expansion", &wanted)?;
                    node.change(move |node| {
                        let _claimed = claimed;
                        node.pool()?
                            .expand_volume(&id, requested_bytes, size_bytes)
                            .map_err(failure::of)
                    })
                    .await
                }
            })
            .await
    }

    /// Deletes a volume; one that is not there is deleted already. What a forgotten unstage left is released first.
    ///
    /// # Errors
    /// `InUse` while it is published or held, `Corrupt` when its record cannot be trusted, `Busy`.
    pub async fn delete_volume(&self, id: &VolumeId) -> Result<(), Failure> {
        let key = id.to_string();
        self.0
            .deleting
            .run(&key, &(), || {
                let (node, id) = (self.clone(), id.clone());
                async move {
                    let wanted = [(Object::Volume(id.to_string()), Hold::Alone)];
                    let claimed = node.0.claims.try_claim("deletion", &wanted)?;
                    let deleted = node
                        .change(move |node| {
                            let _claimed = claimed;
                            delete(&*node.pool()?, &id).map_err(failure::of)
                        })
                        .await;
                    node.empty_trash_soon();
                    deleted
                }
            })
            .await
    }
}

fn delete(pool: &Pool, id: &VolumeId) -> pool::Result<()> {
    match pool.volume(id).and_then(|_| pool.open_image(id, false)) {
        Ok(image) => release::release_unused(&image)?,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {}
        Err(error) => return Err(error),
    }
    pool.delete_volume(id)
}

fn create(
    pool: &Pool,
    request: VolumeRequest,
    running: &Running<'_>,
) -> pool::Result<VolumeRecord> {
    match pool.volume(&request.id) {
        Ok(existing) => return Ok(existing),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    match request.source.clone() {
        None => {
            let fresh = Descent {
                lineage: None,
                mode: request.mode,
            };
            pool.create_volume(new_volume(request, fresh), |_empty| Ok(()))
        }
        Some(Source::Snapshot(id)) => restore(pool, request, &pool.open_snapshot(&id)?, running),
        Some(Source::Volume(id)) => clone(pool, request, &pool.settled_volume(&id)?, running),
    }
}

fn restore(
    pool: &Pool,
    request: VolumeRequest,
    snapshot: &OpenSnapshot,
    running: &Running<'_>,
) -> pool::Result<VolumeRecord> {
    let record = &snapshot.record;
    integrity::refuse_damaged(record)?;
    large_enough(&request, record.virtual_bytes)?;
    let descent = Descent::of(&request, &record.lineage, record.mode);
    let new = new_volume(request, descent);
    let size = new.size_bytes;
    pool.create_volume(new, |target| {
        set_size(target, size)?;
        pool::fault::reached(pool::fault::Step::FillStarted)?;
        snapshot_engine::restore(
            snapshot.image(),
            record,
            target,
            &Watch {
                deadline: None,
                // A pool that is opened again waits for those who still have it open.
                keep_going: &|| running.may_go_on() && pool.guard().is_ok(),
                progress: &|done, total| running.at(done, total),
            },
        )?;
        pool::fault::reached(pool::fault::Step::FillDone)
    })
}

fn clone(
    pool: &Pool,
    request: VolumeRequest,
    source: &VolumeRecord,
    running: &Running<'_>,
) -> pool::Result<VolumeRecord> {
    large_enough(&request, source.size_bytes)?;
    let shares_blocks = pool.reflink()?;
    let image = pool.checked_image(source, false)?;
    let descent = Descent::of(&request, &source.lineage, source.mode);
    let new = new_volume(request, descent);
    let size = new.size_bytes;
    pool.create_volume(new, |target| {
        set_size(target, size)?;
        pool::fault::reached(pool::fault::Step::FillStarted)?;
        if shares_blocks {
            let quiet = quiet::hold(&image)?;
            snapshot_engine::clone_raw(&image, source.size_bytes, target)?;
            quiet.release()?;
        } else {
            still::copy(source, &image, running, |watch| {
                // The second time it begins anew.
                set_size(target, 0)?;
                set_size(target, size)?;
                snapshot_engine::copy_raw(&image, source.size_bytes, target, watch)
            })?;
        }
        pool::fault::reached(pool::fault::Step::FillDone)
    })
}

fn set_size(target: &File, bytes: u64) -> pool::Result<()> {
    use pool::Context;
    target.set_len(bytes).during("give a new image its size")
}

fn large_enough(request: &VolumeRequest, source_bytes: u64) -> pool::Result<()> {
    if request.size_bytes >= source_bytes {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::OutOfRange,
        format!(
            "the new volume would have {} bytes, its source has {source_bytes}: ask for at least as much",
            request.size_bytes
        ),
    ))
}

/// What a new volume takes over from its source, and what it does not have without one.
struct Descent {
    lineage: Option<VolumeId>,
    mode: VolumeMode,
}

impl Descent {
    /// A source that never had a filesystem gives none: its copy is as blank as it is, and gets its own when it is first mounted.
    /// Where mkfs may have begun and was not waited for, what it wrote is thrown away there too. Everything else is content that
    /// mounts or fails, and is never formatted.
    fn of(request: &VolumeRequest, lineage: &VolumeId, source: VolumeMode) -> Self {
        let mode = match (request.mode, source) {
            (VolumeMode::Block, _) => VolumeMode::Block,
            (VolumeMode::Filesystem(asked), source) => VolumeMode::Filesystem(Format {
                fs: asked.fs,
                state: match source {
                    VolumeMode::Filesystem(has) => match has.state {
                        FormatState::Unformatted | FormatState::Formatting => has.state,
                        FormatState::Formatted | FormatState::Inherited => FormatState::Inherited,
                    },
                    VolumeMode::Block => FormatState::Inherited,
                },
            }),
        };
        Self {
            lineage: Some(lineage.clone()),
            mode,
        }
    }
}

fn new_volume(request: VolumeRequest, descent: Descent) -> NewVolume {
    NewVolume {
        id: request.id,
        name: request.name,
        requested_bytes: request.requested_bytes,
        size_bytes: request.size_bytes,
        provisioning: request.provisioning,
        mode: descent.mode,
        access_modes: request.access_modes,
        source: request.source,
        lineage: descent.lineage,
    }
}
