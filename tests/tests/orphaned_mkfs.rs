//! A mkfs that outlives the server which started it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and they make files of their own"
)]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

use tests::client::{accepted, refused};
use tests::fixture::Fixture;
use tests::scratch_fs::{FsKind, GIB, MIB};
use tests::server::PATIENCE;
use tests::{content, requests, wait};
use tonic::Code;

/// The first mkfs opens its image, says so, and waits for a word before it writes.
fn slow_mkfs(folder: &Path) -> String {
    let at = folder.display();
    let path = std::env::var("PATH").unwrap();
    let script = format!(
        "#!/bin/sh\nPATH='{path}'\nfor image; do :; done\nif mkdir '{at}/began' 2>/dev/null; then\n  exec 9<>\"$image\"\n  touch '{at}/opened'\n  until [ -e '{at}/go' ]; do [ -d '{at}' ] || exit 1; sleep 0.05; done\n  mkfs.ext4 -q -F /proc/self/fd/9\n  touch '{at}/ended'\nelse\n  exec mkfs.ext4 \"$@\"\nfi\n"
    );
    let program = folder.join("mkfs.ext4");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    format!("{at}:{path}")
}

#[test]
fn a_mkfs_that_outlives_its_server_never_writes_to_a_volume_in_use() {
    let tools = tempfile::tempdir().unwrap();
    let at = |name: &str| tools.path().join(name);
    let path = slow_mkfs(tools.path());
    let mut fixture = Fixture::with(FsKind::Xfs, 8 * GIB, |mut setup| {
        setup.environment.push(("PATH".to_owned(), path));
        setup
    });
    let how = requests::filesystem("ext4");
    let volume = requests::volume("formatted", 64 * MIB, how.clone());
    let id = fixture.csi.made_volume(volume).volume_id;
    let attachment = fixture.attachment(&id, "pod-1", &how);
    let call = thread::spawn({
        let (attachment, client) = (attachment.clone(), fixture.server.client());
        move || attachment.stage(&client).is_ok()
    });
    wait::until("mkfs has begun", PATIENCE, || at("opened").exists());

    fixture.crash_and_restart();

    assert!(!call.join().unwrap(), "a dead server has answered");
    let _busy = refused(attachment.stage(&fixture.csi), Code::Aborted);
    std::fs::write(at("go"), "").unwrap();
    wait::until("the old mkfs has ended", PATIENCE, || at("ended").exists());
    wait::until("the volume is staged", PATIENCE, || {
        attachment.stage(&fixture.csi).is_ok()
    });
    accepted(attachment.publish(&fixture.csi));
    let file = attachment.target.join("file");
    std::fs::write(&file, "kept").unwrap();
    attachment.down(&fixture.csi);
    attachment.up(&fixture.csi);
    assert_eq!(content::read_at(&file, 0, 4), b"kept");
    attachment.down_and_delete(&fixture.csi);
}
