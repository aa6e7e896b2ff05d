//! Drivers that do not do at once what they are asked for.

use std::sync::Arc;

use serde_json::{Value, json};
use tonic::Code;

use crate::driver::Answer;
use crate::part::Part;
use crate::stage::made_for;

/// The driver answers so, until it does what it is asked for.
async fn fails_and_recovers(part: &Part, code: Code) {
    part.driver.script(&part.volume(), &[Answer::No(code)]);
    let (content, _) = made_for(&part.begin().await);
    let failing = part.until_error("as the test wants").await;
    assert_eq!(failing["status"]["readyToUse"], json!(false));
    part.until_told(&content, "SnapshotCreationFailed").await;
    part.driver.called(&part.volume(), 3).await;
    part.compare("failing").await;
    // While it is at work, its content is marked.
    part.driver.hold(&part.volume()).await;
    let marked = |c: &Value| {
        let mark = "snapshot.storage.kubernetes.io/volumesnapshot-being-created";
        c["metadata"]["annotations"][mark] == "yes"
    };
    let contents = part.contents();
    part.until(&contents, &content, "marked", marked).await;
    part.compare("at work").await;
    part.driver.script(&part.volume(), &[Answer::Ready]);
    let ready = part.until_ready().await;
    assert!(ready["status"]["error"].is_null());
    part.compare("made").await;
}

pub async fn a_driver_that_fails_is_asked_again(part: Arc<Part>) {
    fails_and_recovers(&part, Code::Internal).await;
}

pub async fn a_driver_that_refuses_is_asked_again(part: Arc<Part>) {
    fails_and_recovers(&part, Code::InvalidArgument).await;
}

pub async fn a_driver_that_is_busy_is_asked_again(part: Arc<Part>) {
    fails_and_recovers(&part, Code::Aborted).await;
}

pub async fn a_driver_that_has_no_room_is_asked_again(part: Arc<Part>) {
    fails_and_recovers(&part, Code::ResourceExhausted).await;
}

pub async fn a_driver_that_is_slow(part: Arc<Part>) {
    part.driver.script(&part.volume(), &[Answer::Wait]);
    part.begin().await;
    part.driver.called(&part.volume(), 1).await;
    part.compare("at work").await;
    part.driver.script(&part.volume(), &[Answer::Ready]);
    part.until_ready().await;
    part.compare("made").await;
}

pub async fn a_snapshot_that_is_not_ready_is_asked_for_until_it_is(part: Arc<Part>) {
    part.driver.script(&part.volume(), &[Answer::Pending]);
    part.begin().await;
    let cut = |s: &Value| !s["status"]["creationTime"].is_null();
    part.until_snapshot("cut", cut).await;
    part.driver.called(&part.volume(), 3).await;
    part.compare("cut").await;
    part.driver.script(&part.volume(), &[Answer::Ready]);
    part.until_ready().await;
    part.compare("made").await;
}

pub async fn a_snapshot_that_is_not_ready_and_then_fails(part: Arc<Part>) {
    part.driver.script(&part.volume(), &[Answer::Pending]);
    let (content, _) = made_for(&part.begin().await);
    let cut = |s: &Value| !s["status"]["creationTime"].is_null();
    part.until_snapshot("cut", cut).await;
    part.driver
        .script(&part.volume(), &[Answer::No(Code::Internal)]);
    part.until_error("as the test wants").await;
    part.until_told(&content, "SnapshotContentCheckandUpdateFailed")
        .await;
    part.compare("failed").await;
    part.driver.script(&part.volume(), &[Answer::Ready]);
    part.until_ready().await;
    part.compare("made").await;
}
