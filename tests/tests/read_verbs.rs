//! The verbs of `vdctl` that only look: the same with the server running, stopped, and for a person or a program.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use serde_json::Value;
use tests::client::accepted;
use tests::fixture::Fixture;
use tests::requests::{block, snapshot, volume};
use tests::scratch_fs::{FsKind, MIB};
use tests::tree;

fn json(fixture: &Fixture, verb: &[&str]) -> Value {
    let text = fixture.vdctl(&[verb, &["-o", "json"]].concat()).ok();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{verb:?}: {error}: {text}"))
}

#[test]
fn everything_is_shown_with_the_server_running_and_stopped() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let made = fixture
        .csi
        .made_volume(volume("a-volume", 16 * MIB, block()));
    let cut = fixture
        .csi
        .made_snapshot(snapshot("a-snapshot", &made.volume_id));
    for running in [true, false] {
        if !running {
            assert!(fixture.server.terminate().success());
        }
        let before = tree::list(&fixture.pool());
        for verb in [
            &["volume", "list"][..],
            &["volume", "show", &made.volume_id],
        ] {
            assert!(
                json(&fixture, verb).to_string().contains(&made.volume_id),
                "{verb:?}"
            );
            assert!(
                fixture.vdctl(verb).ok().contains(&made.volume_id),
                "{verb:?}"
            );
        }
        for verb in [
            &["snapshot", "list"][..],
            &["snapshot", "show", &cut.snapshot_id],
        ] {
            assert!(
                json(&fixture, verb).to_string().contains(&cut.snapshot_id),
                "{verb:?}"
            );
            assert!(
                fixture.vdctl(verb).ok().contains(&cut.snapshot_id),
                "{verb:?}"
            );
        }
        let status = json(&fixture, &["pool", "status"]);
        assert!(
            status.to_string().contains(tests::fixture::NODE),
            "{status}"
        );
        assert!(!fixture.vdctl(&["pool", "status"]).ok().is_empty());
        let report = json(&fixture, &["pool", "check"]);
        assert_eq!(report["findings"], Value::Array(Vec::new()));
        tree::unchanged("the pool", &before, &tree::list(&fixture.pool()));
    }
    fixture.server.start_again();
    fixture.reconnect();
    accepted(fixture.csi.delete_cut(&cut.snapshot_id));
    accepted(fixture.csi.delete(&made.volume_id));
}

#[test]
fn what_does_not_exist_is_said_to_be_unknown() {
    let fixture = Fixture::on(FsKind::Xfs);
    for object in ["volume", "snapshot"] {
        for id in ["pvc-0b2bd8e1-6a3f-4a4a-9a53-2f1f1c2d3e4f", "../../etc", ""] {
            let ran = fixture.vdctl(&[object, "show", id]);
            assert!(ran.code.is_some_and(|code| code != 0), "{ran}");
            assert!(
                !ran.err.is_empty() && !ran.err.contains("panicked"),
                "{ran}"
            );
        }
    }
}

#[test]
fn a_pool_is_initialised_once_and_never_over_something_else() {
    let fixture = Fixture::on(FsKind::Xfs);
    let before = tree::list(&fixture.pool());
    let again = tests::fixture::initialise(&fixture.pool());
    assert!(again.code.is_some_and(|code| code != 0), "{again}");
    tree::unchanged("the pool", &before, &tree::list(&fixture.pool()));
    let half = fixture.fs.folder().join("half-a-pool");
    std::fs::create_dir_all(half.join("volumes/pvc-1")).unwrap();
    let over_data = tests::fixture::initialise(&half);
    assert!(over_data.code.is_some_and(|code| code != 0), "{over_data}");
    let nowhere = tests::fixture::initialise(&fixture.fs.folder().join("nowhere"));
    assert!(nowhere.code.is_some_and(|code| code != 0), "{nowhere}");
}
