//! `vdctl serve` as a service: its socket, its stop, and a pool that is not there, is another one, or comes back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and their folders are their own"
)]

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use csi::volume_capability::access_mode::Mode;
use tests::client::{Client, accepted, refused};
use tests::csi;
use tests::fixture::{Fixture, initialise};
use tests::kubelet::Attachment;
use tests::requests::{block, snapshot, uses, volume, with_mode, with_parameter};
use tests::scratch_fs::{FsKind, GIB, MIB, ScratchFs};
use tests::server::{Server, Setup};
use tests::{tools, tree};
use tonic::Code;

const SIZE: u64 = 320 * MIB;

#[test]
fn the_socket_is_for_root_alone() {
    let fixture = Fixture::on(FsKind::Xfs);
    let socket = std::fs::metadata(&fixture.server.setup().socket).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_server_takes_more_connections_than_it_may_have_open_files_at_its_start() {
    const FEW: u64 = 128;
    let fixture = Fixture::with(FsKind::Xfs, 24 * GIB, |setup| {
        let program = setup.folder.join("few-files");
        let script = format!(
            "#!/bin/sh\nulimit -Sn {FEW}\nexec {} \"$@\"\n",
            setup.program.display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Setup { program, ..setup }
    });
    let made = fixture.csi.made_volume(volume("volume", SIZE, block()));
    let socket = &fixture.server.setup().socket;
    let connections: Vec<UnixStream> = (0..2 * FEW)
        .map(|_| UnixStream::connect(socket).unwrap())
        .collect();
    let open = || {
        let files = format!("/proc/{}/fd", fixture.server.pid());
        std::fs::read_dir(files).unwrap().count() as u64
    };
    tests::wait::until("they are accepted", tests::server::PATIENCE, || {
        open() >= 2 * FEW
    });
    assert!(fixture.server.client().is_ready());
    assert!(tests::damage::troubled(&fixture.csi).is_empty());
    accepted(fixture.csi.delete(&made.volume_id));
    drop(connections);
}

#[test]
fn a_stop_leaves_no_socket_no_lock_and_nothing_half_made() {
    for kind in FsKind::ALL {
        let mut fixture = Fixture::on(kind);
        let made = fixture.csi.made_volume(volume("kept", SIZE, block()));
        // Something large is under way when the signal comes.
        let (client, request) = (
            fixture.server.client(),
            volume("under-way", 4 * GIB, block()),
        );
        let request = with_parameter(request, "provisioning", "thick");
        let under_way = std::thread::spawn(move || client.create_volume(request));
        assert!(
            fixture.server.terminate().success(),
            "{}",
            fixture.server.log_tail()
        );
        assert!(!fixture.server.setup().socket.exists());
        let acknowledged = under_way.join().unwrap();
        let in_tmp = std::fs::read_dir(fixture.pool().join("tmp"))
            .unwrap()
            .count();
        assert_eq!(in_tmp, 0, "half-made objects are left");
        fixture.server.start_again();
        fixture.reconnect();
        let listed = fixture.csi.volume_ids();
        assert!(listed.contains(&made.volume_id));
        if let Ok(answer) = acknowledged {
            assert!(listed.contains(&answer.volume.unwrap().volume_id));
        }
        for id in listed {
            accepted(fixture.csi.delete(&id));
        }
    }
}

#[test]
fn a_second_server_for_the_same_pool_is_refused_and_takes_over_when_the_first_is_gone() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let made = fixture.csi.made_volume(volume("volume", SIZE, block()));
    let setup = Setup {
        socket: fixture.fs.folder().join("second.sock"),
        ..fixture.server.setup().clone()
    };
    let before = tree::list(&fixture.pool());
    let mut second = Server::spawn(setup);
    let refused_at_once = tests::wait::holds_within(tests::server::PATIENCE, || {
        let says_so = second.log_text().to_lowercase();
        says_so.contains("lock") || says_so.contains("another") || says_so.contains("already")
    });
    assert!(refused_at_once, "it says why\n{}", second.log_tail());
    if second.has_ended().is_none() {
        second.wait_answering();
        assert!(!second.client().is_ready());
        let create = second
            .client()
            .create_volume(volume("second", SIZE, block()));
        let _not_its_pool = refused(create, Code::Unavailable);
    }
    tree::unchanged("the pool", &before, &tree::list(&fixture.pool()));
    accepted(fixture.csi.delete(&made.volume_id));
    second.kill();
    fixture.crash_and_restart();
    assert_eq!(fixture.csi.volume_ids(), Vec::<String>::new());
}

#[test]
fn a_second_server_does_not_steal_the_socket() {
    let fixture = Fixture::on(FsKind::Xfs);
    let other = ScratchFs::new(FsKind::Xfs, GIB);
    let _said = initialise(&other.mount_point()).ok();
    let setup = Setup {
        socket: fixture.server.setup().socket.clone(),
        ..Setup::new(other.folder())
    };
    let mut second = Server::spawn(setup);
    assert!(!second.wait_end().success(), "{}", second.log_tail());
    assert!(fixture.server.client().is_ready(), "the first still has it");
}

/// Every call that changes something or tells what there is must say that it cannot now.
#[track_caller]
fn assert_unavailable(csi: &Client) {
    assert!(!csi.is_ready());
    let id = "pvc-0b2bd8e1-6a3f-4a4a-9a53-2f1f1c2d3e4f";
    let create = csi.create_volume(volume("volume", SIZE, block()));
    let _later = refused(create, Code::Unavailable);
    let _later = refused(csi.delete(id), Code::Unavailable);
    let _later = refused(csi.create_snapshot(snapshot("cut", id)), Code::Unavailable);
    let _later = refused(
        csi.list_volumes(csi::ListVolumesRequest::default()),
        Code::Unavailable,
    );
    let _later = refused(
        csi.get_capacity(csi::GetCapacityRequest::default()),
        Code::Unavailable,
    );
}

fn spawn_answering(setup: Setup) -> Server {
    let mut server = Server::spawn(setup);
    server.wait_answering();
    server
}

#[test]
fn a_folder_without_a_pool_is_not_served_until_it_is_initialised() {
    for kind in FsKind::ALL {
        let fs = ScratchFs::new(kind, GIB);
        let before = tree::list(&fs.mount_point());
        let mut server = spawn_answering(Setup::new(fs.folder()));
        assert_unavailable(&server.client());
        assert!(
            server.log_text().contains("pool init"),
            "{}",
            server.log_tail()
        );
        tree::unchanged("the folder", &before, &tree::list(&fs.mount_point()));
        let _said = initialise(&fs.mount_point()).ok();
        server.wait_ready();
        let csi = server.client();
        let made = csi.made_volume(volume("volume", SIZE, block()));
        accepted(csi.delete(&made.volume_id));
    }
}

/// What lies in the folder under the mount: the filesystem that must not be written to by mistake.
fn assert_nothing_under_the_mount(mount_point: &Path) {
    let found = tree::list(mount_point);
    assert!(
        found.is_empty(),
        "written to the wrong filesystem: {found:#?}"
    );
}

#[test]
fn a_pool_that_is_not_mounted_at_the_start_is_served_once_it_is() {
    let fs = ScratchFs::new(FsKind::Xfs, GIB);
    let _said = initialise(&fs.mount_point()).ok();
    fs.unmount();
    let mut server = spawn_answering(Setup::new(fs.folder()));
    assert_unavailable(&server.client());
    assert_nothing_under_the_mount(&fs.mount_point());
    fs.mount();
    server.wait_ready();
    let csi = server.client();
    let made = csi.made_volume(volume("volume", SIZE, block()));
    accepted(csi.delete(&made.volume_id));
    drop(csi);
    assert!(server.terminate().success());
}

#[test]
fn a_pool_unmounted_under_the_server_is_noticed_and_served_again_when_it_is_back() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let made = fixture.csi.made_volume(volume("volume", SIZE, block()));
    fixture.fs.unmount_lazily();
    fixture.server.wait_not_ready();
    assert_unavailable(&fixture.csi);
    assert_nothing_under_the_mount(&fixture.pool());
    fixture.fs.mount();
    fixture.server.wait_ready();
    fixture.reconnect();
    assert_eq!(
        fixture.csi.volume_ids(),
        std::slice::from_ref(&made.volume_id)
    );
    accepted(fixture.csi.delete(&made.volume_id));
}

