//! Thousands of snapshots that were made long ago.

use anyhow::{Context as _, Result};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use kube::api::{Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use crate::objects::{bound_claim, content, contents, make, snapshot, snapshots};

/// Requests at a time.
const AT_ONCE: usize = 16;
/// Snapshots of each claim.
const OF_A_CLAIM: usize = 10;

/// Makes so many snapshots with their contents as they are once all is done, and the claims that they were made of.
pub(crate) async fn fill(client: &Client, count: usize) -> Result<()> {
    let claims = stream::iter(0..count.div_ceil(OF_A_CLAIM))
        .map(|number| async move { bound_claim(client, &claim(number)).await.map(drop) });
    claims.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let made = stream::iter(0..count).map(|number| one(client, number));
    made.buffer_unordered(AT_ONCE).try_collect().await
}

fn claim(number: usize) -> String {
    format!("data-{number}")
}

async fn one(client: &Client, number: usize) -> Result<()> {
    let name = format!("old-{number}");
    let mut object = snapshot(&name, &claim(number / OF_A_CLAIM));
    object["metadata"]["finalizers"] = json!([
        "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection",
        "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection",
    ]);
    let made = make(&snapshots(client), object).await?;
    let uid = made.uid().context("an object without a uid")?;
    let content_name = format!("snapcontent-{uid}");
    let _content = make(&contents(client), content(&content_name, &name, &uid)).await?;
    let parameters = PatchParams::default();
    let status = json!({"status": {
        "snapshotHandle": format!("snapshot-{uid}"), "readyToUse": true,
        "creationTime": 1_700_000_000_000_000_000_i64, "restoreSize": 16 << 20,
    }});
    let patch = Patch::Merge(&status);
    let _content = contents(client)
        .patch_status(&content_name, &parameters, &patch)
        .await?;
    let status = json!({"status": {
        "boundVolumeSnapshotContentName": content_name, "readyToUse": true,
        "creationTime": "2023-11-14T22:13:20Z", "restoreSize": "16Mi",
    }});
    let patch = Patch::Merge(&status);
    let _snapshot = snapshots(client)
        .patch_status(&name, &parameters, &patch)
        .await?;
    Ok(())
}
