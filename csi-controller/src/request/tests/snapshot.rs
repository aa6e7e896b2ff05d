//! Snapshots, paging, and how text of callers is shown.

use proto::csi::v1::{CreateSnapshotRequest, ListSnapshotsRequest, TopologyRequirement};
use proto::errors::Kind;

use super::{HOSTILE, assert_invalid, map};
use crate::ids;
use crate::model::{Checksum, Compression};
use crate::request::{page, snapshot, text};

fn snapshot_request() -> CreateSnapshotRequest {
    CreateSnapshotRequest {
        name: "snapshot-3f8b9c1e-0d2a-4c6b-9e57-0123456789ab".to_owned(),
        source_volume_id: ids::volume_id("v"),
        ..CreateSnapshotRequest::default()
    }
}

#[test]
fn a_snapshot_keeps_its_recognisable_name_as_id() {
    let parsed = snapshot::parse_create(&CreateSnapshotRequest {
        parameters: map(&[
            ("compression", "none"),
            ("csi.storage.k8s.io/volumesnapshot/name", "s"),
        ]),
        ..snapshot_request()
    });
    let parsed = parsed.expect("valid");
    assert_eq!(parsed.id, parsed.name);
    assert_eq!(parsed.source_volume_id, ids::volume_id("v"));
    assert_eq!(parsed.compression, None);
}

#[test]
fn a_snapshot_class_says_how_images_are_compressed() {
    let parsed = snapshot::parse_create(&CreateSnapshotRequest {
        parameters: map(&[("compression", "zstd")]),
        ..snapshot_request()
    });
    assert_eq!(parsed.expect("valid").compression, Some(Compression::Zstd));
}

#[test]
fn a_class_says_how_the_data_of_a_snapshot_is_digested() {
    let checksum = |value: &str| {
        let parsed = snapshot::parse_create(&CreateSnapshotRequest {
            parameters: map(&[("checksum", value)]),
            ..snapshot_request()
        });
        parsed.expect("valid").checksum
    };
    assert_eq!(checksum("none"), None);
    assert_eq!(checksum("blake3"), Some(Checksum::Blake3));
}

#[test]
fn a_snapshot_request_with_a_bad_field_is_refused() {
    type Change = fn(&mut CreateSnapshotRequest);
    let changes: [(Change, &str); 10] = [
        (|request| request.name.clear(), "name is missing"),
        (|request| request.name = "n".repeat(129), "CSI allows 128"),
        (
            |request| request.name = "a\0".to_owned(),
            "control characters",
        ),
        (
            |request| request.source_volume_id.clear(),
            "source_volume_id is missing",
        ),
        (
            |request| request.source_volume_id = "v".repeat(129),
            "CSI allows 128",
        ),
        (
            |request| request.parameters = map(&[("compression", "")]),
            "known are none and zstd",
        ),
        (
            |request| request.parameters = map(&[("compression", "gzip")]),
            "known are none and zstd",
        ),
        (
            |request| request.parameters = map(&[("checksum", "sha1")]),
            "known are none and blake3",
        ),
        (
            |request| request.parameters = map(&[("x", "y")]),
            "known are compression (none, zstd) and checksum (none, blake3)",
        ),
        (
            |request| request.accessibility_requirements = Some(TopologyRequirement::default()),
            "accessibility_requirements",
        ),
    ];
    for (change, text) in changes {
        let mut request = snapshot_request();
        change(&mut request);
        assert_invalid(snapshot::parse_create(&request), text);
    }
}

#[test]
fn a_filter_that_names_what_we_never_make_matches_nothing() {
    let long = "x".repeat(200);
    for id in HOSTILE
        .into_iter()
        .chain(["fake-id", "none", long.as_str()])
    {
        for request in [
            ListSnapshotsRequest {
                snapshot_id: id.to_owned(),
                ..<_>::default()
            },
            ListSnapshotsRequest {
                source_volume_id: id.to_owned(),
                ..<_>::default()
            },
        ] {
            assert_eq!(snapshot::parse_filter(&request), None, "{id}");
        }
    }
    let all = snapshot::parse_filter(&ListSnapshotsRequest::default()).expect("everything");
    assert_eq!((all.snapshot_id, all.source_volume_id), (None, None));
}

#[test]
fn a_token_continues_after_its_id_and_nothing_else_is_one() {
    let id = ids::volume_id("v");
    let token = page::token(Some(&id));
    let parsed = page::parse(2, &token, ids::is_volume_id).expect("ours");
    assert_eq!((parsed.after, parsed.max), (Some(id.clone()), 2));
    assert_eq!(page::token(None), "");
    let snapshot = page::token(Some(&ids::snapshot_id("s")));
    for bad in HOSTILE
        .into_iter()
        .chain(["invalid-token", "after:", "after:../x", &id, &snapshot])
    {
        let failure = page::parse(0, bad, ids::is_volume_id).expect_err(bad);
        assert_eq!(failure.kind, Kind::BadToken, "{bad}");
    }
}

#[test]
fn a_page_has_a_size_that_can_be_answered() {
    for (asked, expected) in [
        (0, page::MAX_ENTRIES),
        (1, 1),
        (i32::MAX, page::MAX_ENTRIES),
    ] {
        let parsed = page::parse(asked, "", ids::is_volume_id).expect("valid");
        assert_eq!((parsed.after, parsed.max), (None, expected));
    }
    for negative in [-1, i32::MIN] {
        assert_invalid(page::parse(negative, "", ids::is_volume_id), "negative");
    }
}

#[test]
fn text_of_callers_is_shown_escaped_and_short() {
    assert_eq!(text::shown("a\nb\u{1b}"), "\"a\\nb\\u{1b}\"");
    let long = text::shown(&"\u{1F980}".repeat(1000));
    assert!(long.chars().count() < 80 && long.ends_with("..."), "{long}");
}
