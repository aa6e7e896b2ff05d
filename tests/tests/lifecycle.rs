//! The life of volumes and snapshots as the sidecars drive it: made, repeated, copied, listed, deleted in any order.
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
use tests::requests::{
    at_least, between, block, filesystem, from_snapshot, from_volume, signed, snapshot, uses,
    volume, with_parameter,
};
use tests::scratch_fs::{FsKind, GIB, MIB};
use tests::{content, tools};
use tonic::Code;

const SIZE: u64 = 320 * MIB;

#[test]
fn the_same_request_again_gives_the_same_volume() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    for (name, how) in uses() {
        let request = volume(name, SIZE, how);
        let first = fixture.csi.made_volume(request.clone());
        assert_eq!(fixture.csi.made_volume(request.clone()), first);
        fixture.crash_and_restart();
        assert_eq!(fixture.csi.made_volume(request.clone()), first);
        let within = csi::CreateVolumeRequest {
            capacity_range: between(SIZE / 2, 2 * SIZE),
            ..request
        };
        assert_eq!(
            fixture.csi.made_volume(within),
            first,
            "the range still fits"
        );
        assert_eq!(
            fixture.csi.volume_ids(),
            std::slice::from_ref(&first.volume_id)
        );
        accepted(fixture.csi.delete(&first.volume_id));
        accepted(fixture.csi.delete(&first.volume_id));
    }
}

#[test]
fn an_ext4_of_any_size_that_can_be_asked_for_has_a_journal_and_can_be_used() {
    let fixture = Fixture::on(FsKind::Xfs);
    let how = filesystem("ext4");
    for mib in [1, 7, 8, 9, 10, 11] {
        let asked = volume(&format!("{mib} MiB"), mib * MIB, how.clone());
        let made = fixture.csi.made_volume(asked);
        assert_eq!(made.capacity_bytes, signed(mib.max(10) * MIB));
        let used = fixture.attachment(&made.volume_id, "pod", &how);
        used.up(&fixture.csi);
        let bytes = used.write_data();
        used.down(&fixture.csi);
        let image = fixture.image(&made.volume_id);
        let said = tools::run("dumpe2fs", &["-h", image.to_str().unwrap()]);
        assert!(said.contains("has_journal"), "{mib} MiB: {said}");
        used.up(&fixture.csi);
        used.assert_data(&bytes);
        used.down_and_delete(&fixture.csi);
    }
    let limited = csi::CreateVolumeRequest {
        capacity_range: between(MIB, 9 * MIB),
        ..volume("limited", MIB, how)
    };
    let status = refused(fixture.csi.create_volume(limited), Code::OutOfRange);
    assert!(status.message().contains("10 MiB"), "{status:?}");
}

#[test]
fn the_same_name_with_another_request_is_refused_by_the_field_that_differs() {
    let fixture = Fixture::on(FsKind::Xfs);
    let other = fixture.csi.made_volume(volume("other", SIZE, block()));
    let original = volume("name", SIZE, filesystem("ext4"));
    let made = fixture.csi.made_volume(original.clone());
    let resized = csi::CreateVolumeRequest {
        capacity_range: at_least(2 * SIZE),
        ..original.clone()
    };
    let limited = csi::CreateVolumeRequest {
        capacity_range: between(0, SIZE / 2),
        ..original.clone()
    };
    let cases = [
        (resized, "bytes"),
        (limited, "bytes"),
        (volume("name", SIZE, filesystem("xfs")), "ext4"),
        (volume("name", SIZE, block()), "ext4"),
        (
            with_parameter(original.clone(), "provisioning", "thick"),
            "provisioning",
        ),
        (from_volume(original.clone(), &other.volume_id), "source"),
    ];
    for (request, field) in cases {
        let status = refused(fixture.csi.create_volume(request), Code::AlreadyExists);
        assert!(
            status.message().contains(field),
            "{field}: {}",
            status.message()
        );
    }
    assert_eq!(fixture.csi.made_volume(original), made);
    for id in [&made.volume_id, &other.volume_id] {
        accepted(fixture.csi.delete(id));
    }
}

