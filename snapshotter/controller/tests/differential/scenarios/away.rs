//! The driver's process is lost, with everything that was being done.

use std::sync::Arc;

use serde_json::json;

use super::is_ready;
use crate::part::Part;
use crate::side::Side;
use crate::stage::made_for;

/// csi-snapshotter ends itself then, and is started again by its pod; ours waits.
pub async fn a_driver_that_goes_and_comes_back(part: Arc<Part>) {
    let (content, id) = made_for(&part.begin().await);
    part.until_ready().await;
    part.until_claim("released", <[String]>::is_empty).await;
    part.compare("there").await;
    part.driver.go();
    let spec = json!({"source": {"persistentVolumeClaimName": "data"}, "volumeSnapshotClassName": part.name});
    let second = part.snapshot_of("second", spec).await;
    let (second, _) = made_for(&second);
    part.until(&part.contents(), &second, "there", |_| true)
        .await;
    part.delete(&part.snapshots(), "snap").await;
    let going = |c: &serde_json::Value| c["metadata"]["deletionTimestamp"].is_string();
    part.until(&part.contents(), &content, "deleted", going)
        .await;
    if part.side == Side::Upstream {
        part.servers.kill().await;
    } else {
        part.until_told(&second, "SnapshotCreationFailed").await;
        part.until_told(&content, "SnapshotDeleteError").await;
    }
    part.driver.come();
    if part.side == Side::Upstream {
        part.servers.start().await;
    }
    part.until(&part.snapshots(), "second", "ready", is_ready)
        .await;
    part.until_gone(&part.contents(), &content).await;
    part.until_gone(&part.snapshots(), "snap").await;
    assert!(!part.driver.knows(&id));
    part.compare("back").await;
}
