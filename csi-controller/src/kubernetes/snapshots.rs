//! CreateSnapshot and DeleteSnapshot, through their objects.

use api::LocalSnapshot;
use proto::errors::{Failure, Kind};

use super::convert;
use super::erase::{erase, withdraw};
use super::volumes::{Settled, Volumes, existing, settle};
use super::wait::Deadline;
use crate::backend::CreateSnapshot;
use crate::model::Snapshot;

/// Cuts and deletes snapshots through their objects.
#[derive(Clone)]
pub(crate) struct Snapshots {
    pub(crate) volumes: Volumes,
}

impl Snapshots {
    /// Cuts a snapshot, or joins whoever cuts it.
    pub(crate) async fn create(&self, request: &CreateSnapshot) -> Result<Snapshot, Failure> {
        let deadline = Deadline::begin(self.volumes.patience);
        let mut waited = false;
        loop {
            if deadline.is_over() {
                return Err(Failure::new(
                    Kind::Busy,
                    format!("snapshot {} changes all the time; call again", request.id),
                ));
            }
            let object = match self.volumes.snapshots.get(&request.id).await? {
                Some(existing) => existing,
                // DeleteSnapshot came while this call, which its caller may have given up, was waiting: a second snapshot would
                // be one that nobody knows of.
                None if waited => return Err(deleted_meanwhile(&request.id)),
                None if self.volumes.adopt(&request.id).await? => continue,
                None => match self.begin(request).await? {
                    Some(made) => made,
                    // Another copy of this process was faster.
                    None => continue,
                },
            };
            waited |= !object.spec.delete;
            match settle(&self.volumes.snapshots, object, deadline).await? {
                Settled::Made(object) => return Ok(convert::snapshot(&object)),
                Settled::Again => {}
                Settled::Failed(object, failure) => {
                    if withdraw(&self.volumes.snapshots, object, deadline).await? {
                        return Err(failure);
                    }
                }
                Settled::Silent(_, failure) => return Err(failure),
            }
        }
    }

    /// A snapshot is cut where its source is: content does not move between nodes.
    async fn begin(&self, request: &CreateSnapshot) -> Result<Option<LocalSnapshot>, Failure> {
        let id = &request.source_volume_id;
        let source = existing(self.volumes.volumes.get(id).await?, id)?;
        let object = convert::new_snapshot(request, &source.spec.node_name);
        self.volumes.snapshots.create(&object).await
    }

    /// Deletes a snapshot with its data.
    pub(crate) async fn delete(&self, id: &str) -> Result<(), Failure> {
        loop {
            match self.volumes.snapshots.get(id).await? {
                Some(object) => {
                    let deadline = Deadline::begin(self.volumes.patience);
                    return erase(&self.volumes.snapshots, object, deadline).await;
                }
                None if self.volumes.adopt(id).await? => {}
                None => return Ok(()),
            }
        }
    }
}

fn deleted_meanwhile(id: &str) -> Failure {
    Failure::new(
        Kind::Busy,
        format!(
            "snapshot {id} was deleted while it was being made; call again if it is still wanted"
        ),
    )
}
