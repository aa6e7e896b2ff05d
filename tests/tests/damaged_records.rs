//! A record that cannot be trusted is refused and reported, kept as it is, and used again once it is whole. Everything
//! else goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use tests::client::{Client, accepted, refused, shown};
use tests::damage::{findings, flipped, others_go_on, reasons, snapshot, troubled, volume};
use tests::fixture::{Fixture, NODE};
use tests::populate::{self, snapshot_id, volume_id};
use tests::records::{self, Record, marker, of_snapshot, of_volume, overwrite};
use tests::scratch_fs::{FsKind, MIB};
use tests::server::Server;
use tests::{content, requests, tree};
use tonic::Code;

/// A volume with data and a snapshot of it.
fn pair(fixture: &Fixture) -> (String, String) {
    let request = requests::volume("victim", 4 * MIB, requests::block());
    let volume = fixture.csi.made_volume(request).volume_id;
    let bytes = content::pattern("victim", 1 << 20);
    content::write_at(&fixture.image(&volume), MIB, &bytes);
    let request = requests::snapshot("victim", &volume);
    (volume, fixture.csi.made_snapshot(request).snapshot_id)
}

#[test]
fn a_byte_flipped_in_a_record_under_a_running_server_is_refused_and_heals_without_a_restart() {
    let fixture = Fixture::on(FsKind::Xfs);
    let client = &fixture.csi;
    let (victim, cut) = pair(&fixture);
    let image = content::digest(&fixture.image(&victim));

    let path = of_volume(&fixture.pool(), &victim);
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        overwrite(&path, &flipped(&whole, at));
        refused(volume(client, &victim), Code::DataLoss);
        refused(client.delete(&victim), Code::DataLoss);
        if at % 20 == 0 {
            volume_is_refused_everywhere(&fixture, &victim);
        }
    }
    overwrite(&path, &whole);
    accepted(volume(client, &victim));
    assert_eq!(reasons(client, &victim), Vec::<String>::new());
    let volume_bytes = whole.len();

    let path = of_snapshot(&fixture.pool(), &cut);
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        overwrite(&path, &flipped(&whole, at));
        refused(snapshot(client, &cut), Code::DataLoss);
        refused(client.delete_cut(&cut), Code::DataLoss);
        if at % 20 == 0 {
            let request = requests::volume("from damaged", 4 * MIB, requests::block());
            let request = requests::from_snapshot(request, &cut);
            refused(client.create_volume(request), Code::DataLoss);
            refused(
                client.create_snapshot(requests::snapshot("victim", &victim)),
                Code::DataLoss,
            );
            assert_eq!(
                findings(&fixture),
                BTreeSet::from([format!("snapshots/{cut}")])
            );
        }
    }
    others_go_on(client, &fixture.pool());
    overwrite(&path, &whole);
    accepted(snapshot(client, &cut));
    eprintln!(
        "refused: {volume_bytes} damaged volume records, {} snapshot records",
        whole.len()
    );

    assert_eq!(content::digest(&fixture.image(&victim)), image);
    accepted(client.delete_cut(&cut));
    accepted(client.delete(&victim));
}

fn volume_is_refused_everywhere(fixture: &Fixture, victim: &str) {
    let client = &fixture.csi;
    assert_eq!(reasons(client, victim), ["RecordDamaged"]);
    assert_eq!(troubled(client), BTreeSet::from([victim.to_owned()]));
    assert_eq!(
        findings(fixture),
        BTreeSet::from([format!("volumes/{victim}")])
    );
    let again = requests::volume("victim", 4 * MIB, requests::block());
    refused(client.create_volume(again), Code::DataLoss);
    refused(
        client.create_snapshot(requests::snapshot("new", victim)),
        Code::DataLoss,
    );
    let grow = requests::expand(victim, 8 * MIB, requests::block());
    refused(client.controller_expand_volume(grow), Code::DataLoss);
    let clone = requests::volume("clone", 4 * MIB, requests::block());
    refused(
        client.create_volume(requests::from_volume(clone, victim)),
        Code::DataLoss,
    );
}

/// Damaged records: where they lie, what they held before.
type Damaged = Vec<(PathBuf, Vec<u8>)>;

