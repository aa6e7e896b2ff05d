//! The disk is not there, is another one, is read-only, full in some other way, or fails: refused with the reason, nothing
//! is written elsewhere, nothing is deleted, and it goes on by itself once the disk is well.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::time::Duration;

use tests::client::{Client, accepted, refused, shown};
use tests::damage::{others_go_on, reasons, volume};
use tests::fixture::{Fixture, NODE, initialise};
use tests::kubelet::Attachment;
use tests::records::{Record, marker, of_volume, overwrite};
use tests::scratch_fs::{FsKind, GIB, MIB, ScratchFs};
use tests::server::{Server, Setup};
use tests::small_disk::SmallDisk;
use tests::writer::Writer;
use tests::{csi, mounts, requests, tools, tree};
use tonic::Code;

fn made(client: &Client, name: &str) -> String {
    let request = requests::volume(name, 8 * MIB, requests::block());
    client.made_volume(request).volume_id
}

/// Probe says not ready and everything that asks for the pool is put off; what was said.
#[track_caller]
fn put_off(client: &Client, id: &str) -> String {
    let probed = client.probe();
    assert!(matches!(probed, Ok(false)), "{probed:?}");
    let _cut = refused(
        client.create_snapshot(requests::snapshot("not now", id)),
        Code::Unavailable,
    );
    let grow = requests::expand(id, 16 * MIB, requests::block());
    let _grown = refused(client.controller_expand_volume(grow), Code::Unavailable);
    let _deleted = refused(client.delete(id), Code::Unavailable);
    let _found = refused(volume(client, id), Code::Unavailable);
    let list = client.list_volumes(csi::ListVolumesRequest::default());
    let _listed = refused(list, Code::Unavailable);
    let capacity = client.get_capacity(csi::GetCapacityRequest::default());
    let _capacity = refused(capacity, Code::Unavailable);
    let request = requests::volume("not now", MIB, requests::block());
    shown(&refused(client.create_volume(request), Code::Unavailable))
}

#[test]
fn a_pool_that_is_not_mounted_at_the_start_is_waited_for_and_nothing_is_written_in_its_place() {
    for kind in FsKind::ALL {
        let mut fixture = Fixture::on(kind);
        let kept = made(&fixture.csi, "kept");
        assert!(fixture.server.terminate().success());
        fixture.fs.unmount();
        let below = tree::list(fixture.fs.folder());

        fixture.server = Server::spawn(fixture.server.setup().clone());
        fixture.server.wait_answering();
        fixture.reconnect();
        for _again in 0..20 {
            let said = put_off(&fixture.csi, &kept);
            assert!(
                said.contains("is not a pool: mount its disk there"),
                "{said}"
            );
        }
        nothing_new(&fixture, below);
        fixture.fs.mount();
        fixture.server.wait_ready();
        assert_eq!(fixture.csi.volume_ids(), [kept]);
        others_go_on(&fixture.csi, &fixture.pool());
    }
}

/// Nothing but the server's socket and log appeared in the test's folder.
#[track_caller]
fn nothing_new(fixture: &Fixture, before: tree::Tree) {
    let own = |listed: tree::Tree| -> tree::Tree {
        let kept = listed.into_iter().filter(|(path, _)| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            !name.starts_with("csi.") && name != "filesystem.img"
        });
        kept.collect()
    };
    let after = tree::list(fixture.fs.folder());
    tree::unchanged("below the lost mount", &own(before), &own(after));
}

#[test]
fn an_unmount_under_a_running_server_and_its_guests_writes_nothing_below_and_heals() {
    for kind in FsKind::ALL {
        let fixture = Fixture::on(kind);
        let client = &fixture.csi;
        let idle = made(client, "idle");
        let used = fixture.published("used", 16 * MIB, &requests::block());
        let writer = Writer::start(&used.target, 16 * MIB);
        writer.advance(20);

        fixture.fs.unmount_lazily();
        let below = tree::list(fixture.fs.folder());
        for _again in 0..5 {
            let said = put_off(client, &idle);
            assert!(
                said.contains("is not a pool: mount its disk there"),
                "{said}"
            );
            writer.advance(20);
        }
        nothing_new(&fixture, below);
        fixture.fs.mount();
        assert!(client.is_ready(), "ready at the first question");
        writer.advance(20);
        let _acknowledged = writer.stop();
        used.down_and_delete(client);
        assert_eq!(client.volume_ids(), [idle]);
        others_go_on(client, &fixture.pool());
    }
}

