//! 1000 volumes and 5000 snapshots in one pool: the start is quick, lists and lookups stay flat, memory stays small.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tests::client::{Client, accepted};
use tests::fixture::Fixture;
use tests::populate::{self, snapshot_id, volume_id};
use tests::scratch_fs::{FsKind, MIB};
use tests::server::Server;
use tests::{check, content, csi, memory, requests};

const FEW: usize = 2;
const VOLUMES: usize = 1000;
const EACH: usize = 5;
const SNAPSHOTS: usize = VOLUMES * EACH;
/// The promise.
const START_LIMIT: Duration = Duration::from_secs(10);
const MEMORY_LIMIT: u64 = 64 * MIB;
/// "Flat": what a call may take in the full pool beside the nearly empty one. A scan of everything on the disk takes
/// hundreds of times as long; a slow moment of the machine, less than this.
const FLAT_FACTOR: u32 = 4;
const FLAT_SLACK: Duration = Duration::from_millis(3);

/// The median times of single calls.
#[derive(Debug)]
struct Times {
    volume: Duration,
    snapshot: Duration,
    found_snapshot: Duration,
    first_page: Duration,
    last_page: Duration,
    capacity: Duration,
    create_and_delete: Duration,
}

#[test]
fn a_thousand_volumes_and_five_thousand_snapshots_start_quickly_and_stay_flat_and_small() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let (volume, snapshot) = seed(&fixture);
    grow(&mut fixture, (&volume, &snapshot), 0, FEW);
    let _first = restart(&mut fixture);
    let few = times(&fixture.csi, FEW);
    eprintln!("{} objects: {few:?}", FEW * (1 + EACH) + 2);

    grow(&mut fixture, (&volume, &snapshot), FEW, VOLUMES);
    let start = restart(&mut fixture);
    eprintln!(
        "{} volumes, {} snapshots: ready after {start:?} with a cold cache",
        VOLUMES + 1,
        SNAPSHOTS + 1
    );
    assert!(start <= START_LIMIT, "the start took {start:?}");
    let many = times(&fixture.csi, VOLUMES);
    eprintln!("{} objects: {many:?}", VOLUMES * (1 + EACH) + 2);
    flat(&few, &many);
    walks_find_everything(&fixture.csi);

    let used = memory::of(fixture.server.pid());
    eprintln!(
        "resident {} KiB, at most {} KiB",
        used.resident >> 10,
        used.peak >> 10
    );
    assert!(used.peak <= MEMORY_LIMIT, "{used:?}");

    let begin = Instant::now();
    check::clean(&fixture.pool());
    eprintln!("pool check took {:?}", begin.elapsed());
    // Was checked a moment ago; once is enough for 6000 objects.
    fixture.spoiled();
}

/// A volume with a little data and a snapshot of it, made by the driver.
fn seed(fixture: &Fixture) -> (String, String) {
    let request = requests::volume("seed", 8 * MIB, requests::block());
    let volume = fixture.csi.made_volume(request).volume_id;
    let data = content::pattern("seed", 64 << 10);
    content::write_at(&fixture.image(&volume), MIB, &data);
    let request = requests::snapshot("seed", &volume);
    let snapshot = fixture.csi.made_snapshot(request).snapshot_id;
    (volume, snapshot)
}

/// Stops the server and adds copies, up to `to` volumes.
fn grow(fixture: &mut Fixture, (volume, snapshot): (&str, &str), from: usize, to: usize) {
    assert!(fixture.server.terminate().success());
    let begin = Instant::now();
    populate::copies(&fixture.pool(), volume, snapshot, from, to, EACH);
    eprintln!(
        "made {} copies in {:?}",
        (to - from) * (1 + EACH),
        begin.elapsed()
    );
}

/// How long a start takes until Probe says ready, with nothing of the pool in the page cache.
fn restart(fixture: &mut Fixture) -> Duration {
    fixture.fs.unmount();
    fixture.fs.mount();
    let setup = fixture.server.setup().clone();
    let begin = Instant::now();
    fixture.server = Server::start(setup);
    let took = begin.elapsed();
    fixture.reconnect();
    took
}

