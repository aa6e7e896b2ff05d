//! Snapshots, restores and clones: whole, independent of each other, and as large as asked for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and their folders are their own"
)]

use std::os::unix::fs::PermissionsExt;

use tests::client::{accepted, refused};
use tests::csi;
use tests::fixture::Fixture;
use tests::requests::{
    block, filesystem, from_snapshot, from_volume, signed, snapshot, uses, volume,
};
use tests::scratch_fs::{FsKind, MIB};
use tests::{content, tools};
use tonic::Code;

const SIZE: u64 = 320 * MIB;

#[test]
fn a_copy_smaller_than_its_source_is_refused() {
    let fixture = Fixture::on(FsKind::Xfs);
    let source = fixture.csi.made_volume(volume("source", SIZE, block()));
    let cut = fixture
        .csi
        .made_snapshot(snapshot("cut", &source.volume_id));
    let smaller = volume("smaller", SIZE - MIB, block());
    for request in [
        from_snapshot(smaller.clone(), &cut.snapshot_id),
        from_volume(smaller.clone(), &source.volume_id),
    ] {
        let _smaller = refused(fixture.csi.create_volume(request), Code::OutOfRange);
    }
    let unsized_one = csi::CreateVolumeRequest {
        capacity_range: None,
        ..from_snapshot(smaller, &cut.snapshot_id)
    };
    let same = fixture.csi.made_volume(unsized_one);
    assert_eq!(
        same.capacity_bytes,
        signed(SIZE),
        "the source's, when none is given"
    );
    accepted(fixture.csi.delete_cut(&cut.snapshot_id));
    for id in [&same.volume_id, &source.volume_id] {
        accepted(fixture.csi.delete(id));
    }
}

#[test]
fn a_copy_of_a_filesystem_volume_that_was_never_used_can_be_used() {
    for kind in [FsKind::Xfs, FsKind::Ext4] {
        let fixture = Fixture::on(kind);
        let client = &fixture.csi;
        for fs in ["ext4", "xfs"] {
            let how = filesystem(fs);
            let source = client.made_volume(volume(fs, SIZE, how.clone())).volume_id;
            let cut = client.made_snapshot(snapshot(fs, &source)).snapshot_id;
            let new = |what: &str| volume(&format!("{fs} {what}"), 2 * SIZE, how.clone());
            let copies = [
                from_snapshot(new("restored"), &cut),
                from_volume(new("cloned"), &source),
            ];
            for request in copies {
                let copy = client.made_volume(request).volume_id;
                let used = fixture.attachment(&copy, &format!("pod-{copy}"), &how);
                used.up(client);
                let bytes = used.write_data();
                used.down(client);
                used.up(client);
                used.assert_data(&bytes);
                used.down_and_delete(client);
            }
            accepted(client.delete_cut(&cut));
            accepted(client.delete(&source));
        }
    }
}

/// A source with data, a snapshot of it, a restore and a clone: the snapshot, the restore and the clone.
struct Family {
    source: String,
    cut: String,
    restored: String,
    cloned: String,
    bytes: Vec<u8>,
}

fn family(fixture: &Fixture, name: &str, how: &csi::VolumeCapability) -> Family {
    let source = fixture.published(name, SIZE, how);
    let bytes = source.write_data();
    source.down(&fixture.csi);
    let cut = fixture.csi.made_snapshot(snapshot(name, &source.volume_id));
    let restored = volume(&format!("{name}-restored"), 2 * SIZE, how.clone());
    let restored = fixture
        .csi
        .made_volume(from_snapshot(restored, &cut.snapshot_id));
    assert!(restored.content_source.is_some(), "the source is echoed");
    let cloned = volume(&format!("{name}-cloned"), 2 * SIZE, how.clone());
    let cloned = fixture
        .csi
        .made_volume(from_volume(cloned, &source.volume_id));
    assert!(cloned.content_source.is_some(), "the source is echoed");
    Family {
        source: source.volume_id,
        cut: cut.snapshot_id,
        restored: restored.volume_id,
        cloned: cloned.volume_id,
        bytes,
    }
}

#[test]
fn copies_hold_the_data_and_show_their_larger_size() {
    for kind in FsKind::ALL {
        let fixture = Fixture::on(kind);
        for (name, how) in uses() {
            let family = family(&fixture, name, &how);
            // All three at once: an xfs has the UUID of its source.
            let used = [&family.source, &family.restored, &family.cloned]
                .map(|id| fixture.attachment(id, &format!("pod-{id}"), &how));
            for one in &used {
                one.up(&fixture.csi);
            }
            for one in &used {
                one.assert_data(&family.bytes);
            }
            for one in &used[1..] {
                let _bytes = accepted(one.expand(&fixture.csi, 2 * SIZE));
                let usage = accepted(one.stats(&fixture.csi));
                assert!(usage[0].total > signed(SIZE), "{usage:?}");
                one.assert_data(&family.bytes);
            }
            for one in &used {
                one.down_and_delete(&fixture.csi);
            }
            accepted(fixture.csi.delete_cut(&family.cut));
        }
    }
}