#[test]
fn records_damaged_at_any_byte_before_the_start_are_kept_and_the_rest_is_served() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let (good, good_cut) = pair(&fixture);
    assert!(fixture.server.terminate().success());
    let longest = [
        of_volume(&fixture.pool(), &good),
        of_snapshot(&fixture.pool(), &good_cut),
    ]
    .map(|path| std::fs::read(path).unwrap().len());
    let count = longest.into_iter().max().unwrap() + 40;
    populate::copies(&fixture.pool(), &good, &good_cut, 0, count, 1);
    let damaged = damage_one_byte_each(&fixture, count);
    let before = tree::list(&fixture.pool());

    fixture.server.start_again();
    fixture.reconnect();
    let client = &fixture.csi;
    assert_eq!(client.volume_ids(), [good.as_str()]);
    assert_eq!(client.snapshot_ids(), [good_cut.as_str()]);
    let all: BTreeSet<String> = (0..count).map(volume_id).collect();
    assert_eq!(troubled(client), all);
    for number in 0..count {
        refused(volume(client, &volume_id(number)), Code::DataLoss);
        refused(client.delete(&volume_id(number)), Code::DataLoss);
        refused(snapshot(client, &snapshot_id(number)), Code::DataLoss);
        refused(client.delete_cut(&snapshot_id(number)), Code::DataLoss);
    }
    others_go_on(client, &fixture.pool());
    let expected: BTreeSet<String> = (0..count)
        .flat_map(|number| {
            let cut = snapshot_id(number);
            [
                format!("volumes/{}", volume_id(number)),
                format!("snapshots/{cut}"),
            ]
        })
        .collect();
    assert_eq!(findings(&fixture), expected);
    unchanged_but_ours(&fixture, &before);

    for (path, whole) in &damaged {
        overwrite(path, whole);
    }
    for number in 0..count {
        accepted(volume(client, &volume_id(number)));
        accepted(snapshot(client, &snapshot_id(number)));
    }
    assert_eq!(client.volume_ids().len(), count + 1);
    assert_eq!(client.snapshot_ids().len(), count + 1);
    eprintln!("{count} volumes and {count} snapshots kept, reported and healed");
}

fn damage_one_byte_each(fixture: &Fixture, count: usize) -> Damaged {
    let mut damaged = Vec::new();
    for number in 0..count {
        for path in [
            of_volume(&fixture.pool(), &volume_id(number)),
            of_snapshot(&fixture.pool(), &snapshot_id(number)),
        ] {
            let whole = std::fs::read(&path).unwrap();
            overwrite(&path, &flipped(&whole, number % whole.len()));
            damaged.push((path, whole));
        }
    }
    damaged
}

/// Nothing in the pool was removed, made or changed.
#[track_caller]
fn unchanged_but_ours(fixture: &Fixture, before: &tree::Tree) {
    tests::wait::until("the trash is emptied", tests::server::PATIENCE, || {
        std::fs::read_dir(fixture.pool().join("trash"))
            .unwrap()
            .next()
            .is_none()
    });
    tree::unchanged(
        "a refusal changes nothing",
        before,
        &tree::list(&fixture.pool()),
    );
}

#[test]
fn a_damaged_marker_serves_nothing_and_heals_without_a_restart() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let (victim, cut) = pair(&fixture);
    assert!(fixture.server.terminate().success());
    let path = marker(&fixture.pool());
    let whole = std::fs::read(&path).unwrap();
    overwrite(&path, &flipped(&whole, 0));
    let before = tree::list(&fixture.pool());
    fixture.server = Server::spawn(fixture.server.setup().clone());
    fixture.server.wait_answering();
    fixture.reconnect();
    for at in 0..whole.len() {
        overwrite(&path, &flipped(&whole, at));
        nothing_is_served(&fixture.csi, &victim);
    }
    let newer = Record::read(&path_of_whole(&fixture, &whole))
        .of_version(2)
        .bytes();
    overwrite(&path, &newer);
    let said = nothing_is_served(&fixture.csi, &victim);
    assert!(said.contains("version \"2\""), "{said}");
    let status = fixture.vdctl(&["pool", "status"]);
    assert_eq!(status.code, Some(2), "{status}");
    assert!(status.err.contains("version \"2\""), "{status}");
    overwrite(&path, b"");
    let _said = nothing_is_served(&fixture.csi, &victim);
    tree::unchanged("nothing is repaired by guess", &before, &{
        overwrite(&path, &whole);
        tree::list(&fixture.pool())
    });
    fixture.server.wait_ready();
    accepted(volume(&fixture.csi, &victim));
    accepted(snapshot(&fixture.csi, &cut));
    others_go_on(&fixture.csi, &fixture.pool());
    eprintln!("{} damaged markers refused", whole.len() + 2);
}

