//! What CDI and KubeVirt read of the objects of snapshots, by the fields they read.

use std::sync::Arc;

use serde_json::{Value, json};
use tonic::Code;

use super::is_ready;
use crate::driver::Answer;
use crate::part::Part;
use crate::stage::made_for;

/// What CDI waits for and reads: the time (so it goes on to wait), readiness, the size (an error without), the bound content, and of
/// that the driver, the mode of the source and the handle.
pub async fn cdi_finds_every_field_it_reads(part: Arc<Part>) {
    part.driver.script(&part.volume(), &[Answer::Pending]);
    let snapshot = part.begin().await;
    let cut = |s: &Value| s["status"]["creationTime"].is_string();
    let waiting = part.until_snapshot("cut", cut).await;
    assert_eq!(waiting["status"]["readyToUse"], json!(false));
    assert_eq!(waiting["status"]["restoreSize"], json!("10Mi"));
    part.compare("cut").await;
    part.driver.script(&part.volume(), &[Answer::Ready]);
    let ready = part.until_ready().await;
    assert!(ready["status"]["error"].is_null());
    let content = ready["status"]["boundVolumeSnapshotContentName"].as_str();
    assert_eq!(content, Some(made_for(&snapshot).0.as_str()));
    let content = part.contents().get(content.unwrap()).await.unwrap();
    let content = serde_json::to_value(content).unwrap();
    assert_eq!(content["spec"]["driver"], json!(part.driver.name));
    assert_eq!(content["spec"]["sourceVolumeMode"], json!("Block"));
    let volume = part.volume();
    assert_eq!(content["spec"]["source"]["volumeHandle"], json!(volume));
    assert_eq!(content["spec"]["deletionPolicy"], json!("Delete"));
    assert!(content["status"]["snapshotHandle"].is_string());
    assert_eq!(content["status"]["restoreSize"], json!(10 << 20));
    part.compare("ready").await;
}

/// What KubeVirt reads: the time, at which it thaws the guest; an error, which it shows and which has to go again; readiness; the size,
/// which a restore is at least as large as.
pub async fn kubevirt_finds_every_field_it_reads(part: Arc<Part>) {
    part.driver
        .script(&part.volume(), &[Answer::No(Code::FailedPrecondition)]);
    part.begin().await;
    let failed = part.until_error("as the test wants").await;
    assert!(failed["status"]["creationTime"].is_null());
    assert_eq!(failed["status"]["readyToUse"], json!(false));
    assert!(failed["status"]["error"]["time"].is_string());
    assert!(failed["status"]["error"]["message"].is_string());
    part.compare("failed").await;
    part.driver.script(&part.volume(), &[Answer::Pending]);
    let cut = |s: &Value| s["status"]["creationTime"] == json!("2023-11-14T22:13:20Z");
    let thawed = part.until_snapshot("cut", cut).await;
    assert_eq!(thawed["status"]["readyToUse"], json!(false));
    part.driver.script(&part.volume(), &[Answer::Ready]);
    let ready = part.until_ready().await;
    assert!(is_ready(&ready) && ready["status"]["error"].is_null());
    assert_eq!(ready["status"]["restoreSize"], json!("10Mi"));
    part.compare("ready").await;
}