#[test]
fn another_pool_mounted_in_place_of_the_own_is_not_touched() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let made = fixture.csi.made_volume(volume("volume", SIZE, block()));
    let other = ScratchFs::new(FsKind::Xfs, GIB);
    let _said = initialise(&other.mount_point()).ok();
    let before = tree::list(&other.mount_point());
    fixture.fs.unmount_lazily();
    let (source, target) = (other.mount_point(), fixture.pool());
    let bind = |arguments: &[&std::ffi::OsStr]| tests::tools::run("mount", arguments);
    let _quiet = bind(&["--bind".as_ref(), source.as_os_str(), target.as_os_str()]);
    fixture.server.wait_not_ready();
    assert_unavailable(&fixture.csi);
    tree::unchanged("the other pool", &before, &tree::list(&other.mount_point()));
    let _quiet = tests::tools::run("umount", &[target.as_os_str()]);
    fixture.fs.mount();
    fixture.server.wait_ready();
    fixture.reconnect();
    assert_eq!(
        fixture.csi.volume_ids(),
        std::slice::from_ref(&made.volume_id)
    );
    accepted(fixture.csi.delete(&made.volume_id));
}

#[test]
fn the_pool_of_another_node_is_not_served() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let made = fixture.csi.made_volume(volume("volume", SIZE, block()));
    let before = tree::list(&fixture.pool());
    let setup = Setup {
        node: "somebody-else".to_owned(),
        ..fixture.server.setup().clone()
    };
    fixture.server.start_as(setup.clone());
    fixture.server.wait_answering();
    assert_unavailable(&fixture.server.client());
    let log = fixture.server.log_text();
    assert!(
        log.contains("somebody-else") && log.contains(tests::fixture::NODE),
        "both nodes are named\n{}",
        fixture.server.log_tail()
    );
    tree::unchanged("the pool", &before, &tree::list(&fixture.pool()));
    fixture.server.start_as(Setup {
        node: tests::fixture::NODE.to_owned(),
        ..setup
    });
    fixture.server.wait_ready();
    fixture.reconnect();
    accepted(fixture.csi.delete(&made.volume_id));
}

