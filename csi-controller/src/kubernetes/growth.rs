//! ControllerExpandVolume.
//!
//! ```text
//! spec.sizeBytes = wanted ──> the agent grows the image ──> status.sizeBytes
//!                  ^── back to status.sizeBytes, where there is no room for it
//! ```
//! A wish for which there is no room is taken back: an agent would go on trying, a smaller one could not follow it, and the room
//! that it asks for would count as promised.

use api::LocalVolume;
use kube::ResourceExt;
use proto::errors::Failure;
use serde_json::json;

use super::convert;
use super::verdict::{self, Expansion, Seen};
use super::volumes::{Volumes, existing, missing};
use super::wait::Deadline;
use crate::backend::ExpandVolume;
use crate::model::Volume;

impl Volumes {
    /// Grows a volume to at least a size.
    pub(crate) async fn expand(&self, request: &ExpandVolume) -> Result<Volume, Failure> {
        let deadline = Deadline::begin(self.patience);
        let wanted = convert::to_signed(request.capacity_bytes)?;
        let is_grown = |object: &LocalVolume| size(object).is_some_and(|size| size >= wanted);
        loop {
            let mut object = existing(self.volumes.get(&request.id).await?, &request.id)?;
            if is_grown(&object) {
                return Ok(convert::volume(&object));
            }
            if object.spec.delete {
                return Err(verdict::deleting(&object));
            }
            let too_large = object.spec.size_bytes > wanted && verdict::found_no_room(&object);
            if object.spec.size_bytes < wanted || too_large {
                let mut spec = json!({"sizeBytes": wanted});
                if request.requested_bytes > 0 {
                    spec["requestedBytes"] = json!(convert::to_signed(request.requested_bytes)?);
                }
                match self.volumes.patch(&object, spec).await? {
                    Some(now) => object = now,
                    None if deadline.is_over() => {
                        return Err(verdict::overdue(&object, true, "expanded"));
                    }
                    None => continue,
                }
            }
            let seen = Seen::of(&object);
            let judge = |now: Option<&LocalVolume>| verdict::expansion(now, &seen, is_grown);
            let failure = match self.volumes.wait(&request.id, deadline, judge).await {
                Ok(Expansion::Grown(object)) => return Ok(convert::volume(&object)),
                Ok(Expansion::Gone) => return Err(missing::<LocalVolume>(&request.id)),
                Ok(Expansion::Failed(failure)) => failure,
                Err(gave_up) => verdict::overdue(&object, gave_up.working, "expanded"),
            };
            let failed = self.take_back(&request.id).await?;
            if failed.is_some_and(|size| size > wanted) && !deadline.is_over() {
                // That was somebody else's wish.
                continue;
            }
            return Err(failure);
        }
    }

    /// Takes back a wish for which there is no room, and returns the size that was wished for. Every other one stays: the agent
    /// goes on with it.
    async fn take_back(&self, id: &str) -> Result<Option<i64>, Failure> {
        // An agent's report in between is no reason to leave it.
        while let Some(object) = self.volumes.get(id).await? {
            let status = object.status.as_ref();
            let Some(size) = size(&object).filter(|size| object.spec.size_bytes > *size) else {
                return Ok(None);
            };
            if !verdict::found_no_room(&object) {
                return Ok(None);
            }
            let requested = status.and_then(|status| status.requested_bytes);
            let requested = requested.unwrap_or(object.spec.requested_bytes);
            let spec = json!({"sizeBytes": size, "requestedBytes": requested});
            if self.volumes.patch(&object, spec).await?.is_some() {
                tracing::info!(
                    volume_id = object.name_any(),
                    wanted = object.spec.size_bytes,
                    "no room to grow; the wish is taken back"
                );
                return Ok(Some(object.spec.size_bytes));
            }
        }
        Ok(None)
    }
}

/// The size that a volume has.
fn size(object: &LocalVolume) -> Option<i64> {
    object.status.as_ref()?.size_bytes
}
