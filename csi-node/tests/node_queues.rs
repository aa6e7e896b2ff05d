//! What waits for its turn keeps nobody else waiting.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and reports by printing"
)]

mod node;

use std::sync::mpsc;
use std::time::Duration;

use csi_node::blocking::Work;
use node::{MIB, Machine};
use pool::record::{Source, VolumeMode};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Much longer than anything that does not wait takes, and much shorter than what it waits for.
const SOON: Duration = Duration::from_secs(10);

/// Work of one kind on as many threads as it has, until this is dropped.
struct Occupied {
    _release: mpsc::Sender<()>,
    tasks: Vec<JoinHandle<()>>,
}

/// Occupies all threads for work of `kind`.
async fn occupied(machine: &Machine, kind: Work) -> Occupied {
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Arc::new(std::sync::Mutex::new(released));
    let mut tasks = Vec::new();
    loop {
        let blocking = machine.node.blocking().clone();
        let Ok(turn) = timeout(Duration::from_millis(200), blocking.turn(kind)).await else {
            return Occupied {
                _release: release,
                tasks,
            };
        };
        let (turn, released) = (turn.unwrap(), released.clone());
        tasks.push(tokio::spawn(async move {
            let work = move || {
                // Ends when the sender is dropped.
                released.lock().unwrap().recv().unwrap_err();
                Ok(())
            };
            blocking.run_now(turn, work).await.unwrap();
        }));
    }
}

impl Occupied {
    async fn end(self) {
        drop(self._release);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_wait_keep_no_volume_from_being_made_used_grown_and_deleted() {
    let machine = Machine::in_memory();
    assert!(!machine.pool().reflink().unwrap());
    let source = machine.volume("source", VolumeMode::Block, 8 * MIB).await;
    let copies = occupied(&machine, Work::Copy).await;
    let mut cut = Box::pin(machine.snapshot("cut", &source));
    let clone = Source::Volume(source.id.clone());
    let mut clone = Box::pin(machine.copied("clone", &source, clone));
    // Both have come as far as they can.
    assert!(timeout(SOON / 20, &mut cut).await.is_err());
    assert!(timeout(SOON / 20, &mut clone).await.is_err());

    timeout(SOON, async {
        source.stage().await.unwrap();
        source.publish("pod").await.unwrap();
        source.unpublish("pod").await.unwrap();
        source.unstage().await.unwrap();
        let other = machine.volume("other", VolumeMode::Block, 8 * MIB).await;
        other.grow_image(16 * MIB).await;
        machine.node.delete_volume(&other.id).await.unwrap();
    })
    .await
    .expect("nobody waits for a copy that waits");

    copies.end().await;
    let cut = timeout(SOON, cut).await.expect("it is its turn");
    let clone = timeout(SOON, clone).await.expect("it is its turn");
    assert_eq!(clone.record().size_bytes, 8 * MIB);
    machine.node.delete_snapshot(&cut).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_of_large_filesystems_keep_no_probe_and_no_unpublish_waiting() {
    let machine = Machine::new();
    let volume = machine.volume("v", VolumeMode::Block, 8 * MIB).await;
    volume.stage().await.unwrap();
    volume.publish("pod").await.unwrap();
    let checks = occupied(&machine, Work::Mount).await;

    timeout(SOON, async {
        machine.node.probe().await.unwrap();
        machine.node.volumes(None, 10).await.unwrap();
        volume.unpublish("pod").await.unwrap();
        volume.unstage().await.unwrap();
        let other = machine.volume("other", VolumeMode::Block, 8 * MIB).await;
        machine.node.delete_volume(&other.id).await.unwrap();
    })
    .await
    .expect("nobody waits for a check");
    checks.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn background_work_keeps_no_change_waiting() {
    let machine = Machine::new();
    let volume = machine.volume("v", VolumeMode::Block, 8 * MIB).await;
    let background = occupied(&machine, Work::Background).await;
    let freeing = occupied(&machine, Work::Freeing).await;

    timeout(SOON, async {
        let cut = machine.snapshot("cut", &volume).await;
        machine.node.delete_snapshot(&cut).await.unwrap();
        machine.node.delete_volume(&volume.id).await.unwrap();
    })
    .await
    .expect("nobody waits for what nobody waits for");
    background.end().await;
    freeing.end().await;
}