#[test]
fn source_snapshot_and_copies_go_in_any_order() {
    let fixture = Fixture::on(FsKind::Xfs);
    let how = filesystem("ext4");
    for first in 0..4 {
        for second in (0..4).filter(|second| *second != first) {
            let family = family(&fixture, &format!("order-{first}-{second}"), &how);
            let delete = |number: usize| match number {
                0 => accepted(fixture.csi.delete(&family.source)),
                1 => accepted(fixture.csi.delete_cut(&family.cut)),
                2 => accepted(fixture.csi.delete(&family.restored)),
                _ => accepted(fixture.csi.delete(&family.cloned)),
            };
            delete(first);
            delete(second);
            let volumes = [
                (0, &family.source),
                (2, &family.restored),
                (3, &family.cloned),
            ];
            for (number, id) in volumes {
                if number != first && number != second {
                    let attachment = fixture.attachment(id, "pod", &how);
                    attachment.up(&fixture.csi);
                    attachment.assert_data(&family.bytes);
                    attachment.down(&fixture.csi);
                }
            }
            for number in (0..4).filter(|number| ![first, second].contains(number)) {
                delete(number);
            }
        }
    }
    assert_eq!(fixture.csi.volume_ids(), Vec::<String>::new());
    assert_eq!(fixture.csi.snapshot_ids(), Vec::<String>::new());
}

#[test]
fn a_snapshot_outlives_its_source_and_is_restored_after_a_restart() {
    for kind in FsKind::ALL {
        let mut fixture = Fixture::on(kind);
        for (name, how) in uses() {
            let source = fixture.published(name, SIZE, &how);
            let bytes = source.write_data();
            source.down(&fixture.csi);
            let cut = fixture.csi.made_snapshot(snapshot(name, &source.volume_id));
            accepted(fixture.csi.delete(&source.volume_id));
            fixture.crash_and_restart();
            assert_eq!(
                fixture.csi.snapshot_ids(),
                std::slice::from_ref(&cut.snapshot_id)
            );
            let request = volume(&format!("{name}-restored"), SIZE, how.clone());
            let made = fixture
                .csi
                .made_volume(from_snapshot(request, &cut.snapshot_id));
            accepted(fixture.csi.delete_cut(&cut.snapshot_id));
            let attachment = fixture.attachment(&made.volume_id, "pod", &how);
            attachment.up(&fixture.csi);
            attachment.assert_data(&bytes);
            attachment.down_and_delete(&fixture.csi);
        }
    }
}

#[test]
fn a_snapshot_is_a_standalone_read_only_qcow2_with_the_bytes_of_its_moment() {
    for kind in FsKind::ALL {
        let fixture = Fixture::on(kind);
        let source = fixture.published("source", SIZE, &block());
        let _bytes = source.write_data();
        content::write_at(&source.target, SIZE - 512, &[7; 512]);
        source.down(&fixture.csi);
        let cut = fixture
            .csi
            .made_snapshot(snapshot("cut", &source.volume_id));
        let before = content::digest(&fixture.image(&source.volume_id));
        let file = fixture.snapshot_file(&cut.snapshot_id);
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o400);
        let path = file.to_str().unwrap();
        let _clean = tools::run("qemu-img", &["check", "-f", "qcow2", path]);
        let info = tools::run("qemu-img", &["info", "--output=json", "-f", "qcow2", path]);
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        assert_eq!(info["virtual-size"], SIZE);
        for dependence in [
            "backing-filename",
            "full-backing-filename",
            "snapshots",
            "encrypted",
        ] {
            assert!(info[dependence].is_null(), "{dependence}: {info}");
        }
        // What the source does later is none of the snapshot's business.
        source.up(&fixture.csi);
        content::write_at(&source.target, 0, &[9; 65_536]);
        source.down(&fixture.csi);
        let raw = fixture.fs.folder().join("raw");
        let arguments = [
            "convert",
            "-f",
            "qcow2",
            "-O",
            "raw",
            path,
            raw.to_str().unwrap(),
        ];
        let _quiet = tools::run("qemu-img", &arguments);
        assert_eq!(content::digest(&raw), before);
        accepted(fixture.csi.delete_cut(&cut.snapshot_id));
        accepted(fixture.csi.delete(&source.volume_id));
    }
}