#[test]
fn another_pool_mounted_over_the_right_one_is_refused_by_name_and_not_touched() {
    let fixture = Fixture::on(FsKind::Xfs);
    let client = &fixture.csi;
    let kept = made(client, "kept");
    let other = ScratchFs::new(FsKind::Ext4, GIB);
    let _said = initialise(&other.mount_point()).ok();
    let uuids = [fixture.pool(), other.mount_point()]
        .map(|pool| Record::read(&marker(&pool)).text("uuid").to_owned());
    let before = tree::list(&other.mount_point());

    let target = fixture.pool();
    nix::mount::mount(
        Some(other.device()),
        &target,
        Some("ext4"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    let said = put_off(client, &kept);
    for uuid in &uuids {
        assert!(said.contains(uuid), "names {uuid}: {said}");
    }
    nix::mount::umount2(&target, nix::mount::MntFlags::empty()).unwrap();
    tree::unchanged("the other pool", &before, &tree::list(&other.mount_point()));
    assert!(client.is_ready(), "ready at the first question");
    assert_eq!(client.volume_ids(), [kept]);
}

#[test]
fn a_pool_of_another_node_is_refused_by_both_names_and_not_touched() {
    let mut fixture = Fixture::on(FsKind::Btrfs);
    let kept = made(&fixture.csi, "kept");
    assert!(fixture.server.terminate().success());
    let before = tree::list(&fixture.pool());
    let right = fixture.server.setup().clone();
    let mut wrong = right.clone();
    wrong.node = "another-node".to_owned();
    fixture.server = Server::spawn(wrong);
    fixture.server.wait_answering();
    fixture.reconnect();
    let said = put_off(&fixture.csi, &kept);
    assert!(
        said.contains(NODE) && said.contains("another-node"),
        "{said}"
    );
    tree::unchanged("the pool", &before, &tree::list(&fixture.pool()));
    fixture.server.start_as(right);
    fixture.server.wait_ready();
    fixture.reconnect();
    assert_eq!(fixture.csi.volume_ids(), [kept]);
}

#[test]
fn a_second_server_on_a_pool_waits_and_takes_over_when_the_first_dies() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let kept = made(&fixture.csi, "kept");
    let mut setup = fixture.server.setup().clone();
    setup.socket = fixture.fs.folder().join("second.sock");
    let mut second = Server::spawn(setup);
    second.wait_answering();
    let other = second.client();
    let said = put_off(&other, &kept);
    assert!(said.contains("owned by another running process"), "{said}");
    others_go_on(&fixture.csi, &fixture.pool());
    fixture.server.kill();
    second.wait_ready();
    assert_eq!(other.volume_ids(), [kept]);
    others_go_on(&other, &fixture.pool());
    assert!(second.terminate().success());
    fixture.server.start_again();
    fixture.reconnect();
}

#[test]
fn a_read_only_pool_is_read_refuses_every_change_and_heals() {
    for kind in FsKind::ALL {
        let fixture = Fixture::on(kind);
        let client = &fixture.csi;
        let kept = made(client, "kept");
        let cut = client
            .made_snapshot(requests::snapshot("kept", &kept))
            .snapshot_id;
        fixture.fs.remount(true);
        let before = tree::list(&fixture.pool());
        for again in 0..3 {
            let create = requests::volume("new", MIB, requests::block());
            let restore = requests::from_snapshot(
                requests::volume("restored", 8 * MIB, requests::block()),
                &cut,
            );
            let grow = requests::expand(&kept, 16 * MIB, requests::block());
            for status in [
                refused(client.create_volume(create), Code::Unavailable),
                refused(client.create_volume(restore), Code::Unavailable),
                refused(
                    client.create_snapshot(requests::snapshot("new", &kept)),
                    Code::Unavailable,
                ),
                refused(client.controller_expand_volume(grow), Code::Unavailable),
                refused(client.delete(&kept), Code::Unavailable),
                refused(client.delete_cut(&cut), Code::Unavailable),
            ] {
                assert!(
                    status.message().contains("Read-only"),
                    "{kind:?} {again}: {}",
                    shown(&status)
                );
            }
            assert_eq!(accepted(volume(client, &kept)).volume_id, kept);
            assert_eq!(client.volume_ids(), [kept.as_str()]);
            assert_eq!(client.snapshot_ids(), [cut.as_str()]);
        }
        tree::unchanged("a read-only pool", &before, &tree::list(&fixture.pool()));
        fixture.fs.remount(false);
        others_go_on(client, &fixture.pool());
        accepted(client.delete_cut(&cut));
        accepted(client.delete(&kept));
    }
}

#[test]
fn a_pool_whose_filesystem_has_shut_down_answers_with_errors_and_heals_when_mounted_again() {
    for kind in [FsKind::Xfs, FsKind::Ext4] {
        let fixture = Fixture::on(kind);
        let client = &fixture.csi;
        let kept = made(client, "kept");
        fixture.fs.shut_down();
        // That is no damage of the volume's.
        for reason in reasons(client, &kept) {
            let fits = ["Unreadable", "PoolUnavailable"].contains(&reason.as_str());
            assert!(fits, "{kind:?}: {reason}");
        }
        for _again in 0..3 {
            let create = requests::volume("new", MIB, requests::block());
            let status = client.create_volume(create).unwrap_err();
            let fits = [Code::Unavailable, Code::Internal].contains(&status.code());
            assert!(fits, "{kind:?}: {}", shown(&status));
            assert!(
                client.delete(&kept).is_err(),
                "{kind:?}: nothing can be deleted"
            );
        }
        // The server holds nothing of a pool that is lost, so an administrator can unmount it.
        fixture.fs.unmount_lazily();
        let _said = put_off(client, &kept);
        fixture.fs.wait_released();
        fixture.fs.mount();
        assert!(client.is_ready(), "{kind:?}: ready at the first question");
        assert_eq!(client.volume_ids(), [kept]);
        others_go_on(client, &fixture.pool());
    }
}

#[test]
fn what_is_published_from_a_filesystem_that_has_shut_down_can_still_be_taken_down() {
    for kind in [FsKind::Xfs, FsKind::Ext4] {
        for unmounted in [false, true] {
            let fixture = Fixture::on(kind);
            let client = &fixture.csi;
            let block = fixture.published("a block volume", 8 * MIB, &requests::block());
            let how = requests::filesystem("xfs");
            let mounted = fixture.published("a filesystem volume", 400 * MIB, &how);
            let bytes = mounted.write_data();
            block.write_data();
            fixture.fs.shut_down();
            if unmounted {
                fixture.fs.unmount_lazily();
            }
            let other = Attachment {
                volume_id: mounted.volume_id.clone(),
                ..block.clone()
            };
            let status = other.unpublish(client).unwrap_err();
            assert!(
                status.message().contains("taken"),
                "another volume's target is left alone: {}",
                shown(&status)
            );
            for used in [&block, &mounted] {
                accepted(used.unpublish(client));
                accepted(used.unpublish(client));
                accepted(used.unstage(client));
                accepted(used.unstage(client));
                assert!(!used.target.exists());
            }
            assert!(fixture.fs.loops().is_empty(), "{kind:?}: no device is left");
            if !unmounted {
                fixture.fs.unmount();
            }
            fixture.fs.mount();
            assert!(client.is_ready());
            mounted.up(client);
            mounted.assert_data(&bytes);
            for used in [&block, &mounted] {
                used.clear(client);
            }
        }
    }
}

#[test]
fn a_disk_that_fails_under_the_filesystem_loses_nothing_that_was_acknowledged() {
    let disk = SmallDisk::new(2 * GIB);
    let fs = ScratchFs::on_disk(disk.path(), FsKind::Xfs, GIB);
    let _said = initialise(&fs.mount_point()).ok();
    let mut server = Server::start(Setup::new(fs.folder()));
    let client = server.client();
    let mut acknowledged = vec![made(&client, "first")];
    disk.resize(disk.used() + MIB);
    let failed = (0..5000).find_map(|number| {
        let request = requests::volume(&format!("volume {number}"), MIB, requests::block());
        match client.create_volume(request) {
            Ok(answer) => {
                acknowledged.push(answer.volume.unwrap().volume_id);
                None
            }
            Err(status) => Some(status),
        }
    });
    let status = failed.expect("the disk fails in the end");
    eprintln!("{} volumes, then {}", acknowledged.len(), shown(&status));
    // What the disk says is what is told: this one is full.
    let expected = [Code::Internal, Code::Unavailable, Code::ResourceExhausted];
    assert!(expected.contains(&status.code()), "{}", shown(&status));
    let again = requests::volume("after the failure", MIB, requests::block());
    assert!(
        client.create_volume(again).is_err(),
        "nothing goes on on a disk that failed"
    );

    disk.resize(2 * GIB);
    fs.unmount_lazily();
    assert!(!client.is_ready(), "not while the disk is away");
    fs.mount();
    assert!(client.is_ready(), "ready at the first question");
    let found = client.volume_ids();
    for id in &acknowledged {
        assert!(found.contains(id), "{id} was acknowledged");
        assert_eq!(reasons(&client, id), Vec::<String>::new(), "{id}");
    }
    others_go_on(&client, &fs.mount_point());
    tests::check::clean(&fs.mount_point());
    assert!(server.terminate().success());
    tests::residue::none(&fs, None);
}

#[test]
fn a_quota_is_a_full_disk_and_heals_when_something_is_deleted() {
    let fixture = Fixture::on(FsKind::Btrfs);
    let client = &fixture.csi;
    let kept = made(client, "kept");
    let pool = fixture.pool();
    let pool = pool.to_str().unwrap();
    let _on = tools::run("btrfs", &["quota", "enable", pool]);
    let _limit = tools::run("btrfs", &["qgroup", "limit", "128M", pool]);
    let thick = |name: &str, bytes: u64| {
        let request = requests::volume(name, bytes, requests::block());
        client.create_volume(requests::with_parameter(request, "provisioning", "thick"))
    };
    for _again in 0..3 {
        let status = refused(thick("too large", 256 * MIB), Code::ResourceExhausted);
        assert!(status.message().contains("quota"), "{}", shown(&status));
    }
    let most = accepted(thick("most of it", 96 * MIB)).volume.unwrap();
    refused(
        thick("the rest and more", 64 * MIB),
        Code::ResourceExhausted,
    );
    others_go_on(client, &fixture.pool());
    accepted(client.delete(&most.volume_id));
    tests::wait::until("the trash is freed", Duration::from_secs(30), || {
        let _synced = tools::run("btrfs", &["filesystem", "sync", pool]);
        thick("the rest and more", 64 * MIB).is_ok()
    });
    accepted(client.delete(&kept));
}

#[test]
fn a_pool_without_free_inodes_says_so_and_heals_when_something_is_deleted() {
    let fs = ScratchFs::new(FsKind::Ext4, GIB);
    fs.unmount();
    let device = fs.device().to_str().unwrap();
    let _made = tools::run("mkfs.ext4", &["-q", "-F", "-N", "128", device]);
    fs.mount();
    let _said = initialise(&fs.mount_point()).ok();
    let mut server = Server::start(Setup::new(fs.folder()));
    let client = server.client();
    let mut ids = Vec::new();
    let status = loop {
        let request = requests::volume(&format!("v {}", ids.len()), MIB, requests::block());
        match client.create_volume(request) {
            Ok(answer) => ids.push(answer.volume.unwrap().volume_id),
            Err(status) => break status,
        }
        assert!(ids.len() < 200, "128 inodes are not enough for this");
    };
    eprintln!("{} volumes, then {}", ids.len(), shown(&status));
    for status in [
        status,
        refused(
            client.create_snapshot(requests::snapshot("cut", &ids[0])),
            Code::ResourceExhausted,
        ),
    ] {
        assert_eq!(status.code(), Code::ResourceExhausted, "{}", shown(&status));
        assert!(status.message().contains("inode"), "{}", shown(&status));
    }
    tests::check::clean(&fs.mount_point());
    for id in ids.drain(..4) {
        accepted(client.delete(&id));
    }
    others_go_on(&client, &fs.mount_point());
    assert!(server.terminate().success());
    tests::residue::none(&fs, None);
    tests::check::clean(&fs.mount_point());
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let disk = SmallDisk::new(MIB);
    let fs = ScratchFs::new(FsKind::Xfs, GIB);
    let _said = initialise(&fs.mount_point()).ok();
    let mut setup = Setup::new(fs.folder());
    setup.folder = disk.path().to_owned();
    let mut server = Server::start(setup);
    let client = server.client();
    let full = std::fs::File::create(disk.path().join("full")).unwrap();
    while std::io::Write::write_all(&mut &full, &[1; 4096]).is_ok() {}
    let victim = made(&client, "victim");
    let record = of_volume(&fs.mount_point(), &victim);
    let whole = std::fs::read(&record).unwrap();
    overwrite(&record, b"damaged");
    for _line_of_the_log in 0..200 {
        refused(volume(&client, &victim), Code::DataLoss);
    }
    overwrite(&record, &whole);
    accepted(client.delete(&victim));
    others_go_on(&client, &fs.mount_point());
    assert!(server.terminate().success());
    assert_eq!(mounts::at(&fs.mount_point()).len(), 1);
    tests::residue::none(&fs, None);
    tests::check::clean(&fs.mount_point());
}