#[test]
fn a_read_only_pool_refuses_changes_and_heals_when_it_is_writable_again() {
    for kind in FsKind::ALL {
        let mut fixture = Fixture::on(kind);
        let made = fixture.csi.made_volume(volume("volume", SIZE, block()));
        assert!(fixture.server.terminate().success());
        fixture.fs.remount(true);
        let setup = fixture.server.setup().clone();
        fixture.server.start_as(setup);
        fixture.server.wait_answering();
        fixture.reconnect();
        let create = fixture.csi.create_volume(volume("new", SIZE, block()));
        let _later = refused(create, Code::Unavailable);
        let _later = refused(fixture.csi.delete(&made.volume_id), Code::Unavailable);
        fixture.fs.remount(false);
        fixture.server.wait_ready();
        fixture.reconnect();
        assert_eq!(
            fixture.csi.volume_ids(),
            std::slice::from_ref(&made.volume_id)
        );
        accepted(fixture.csi.delete(&made.volume_id));
    }
}

#[test]
fn published_volumes_survive_a_pool_that_was_shut_down_and_can_be_taken_down() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    for (name, how) in uses() {
        let attachment = fixture.published(name, SIZE, &how);
        let bytes = attachment.write_data();
        fixture.server.kill();
        fixture.fs.shut_down();
        fixture.fs.take_apart_users();
        fixture.fs.unmount();
        fixture.fs.mount();
        fixture.server.start_again();
        fixture.reconnect();
        attachment.up(&fixture.csi);
        attachment.assert_data(&bytes);
        attachment.down_and_delete(&fixture.csi);
    }
}

/// Undoes a publish and a stage twice, and sees that nothing is left.
#[track_caller]
fn taken_down_twice(fixture: &Fixture, attachments: &[Attachment]) {
    for attachment in attachments {
        for _again in 0..2 {
            accepted(attachment.unpublish(&fixture.csi));
        }
        for _again in 0..2 {
            accepted(attachment.unstage(&fixture.csi));
        }
        assert!(!attachment.target.exists());
    }
    assert!(fixture.fs.loops().is_empty(), "a device is left");
}

#[test]
fn what_was_published_for_reading_is_taken_down_from_a_pool_that_is_read_only() {
    for kind in FsKind::ALL {
        let mut fixture = Fixture::on(kind);
        // A filesystem that is mounted for reading lies on a device for writing all the same, which forbids the remount.
        let writer = fixture.published("volume", SIZE, &block());
        writer.write_data();
        writer.down(&fixture.csi);
        let how = with_mode(block(), Mode::SingleNodeReaderOnly);
        let attachments = ["pod-1", "pod-2"].map(|pod| {
            let name = format!("for {pod}");
            let made = fixture.csi.made_volume(volume(&name, SIZE, block()));
            let reader = fixture.attachment(&made.volume_id, pod, &how);
            reader.up(&fixture.csi);
            reader
        });
        fixture.fs.remount(true);
        let status = refused(
            fixture.csi.delete(&attachments[0].volume_id),
            Code::FailedPrecondition,
        );
        assert!(status.message().contains("published"), "{status:?}");
        // Also by a server that has never seen the pool writable.
        fixture.crash_and_restart();
        taken_down_twice(&fixture, &attachments);
        fixture.fs.remount(false);
        for id in fixture.csi.volume_ids() {
            accepted(fixture.csi.delete(&id));
        }
    }
}

#[test]
fn what_was_published_for_writing_is_taken_down_from_a_pool_that_an_error_made_read_only() {
    let mut fixture = Fixture::on(FsKind::Ext4);
    let pool = fixture.pool();
    let option = ["-o", "remount,errors=remount-ro", pool.to_str().unwrap()];
    let _quiet = tools::run("mount", &option);
    let attachments: Vec<Attachment> = uses()
        .into_iter()
        .map(|(name, how)| {
            let attachment = fixture.published(name, SIZE, &how);
            attachment.write_data();
            attachment
        })
        .collect();
    let name = fixture.fs.device().file_name().unwrap().to_str().unwrap();
    std::fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "1").unwrap();
    let request = volume("refused", MIB, block());
    let refused = refused(fixture.csi.create_volume(request), Code::Unavailable);
    assert!(refused.message().contains("Read-only"), "{refused:?}");
    taken_down_twice(&fixture, &attachments);

    fixture.server.kill();
    fixture.fs.unmount();
    // It exits with 1, because there was something to repair.
    let device = fixture.fs.device().to_str().unwrap();
    let _repaired = tools::attempt("e2fsck", &["-f", "-y", device]);
    fixture.fs.mount();
    fixture.server.start_again();
    fixture.reconnect();
    for attachment in &attachments {
        attachment.up(&fixture.csi);
        attachment.down_and_delete(&fixture.csi);
    }
}
