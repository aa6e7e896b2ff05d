//! Making volumes larger. They never get smaller.

use std::fs::File;

use super::Pool;
use super::admission::Want;
use super::object::check_image_size;
use super::volume::resize;
use crate::device;
use crate::error::{Context, ErrorKind, Result};
use crate::fault::{Step, reached};
use crate::id::VolumeId;
use crate::record::VolumeRecord;
use crate::size;

impl Pool {
    /// Grows a volume's image and its loop devices to `size_bytes`, and records `requested_bytes`. A volume that is large
    /// enough already is left as it is.
    ///
    /// 1. The image is what the record says, and the room is reserved.
    /// 2. The record says what the volume grows to: from here on recovery rolls forward.
    /// 3. The image is grown (and allocated, if thick).
    /// 4. The image is synced.
    /// 5. Loop devices on it take its size.
    /// 6. The record says the new size.
    ///
    /// # Errors
    /// `NotFound`, `NoSpace`, `Corrupt`: nothing has changed. An error behind step 2 is `Uncertain`: nothing is undone, and the
    /// next call, or the next start, goes on.
    pub fn expand_volume(
        &self,
        id: &VolumeId,
        requested_bytes: u64,
        size_bytes: u64,
    ) -> Result<VolumeRecord> {
        self.guard()?;
        let record = self.volume(id)?;
        let goal = size_bytes.max(record.growing_to_bytes.unwrap_or(0));
        if record.size_bytes >= goal {
            return self.remember_request(id, &record, requested_bytes);
        }
        size::check_image_bytes(goal)?;
        // Before the intent: while a volume grows, its image may have any size up to the goal.
        self.checked_image(&record, false)?;
        let more = goal.saturating_sub(record.charge_bytes());
        // What an earlier attempt has recorded as its goal is charged already.
        let reservation = (more > 0).then(|| {
            self.reserve(Want {
                volume_sizes: more,
                ..Want::default()
            })
        });
        let reservation = reservation.transpose()?;
        reached(Step::ExpandReserved)?;
        let record = self.update_volume(id, |record| record.growing_to_bytes = Some(goal))?;
        // The index charges the goal now.
        drop(reservation);
        reached(Step::ExpandIntentRecorded)
            .and_then(|()| self.roll_forward(&record, requested_bytes))
            .map_err(|error| match error.kind() {
                // It was changed behind our back: calling again does not help.
                ErrorKind::Corrupt => error,
                _ => error
                    .context("the expansion has begun and goes on with the next call")
                    .with_kind(ErrorKind::Uncertain),
            })
    }

    /// The record of a volume that is not half expanded: what was interrupted is finished first. While it is not, devices and
    /// filesystems may be larger than the record says, and a copy of so many bytes would be cut short. Nobody else may change the
    /// volume meanwhile.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, and why the expansion cannot be finished.
    pub fn settled_volume(&self, id: &VolumeId) -> Result<VolumeRecord> {
        self.guard()?;
        let record = self.volume(id)?;
        self.roll_forward(&record, 0)
            .context_with(|| format!("finish the interrupted expansion of {id}"))
    }

    /// Steps 3 to 6, from wherever an earlier attempt stopped.
    pub(super) fn roll_forward(
        &self,
        record: &VolumeRecord,
        requested_bytes: u64,
    ) -> Result<VolumeRecord> {
        let Some(goal) = record.growing_to_bytes else {
            return Ok(record.clone());
        };
        let image = self.open_image(&record.id, true)?;
        grow_image(&image, record, goal)?;
        reached(Step::ExpandImageGrown)?;
        image.sync_all().during("make a grown image durable")?;
        reached(Step::ExpandImageSynced)?;
        device::grow_loops(&image)?;
        reached(Step::ExpandDeviceGrown)?;
        let record = self.update_volume(&record.id, |record| {
            record.size_bytes = goal;
            record.growing_to_bytes = None;
            record.requested_bytes = record.requested_bytes.max(requested_bytes);
        })?;
        reached(Step::ExpandRecorded)?;
        Ok(record)
    }

    /// A request between the size asked for and the rounded one changes nothing but what is remembered.
    fn remember_request(
        &self,
        id: &VolumeId,
        record: &VolumeRecord,
        requested_bytes: u64,
    ) -> Result<VolumeRecord> {
        if requested_bytes <= record.requested_bytes {
            return Ok(record.clone());
        }
        self.update_volume(id, |record| record.requested_bytes = requested_bytes)
    }
}

fn grow_image(image: &File, record: &VolumeRecord, goal: u64) -> Result<()> {
    check_image_size(image, record)?;
    resize(image, goal, record.provisioning)
}
