//! Takes away what the demo created through the driver, whatever state it is in.

use std::path::Path;
use std::time::Duration;

use ::tests::csi;
use ::tests::kubelet::{Attachment, text};
use anyhow::{Context as _, Result};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::driver::{Driver, failed};

/// A job that outlived its call ends within this time, and so does the deletion in the background.
const LIMIT: Duration = Duration::from_secs(30);
/// How often something that has no event is looked at again.
const POLL: Duration = Duration::from_millis(20);

/// Unpublishes and deletes everything that was created. Goes on after an error, and returns the first.
/// Otherwise returns how many volumes and snapshots there were.
pub(crate) async fn all(driver: &Driver) -> Result<(usize, usize)> {
    let made = driver.made();
    let mut outcome = Ok(());
    for volume in made.volumes.iter().rev() {
        outcome = outcome.and(undo_volume(driver, volume).await);
    }
    for id in made.snapshots.iter().rev() {
        let request = csi::DeleteSnapshotRequest {
            snapshot_id: id.clone(),
            ..Default::default()
        };
        let delete = || async { driver.controller().delete_snapshot(request.clone()).await };
        outcome = outcome.and(again("DeleteSnapshot", delete).await);
    }
    outcome.map(|()| (made.volumes.len(), made.snapshots.len()))
}

/// Waits until what was deleted is gone from the disk too: the driver unlinks in the background.
///
/// # Errors
/// When it takes longer than half a minute.
pub(crate) async fn drained(pool: &Path) -> Result<()> {
    let trash = pool.join("trash");
    let empty = async {
        while std::fs::read_dir(&trash)?.next().is_some() {
            tokio::time::sleep(POLL).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LIMIT, empty)
        .await
        .context("the pool's trash is not emptied")?
}

async fn undo_volume(driver: &Driver, volume: &Attachment) -> Result<()> {
    let id = || volume.volume_id.clone();
    let target_path = text(&volume.target);
    let request = csi::NodeUnpublishVolumeRequest {
        volume_id: id(),
        target_path,
    };
    let unpublish = || async { driver.node().node_unpublish_volume(request.clone()).await };
    let unpublished = again("NodeUnpublishVolume", unpublish).await;

    let staging_target_path = text(&volume.staging);
    let request = csi::NodeUnstageVolumeRequest {
        volume_id: id(),
        staging_target_path,
    };
    let unstage = || async { driver.node().node_unstage_volume(request.clone()).await };
    let unstaged = again("NodeUnstageVolume", unstage).await;

    let request = csi::DeleteVolumeRequest {
        volume_id: id(),
        ..Default::default()
    };
    let delete = || async { driver.controller().delete_volume(request.clone()).await };
    let deleted = again("DeleteVolume", delete).await;
    unpublished.and(unstaged).and(deleted)
}

/// Calls until it is done. A job outlives the call that started it, and the demo may have been stopped
/// in the middle of one: ABORTED says that it still runs. What does not exist needs no undoing.
async fn again<T, F>(rpc: &'static str, mut call: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<T, Status>>,
{
    let end = Instant::now() + LIMIT;
    loop {
        match call().await {
            Ok(_done) => return Ok(()),
            Err(status) if status.code() == Code::NotFound => return Ok(()),
            Err(status) if status.code() == Code::Aborted && Instant::now() < end => {
                tokio::time::sleep(POLL).await;
            }
            Err(status) => return Err(failed(rpc)(status)),
        }
    }
}
