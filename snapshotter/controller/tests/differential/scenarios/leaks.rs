//! The leaks that upstream has or had, by the issue. Each says what both leave behind.

use std::sync::Arc;

use serde_json::json;
use tonic::Code;

use super::is_ready;
use crate::driver::Answer;
use crate::part::Part;
use crate::side::Side;
use crate::stage::made_for;

/// A snapshot that the driver answers so for is deleted. Ours is gone then; upstream asks on and on, and nothing goes.
async fn deleted_while(part: &Part, answer: Answer) -> (String, String) {
    part.driver.script(&part.volume(), &[answer]);
    let (content, id) = made_for(&part.begin().await);
    part.until_error("as the test wants").await;
    part.until_told(&content, "SnapshotContentCheckandUpdateFailed")
        .await;
    part.compare("failing").await;
    part.delete(&part.snapshots(), "snap").await;
    if part.side == Side::Upstream {
        part.seen().await;
        let asked = part.driver.calls(&part.volume()).len();
        part.driver.called(&part.volume(), asked + 3).await;
    } else {
        part.until_gone(&part.contents(), &content).await;
        part.until_gone(&part.snapshots(), "snap").await;
        let deletion = format!("DeleteSnapshot {id}");
        assert!(part.driver.calls(&id).contains(&deletion));
        assert!(!part.driver.knows(&id));
    }
    part.compare("deleted").await;
    (content, id)
}

/// The driver does at last what it was asked for: upstream deletes it then.
async fn until_upstream_goes(part: &Part, content: &str, id: &str) {
    part.driver.script(&part.volume(), &[Answer::Ready]);
    part.until_gone(&part.contents(), content).await;
    part.until_gone(&part.snapshots(), "snap").await;
    part.compare("answered").await;
    assert!(!part.driver.knows(id));
}

/// Upstream: it and its content stay until there is room, and then it is made to be deleted. Ours: gone at once.
pub async fn no_room_for_ever_and_deleted(part: Arc<Part>) {
    let (content, id) = deleted_while(&part, Answer::No(Code::ResourceExhausted)).await;
    until_upstream_goes(&part, &content, &id).await;
}

/// Upstream before 8.6.0: the snapshot stays at the driver for ever. 8.6.0: it stays until CreateSnapshot succeeds. Ours: gone as soon
/// as the driver is surely done with what it was asked.
pub async fn pr_1392_issue_1388_deleted_while_creating_times_out(part: Arc<Part>) {
    let (content, id) = deleted_while(&part, Answer::MadeBut(Code::DeadlineExceeded)).await;
    until_upstream_goes(&part, &content, &id).await;
}

/// The same while the node is away.
pub async fn made_while_the_driver_was_unavailable_for_ever(part: Arc<Part>) {
    let (content, id) = deleted_while(&part, Answer::MadeBut(Code::Unavailable)).await;
    until_upstream_goes(&part, &content, &id).await;
}

/// Upstream takes the driver's word, and its snapshot stays for ever. Ours asks for its deletion.
pub async fn made_though_the_driver_said_no(part: Arc<Part>) {
    part.driver
        .script(&part.volume(), &[Answer::MadeBut(Code::Internal)]);
    let (content, id) = made_for(&part.begin().await);
    part.until_error("as the test wants").await;
    part.until_told(&content, "SnapshotContentCheckandUpdateFailed")
        .await;
    assert!(part.driver.knows(&id));
    part.compare("failing").await;
    part.delete_all(&content).await;
    part.compare("deleted").await;
    assert_eq!(part.driver.knows(&id), part.side == Side::Upstream);
}

/// Upstream waits for its timeout, asks again, and so on. Ours: gone.
pub async fn a_call_that_never_ends(part: Arc<Part>) {
    part.driver.script(&part.volume(), &[Answer::Hang]);
    let (content, id) = made_for(&part.begin().await);
    part.driver.called(&part.volume(), 1).await;
    part.until_bound().await;
    part.delete(&part.snapshots(), "snap").await;
    if part.side != Side::Upstream {
        part.driver.called(&id, 1).await;
        // What it makes late is deleted too.
        part.driver.has(&id);
        part.until_gone(&part.contents(), &content).await;
        part.until_gone(&part.snapshots(), "snap").await;
        assert!(!part.driver.knows(&id));
    }
    part.compare("deleted").await;
}

/// The mark that lets a sidecar delete comes after the deletion, as where the controller is held up. Neither leaks: the mark is a
/// change, for which the content is looked at again.
pub async fn pr_1446_contents_that_were_deleted_before_they_were_marked(part: Arc<Part>) {
    part.class(|_| {}).await;
    part.claim(part.driver.name).await;
    part.seen().await;
    let spec = json!({"source": {"persistentVolumeClaimName": "data"}, "volumeSnapshotClassName": part.name});
    let mut contents = Vec::new();
    for number in 0..10 {
        let name = format!("snap-{number}");
        let made = part.snapshot_of(&name, spec.clone()).await;
        part.until(&part.snapshots(), &name, "ready", is_ready)
            .await;
        contents.push((name, made_for(&made)));
    }
    part.killed().await;
    for (name, (content, _)) in &contents {
        part.delete(&part.contents(), content).await;
        part.delete(&part.snapshots(), name).await;
    }
    part.started().await;
    for (name, (content, id)) in &contents {
        part.until_gone(&part.contents(), content).await;
        part.until_gone(&part.snapshots(), name).await;
        assert!(!part.driver.knows(id));
    }
    part.compare("deleted").await;
}