#[test]
fn the_same_snapshot_again_is_the_same_and_of_another_volume_is_refused() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let ids = ["one", "two"].map(|name| {
        fixture
            .csi
            .made_volume(volume(name, SIZE, block()))
            .volume_id
    });
    let first = fixture.csi.made_snapshot(snapshot("cut", &ids[0]));
    assert!(first.creation_time.is_some());
    fixture.crash_and_restart();
    assert_eq!(fixture.csi.made_snapshot(snapshot("cut", &ids[0])), first);
    let other = fixture.csi.create_snapshot(snapshot("cut", &ids[1]));
    let status = refused(other, Code::AlreadyExists);
    assert!(status.message().contains(&ids[0]), "{}", status.message());
    accepted(fixture.csi.delete_cut(&first.snapshot_id));
    accepted(fixture.csi.delete_cut(&first.snapshot_id));
    for id in &ids {
        accepted(fixture.csi.delete(id));
    }
}

#[test]
fn identical_requests_at_once_make_one_object() {
    let fixture = Fixture::on(FsKind::Xfs);
    let request = with_parameter(volume("once", SIZE, block()), "provisioning", "thick");
    let made: Vec<csi::Volume> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| fixture.server.client().made_volume(request.clone())))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert!(made.iter().all(|one| *one == made[0]), "{made:?}");
    assert_eq!(fixture.csi.volume_ids(), [made[0].volume_id.clone()]);
    let cuts: Vec<csi::Snapshot> = std::thread::scope(|scope| {
        let cut = snapshot("once", &made[0].volume_id);
        let calls: Vec<_> = (0..8)
            .map(|_| {
                let cut = cut.clone();
                scope.spawn(|| fixture.server.client().made_snapshot(cut))
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert!(cuts.iter().all(|one| *one == cuts[0]), "{cuts:?}");
    assert_eq!(fixture.csi.snapshot_ids(), [cuts[0].snapshot_id.clone()]);
    accepted(fixture.csi.delete_cut(&cuts[0].snapshot_id));
    accepted(fixture.csi.delete(&made[0].volume_id));
}

#[test]
fn sizes_are_rounded_up_once_and_the_size_asked_for_is_kept() {
    let fixture = Fixture::on(FsKind::Xfs);
    // A PVC of 1G, and what CDI asks for to fit 1 GiB into a filesystem: 1.06 times as much, odd to the byte.
    for (name, asked) in [
        ("decimal", 1_000_000_000),
        ("cdi", 1_138_166_333),
        ("tiny", 1),
    ] {
        let made = fixture.csi.made_volume(volume(name, asked, block()));
        let rounded = asked.next_multiple_of(MIB);
        assert_eq!(made.capacity_bytes, signed(rounded));
        assert_eq!(content::size_of(&fixture.image(&made.volume_id)), rounded);
        let cut = fixture.csi.made_snapshot(snapshot(name, &made.volume_id));
        assert_eq!(
            cut.size_bytes,
            signed(asked),
            "the size a PVC can be restored with"
        );
        let again = volume(&format!("{name}-again"), asked, block());
        let again = fixture
            .csi
            .made_volume(from_snapshot(again, &cut.snapshot_id));
        assert_eq!(again.capacity_bytes, signed(rounded));
        accepted(fixture.csi.delete_cut(&cut.snapshot_id));
        for id in [&made.volume_id, &again.volume_id] {
            accepted(fixture.csi.delete(id));
        }
    }
    let unsized_one = csi::CreateVolumeRequest {
        capacity_range: None,
        ..volume("unsized", 0, block())
    };
    let made = fixture.csi.made_volume(unsized_one);
    assert_eq!(made.capacity_bytes, signed(GIB));
    accepted(fixture.csi.delete(&made.volume_id));
    let small_xfs = fixture
        .csi
        .made_volume(volume("small", MIB, filesystem("xfs")));
    assert_eq!(small_xfs.capacity_bytes, signed(300 * MIB));
    accepted(fixture.csi.delete(&small_xfs.volume_id));
}