fn times(client: &Client, volumes: usize) -> Times {
    let middle = volume_id(volumes / 2);
    let middle_cut = snapshot_id(volumes * EACH / 2);
    let page = |token: &str| csi::ListVolumesRequest {
        max_entries: 5,
        starting_token: token.to_owned(),
    };
    let first = accepted(client.list_volumes(page("")));
    assert!(!first.entries.is_empty());
    let last = accepted(client.list_volumes(csi::ListVolumesRequest {
        max_entries: i32::try_from(volumes - 1).unwrap(),
        starting_token: String::new(),
    }));
    Times {
        volume: median(200, |_| {
            let request = csi::ControllerGetVolumeRequest {
                volume_id: middle.clone(),
            };
            drop(accepted(client.controller_get_volume(request)));
        }),
        snapshot: median(200, |_| {
            let request = csi::GetSnapshotRequest {
                snapshot_id: middle_cut.clone(),
                ..Default::default()
            };
            drop(accepted(client.get_snapshot(request)));
        }),
        found_snapshot: median(200, |_| {
            let request = csi::ListSnapshotsRequest {
                snapshot_id: middle_cut.clone(),
                ..Default::default()
            };
            assert_eq!(accepted(client.list_snapshots(request)).entries.len(), 1);
        }),
        first_page: median(100, |_| drop(accepted(client.list_volumes(page(""))))),
        last_page: median(100, |_| {
            drop(accepted(client.list_volumes(page(&last.next_token))));
        }),
        capacity: median(5, |_| assert!(client.free_bytes() > 0)),
        create_and_delete: median(20, |number| {
            let request = requests::volume(&format!("new {number}"), MIB, requests::block());
            let made = client.made_volume(request);
            accepted(client.delete(&made.volume_id));
        }),
    }
}

fn median(count: usize, mut call: impl FnMut(usize)) -> Duration {
    let mut took: Vec<Duration> = (0..count)
        .map(|number| {
            let begin = Instant::now();
            call(number);
            begin.elapsed()
        })
        .collect();
    took.sort_unstable();
    took[count / 2]
}

fn flat(few: &Times, many: &Times) {
    for (what, before, after) in [
        ("ControllerGetVolume", few.volume, many.volume),
        ("GetSnapshot", few.snapshot, many.snapshot),
        (
            "ListSnapshots of one id",
            few.found_snapshot,
            many.found_snapshot,
        ),
        (
            "the first page of ListVolumes",
            few.first_page,
            many.first_page,
        ),
        (
            "the last page of ListVolumes",
            few.last_page,
            many.last_page,
        ),
        (
            "CreateVolume and DeleteVolume",
            few.create_and_delete,
            many.create_and_delete,
        ),
    ] {
        let limit = before * FLAT_FACTOR + FLAT_SLACK;
        assert!(after <= limit, "{what}: {before:?} became {after:?}");
    }
    // GetCapacity looks at every image's extents; the sidecar asks once a minute.
    assert!(
        many.capacity <= Duration::from_secs(5),
        "{:?}",
        many.capacity
    );
}

fn walks_find_everything(client: &Client) {
    let begin = Instant::now();
    let whole = client.volume_ids();
    assert_eq!(whole.len(), VOLUMES + 1);
    let cuts = client.snapshot_ids();
    assert_eq!(cuts.len(), SNAPSHOTS + 1);
    eprintln!("both lists in one answer each: {:?}", begin.elapsed());

    let begin = Instant::now();
    let mut paged = Vec::new();
    let mut token = String::new();
    loop {
        let request = csi::ListSnapshotsRequest {
            max_entries: 100,
            starting_token: token,
            ..Default::default()
        };
        let page = accepted(client.list_snapshots(request));
        assert!(page.entries.len() <= 100);
        let ids = page
            .entries
            .into_iter()
            .map(|entry| entry.snapshot.unwrap());
        paged.extend(ids.map(|snapshot| snapshot.snapshot_id));
        token = page.next_token;
        if token.is_empty() {
            break;
        }
    }
    let took = begin.elapsed();
    eprintln!("{} snapshots in pages of 100: {took:?}", paged.len());
    assert_eq!(
        paged, cuts,
        "a walk in pages finds the same in the same order"
    );
    assert_eq!(paged.iter().collect::<BTreeSet<_>>().len(), cuts.len());
    assert!(took <= Duration::from_secs(10), "the walk took {took:?}");

    let of_one = accepted(client.list_snapshots(csi::ListSnapshotsRequest {
        source_volume_id: volume_id(VOLUMES / 2),
        ..Default::default()
    }));
    assert_eq!(of_one.entries.len(), EACH);
}