/// The marker's bytes in a file beside the pool.
fn path_of_whole(fixture: &Fixture, whole: &[u8]) -> PathBuf {
    let aside = fixture.fs.folder().join("marker");
    let mut file = std::fs::File::create(&aside).unwrap();
    std::io::Write::write_all(&mut file, whole).unwrap();
    aside
}

/// Probe says not ready, and every call is put off with the reason, which is returned.
#[track_caller]
fn nothing_is_served(client: &Client, id: &str) -> String {
    let probed = client.probe();
    assert!(matches!(probed, Ok(false)), "{probed:?}");
    let request = requests::volume("too early", MIB, requests::block());
    let _created = refused(client.create_volume(request), Code::Unavailable);
    let _deleted = refused(client.delete(id), Code::Unavailable);
    shown(&refused(volume(client, id), Code::Unavailable))
}

#[test]
fn records_of_an_unknown_version_are_kept_and_named() {
    let mut fixture = Fixture::on(FsKind::Btrfs);
    let (victim, cut) = pair(&fixture);
    let paths = [
        of_volume(&fixture.pool(), &victim),
        of_snapshot(&fixture.pool(), &cut),
    ];
    let whole = paths.clone().map(|path| Record::read(&path));
    for (path, record) in paths.iter().zip(&whole) {
        overwrite(path, &record.clone().of_version(9).bytes());
    }
    for start in ["while it runs", "after a restart"] {
        let client = &fixture.csi;
        for status in [
            refused(volume(client, &victim), Code::DataLoss),
            refused(snapshot(client, &cut), Code::DataLoss),
            refused(client.delete(&victim), Code::DataLoss),
            refused(client.delete_cut(&cut), Code::DataLoss),
        ] {
            assert!(
                status.message().contains("version \"9\""),
                "{start}: {}",
                shown(&status)
            );
        }
        others_go_on(client, &fixture.pool());
        fixture.crash_and_restart();
    }
    for (path, record) in paths.iter().zip(&whole) {
        overwrite(path, &record.bytes());
    }
    accepted(volume(&fixture.csi, &victim));
    accepted(snapshot(&fixture.csi, &cut));
}

#[test]
fn a_record_that_is_missing_or_that_of_another_object_is_damage_and_not_absence() {
    let fixture = Fixture::on(FsKind::Ext4);
    let client = &fixture.csi;
    let (victim, _cut) = pair(&fixture);
    let request = requests::volume("second", 4 * MIB, requests::block());
    let second = client.made_volume(request).volume_id;
    let path = of_volume(&fixture.pool(), &victim);
    let whole = std::fs::read(&path).unwrap();
    let others = std::fs::read(of_volume(&fixture.pool(), &second)).unwrap();

    overwrite(&path, &others);
    let said = refused(volume(client, &victim), Code::DataLoss);
    assert!(
        said.message().contains("another object"),
        "{}",
        shown(&said)
    );
    std::fs::remove_file(&path).unwrap();
    for again in 0..2 {
        refused(volume(client, &victim), Code::DataLoss);
        refused(client.delete(&victim), Code::DataLoss);
        let same_name = requests::volume("victim", 4 * MIB, requests::block());
        refused(client.create_volume(same_name), Code::DataLoss);
        assert_eq!(
            troubled(client),
            BTreeSet::from([victim.clone()]),
            "call {again}"
        );
    }
    assert!(fixture.image(&victim).exists(), "the image is kept");
    let mut file = std::fs::File::create_new(&path).unwrap();
    std::io::Write::write_all(&mut file, &whole).unwrap();
    accepted(volume(client, &victim));
    let record = Record::read(&records::of_volume(&fixture.pool(), &victim));
    assert_eq!(record.text("name"), "victim");
    assert_eq!(Record::read(&marker(&fixture.pool())).text("node"), NODE);
}
