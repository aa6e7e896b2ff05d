//! A snapshot whose data has changed on the disk: its object says so, an event, a metric, and nothing is restored from it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use api::{Checksum, LocalSnapshot, SnapshotState, Source, VolumeState};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::machine::Machine;
use crate::objects::{
    self, MIB, create, delete, ready_volume, snapshot, snapshot_is, snapshots, volume, volumes,
    when,
};

const LIMIT: Duration = Duration::from_secs(600);

async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// The value of a metric without labels, now.
async fn metric(port: u16, name: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let found = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(found.trim().to_owned())
}

/// Waits until `asked` answers yes.
async fn until<F: Future<Output = bool>>(what: &str, machine: &Machine, asked: impl Fn() -> F) {
    let waiting = async {
        while !asked().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let held = tokio::time::timeout(LIMIT, waiting).await;
    assert!(
        held.is_ok(),
        "{what}: not within {LIMIT:?}\n{}",
        machine.log()
    );
}

/// A snapshot of `source` whose data is digested.
async fn digested(machine: &Machine, source: &str) -> String {
    let mut object = snapshot(machine, source);
    object.spec.checksum = Some(Checksum::Blake3);
    let name = create(&snapshots(machine), &object).await;
    let has_digest = |cut: &LocalSnapshot| {
        let status = cut.status.as_ref();
        status.is_some_and(|status| status.data_digest.is_some() && status.verified_time.is_some())
    };
    when(&snapshots(machine), &name, has_digest, || machine.log()).await;
    name
}

fn image(machine: &Machine, name: &str) -> PathBuf {
    machine
        .pool()
        .join("snapshots")
        .join(name)
        .join("image.qcow2")
}

fn write(path: PathBuf, bytes: &[u8], offset: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file.sync_all().unwrap();
}

async fn restore(machine: &Machine, from: &str) -> String {
    let source = Source {
        snapshot: Some(from.to_owned()),
        volume: None,
    };
    create(&volumes(machine), &volume(machine, 64 * MIB, Some(source))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_whose_data_has_changed_is_marked_told_of_and_never_restored() {
    let mut machine = Machine::new().await;
    let port = free_port().await;
    machine.start_with(port, &["--scrub-period=1s"]);
    machine
        .pool_says(|pool| objects::is(pool, "Ready", "True"))
        .await;
    let source = ready_volume(&machine, 64 * MIB, None).await;
    let disk = machine
        .pool()
        .join("volumes")
        .join(&source)
        .join("disk.img");
    write(disk, &[7; 100_000], 1 << 20);
    let victim = digested(&machine, &source).await;
    let other = digested(&machine, &source).await;
    // Near the end of the file, which is the end of the disk.
    let bytes = std::fs::metadata(image(&machine, &victim)).unwrap().len();
    write(image(&machine, &victim), &[1], bytes - 4711);

    let failed = snapshot_is(&machine, &victim, SnapshotState::Failed).await;
    let status = failed.status.unwrap();
    let condition = &status.conditions[0];
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("False", "Damaged")
    );
    let text = &condition.message;
    assert!(text.contains("is damaged"), "{text}");
    assert!(!status.ready_to_use && status.data_digest.is_some());
    assert_eq!(status.failure.unwrap().kind, "Corrupt");

    let events: Api<Event> = Api::all(machine.client.clone());
    until("an event", &machine, || async {
        let all = events
            .list(&kube::api::ListParams::default())
            .await
            .unwrap();
        all.items.iter().any(|event| {
            let about = event.regarding.as_ref().and_then(|it| it.name.as_ref());
            about == Some(&victim) && event.reason.as_deref() == Some("Damaged")
        })
    })
    .await;
    until("the metric", &machine, || async {
        metric(port, "vd_snapshots_damaged ").await.as_deref() == Some("1")
    })
    .await;

    let refused = restore(&machine, &victim).await;
    let says = |volume: &api::LocalVolume| {
        let failure = volume.status.as_ref().and_then(|it| it.failure.as_ref());
        failure.is_some_and(|failure| failure.kind == "Corrupt")
    };
    when(&volumes(&machine), &refused, says, || machine.log()).await;
    let restored = restore(&machine, &other).await;
    objects::volume_is(&machine, &restored, VolumeState::Ready).await;
    snapshot_is(&machine, &other, SnapshotState::Ready).await;
    for name in [&refused, &restored, &source] {
        delete(&machine, &volumes(&machine), name).await;
    }
    for name in [&victim, &other] {
        delete(&machine, &snapshots(&machine), name).await;
    }
}
