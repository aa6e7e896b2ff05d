//! What the driver says it has, and what it says it has room for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and their folders are their own"
)]

use tests::client::{accepted, refused};
use tests::csi;
use tests::fixture::Fixture;
use tests::requests::{block, signed, snapshot, volume};
use tests::scratch_fs::{FsKind, GIB, MIB};
use tonic::Code;

#[test]
fn lists_are_exact_and_come_in_pages() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let mut volumes: Vec<String> = (0..7)
        .map(|number| volume(&format!("volume-{number}"), MIB, block()))
        .map(|request| fixture.csi.made_volume(request).volume_id)
        .collect();
    let mut cuts: Vec<String> = (0..5)
        .map(|number| snapshot(&format!("cut-{number}"), &volumes[number % 2]))
        .map(|request| fixture.csi.made_snapshot(request).snapshot_id)
        .collect();
    let of_first = csi::ListSnapshotsRequest {
        source_volume_id: volumes[0].clone(),
        ..Default::default()
    };
    assert_eq!(
        accepted(fixture.csi.list_snapshots(of_first)).entries.len(),
        3
    );
    fixture.crash_and_restart();
    volumes.sort();
    cuts.sort();
    let mut listed = fixture.csi.volume_ids();
    listed.sort();
    assert_eq!(listed, volumes);
    for page in [1, 2, 3, 7, 100] {
        let mut paged = volumes_by_pages(&fixture, page);
        paged.sort();
        assert_eq!(paged, volumes, "in pages of {page}");
    }
    // A page may be continued after its last volume was deleted, and new ones neither repeat nor hide others.
    let first = accepted(fixture.csi.list_volumes(page_request(3, "")));
    let last = first.entries[2].volume.as_ref().unwrap().volume_id.clone();
    for cut in &cuts {
        accepted(fixture.csi.delete_cut(cut));
    }
    accepted(fixture.csi.delete(&last));
    let rest = accepted(fixture.csi.list_volumes(page_request(0, &first.next_token)));
    assert_eq!(rest.entries.len(), 4);
    for id in fixture.csi.volume_ids() {
        accepted(fixture.csi.delete(&id));
    }
    assert_eq!(fixture.csi.volume_ids(), Vec::<String>::new());
}

fn page_request(max_entries: i32, starting_token: &str) -> csi::ListVolumesRequest {
    csi::ListVolumesRequest {
        max_entries,
        starting_token: starting_token.to_owned(),
    }
}

fn volumes_by_pages(fixture: &Fixture, max_entries: i32) -> Vec<String> {
    let mut ids = Vec::new();
    let mut token = String::new();
    loop {
        let page = accepted(fixture.csi.list_volumes(page_request(max_entries, &token)));
        assert!(page.entries.len() <= usize::try_from(max_entries).unwrap());
        ids.extend(
            page.entries
                .into_iter()
                .map(|entry| entry.volume.unwrap().volume_id),
        );
        if page.next_token.is_empty() {
            return ids;
        }
        token = page.next_token;
    }
}

#[test]
fn capacity_goes_down_with_every_volume_and_comes_back() {
    for kind in FsKind::ALL {
        let fixture = Fixture::on(kind);
        let before = fixture.csi.free_bytes();
        assert!(before > 0);
        let made = fixture.csi.made_volume(volume("volume", GIB, block()));
        let during = fixture.csi.free_bytes();
        let taken = before - during;
        assert!(
            (signed(GIB)..signed(GIB + 8 * MIB)).contains(&taken),
            "{taken} taken"
        );
        accepted(fixture.csi.delete(&made.volume_id));
        tests::wait::until("the space is back", tests::server::PATIENCE, || {
            fixture.csi.free_bytes() > before - signed(8 * MIB)
        });
        // What is promised can really be had, and no more.
        let most = u64::try_from(fixture.csi.free_bytes()).unwrap() / MIB * MIB;
        let too_much = volume("too-much", most + 64 * MIB, block());
        let status = refused(fixture.csi.create_volume(too_much), Code::ResourceExhausted);
        assert!(
            status.message().chars().any(|one| one.is_ascii_digit()),
            "the figures"
        );
        let made = fixture.csi.made_volume(volume("most", most, block()));
        accepted(fixture.csi.delete(&made.volume_id));
    }
}

#[test]
fn two_requests_do_not_both_get_the_last_space() {
    let fixture = Fixture::on(FsKind::Xfs);
    let free = u64::try_from(fixture.csi.free_bytes()).unwrap();
    let most = free / 3 * 2 / MIB * MIB;
    let made: Vec<Result<String, Code>> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4)
            .map(|number| {
                let request = volume(&format!("rival-{number}"), most, block());
                let client = fixture.server.client();
                scope.spawn(move || client.create_volume(request))
            })
            .collect();
        calls
            .into_iter()
            .map(|call| call.join().unwrap())
            .map(|result| match result {
                Ok(answer) => Ok(answer.volume.unwrap().volume_id),
                Err(status) => Err(status.code()),
            })
            .collect()
    });
    let winners: Vec<&String> = made.iter().flatten().collect();
    assert_eq!(winners.len(), 1, "{made:?}");
    assert!(
        made.iter()
            .all(|one| matches!(one, Ok(_) | Err(Code::ResourceExhausted))),
        "{made:?}"
    );
    accepted(fixture.csi.delete(winners[0]));
}
