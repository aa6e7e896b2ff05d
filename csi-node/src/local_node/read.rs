//! Reading what is there.

use std::sync::Arc;

use pool::record::{SnapshotRecord, VolumeRecord};
use pool::{SnapshotId, Usage, VolumeId};
use proto::errors::Failure;

use super::LocalNode;
use crate::blocking::Work;
use crate::failure;

/// Part of a list, and whether there is more behind it.
pub type Page<T> = (Vec<Arc<T>>, bool);

impl LocalNode {
    /// One volume, as its record on the disk says.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Unavailable`.
    pub async fn volume(&self, id: &VolumeId) -> Result<VolumeRecord, Failure> {
        let id = id.clone();
        self.short(move |node| node.pool()?.volume(&id).map_err(failure::of))
            .await
    }

    /// One snapshot, as its record on the disk says.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Unavailable`.
    pub async fn snapshot(&self, id: &SnapshotId) -> Result<SnapshotRecord, Failure> {
        let id = id.clone();
        self.short(move |node| node.pool()?.snapshot(&id).map_err(failure::of))
            .await
    }

    /// Volumes in the order of their ids, those after `after`, at most `max`.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn volumes(
        &self,
        after: Option<VolumeId>,
        max: usize,
    ) -> Result<Page<VolumeRecord>, Failure> {
        self.short(move |node| Ok(node.pool()?.volumes(after.as_ref(), max)))
            .await
    }

    /// Snapshots in the order of their ids, those after `after` that `wanted` chooses, at most `max`.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn snapshots(
        &self,
        after: Option<SnapshotId>,
        max: usize,
        wanted: impl Fn(&SnapshotRecord) -> bool + Send + 'static,
    ) -> Result<Page<SnapshotRecord>, Failure> {
        self.short(move |node| Ok(node.pool()?.snapshots(after.as_ref(), max, wanted)))
            .await
    }

    /// How full the pool is.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn usage(&self) -> Result<Usage, Failure> {
        self.short(|node| node.pool()?.usage().map_err(failure::of))
            .await
    }

    /// What a volume's image takes on the disk, in bytes, blocks that it shares with others included.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Unavailable`.
    pub async fn allocated_bytes(&self, id: &VolumeId) -> Result<u64, Failure> {
        use std::os::unix::fs::MetadataExt;

        use pool::Context;

        let id = id.clone();
        self.short(move |node| {
            let image = node.pool()?.open_image(&id, false);
            let metadata =
                image.and_then(|image| image.metadata().during("look at a volume's image"));
            Ok(metadata.map_err(failure::of)?.blocks() * 512)
        })
        .await
    }

    pub(crate) async fn short<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let node = self.clone();
        self.0.blocking.run(Work::Short, move || work(&node)).await
    }
}
