//! `vdctl pool check` is what every other test trusts, so it must find each thing that can be wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and the damage to their own pools is the point"
)]

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tests::client::accepted;
use tests::fixture::Fixture;
use tests::records::{Record, of_volume};
use tests::requests::{block, filesystem, snapshot, volume};
use tests::scratch_fs::{FsKind, MIB};
use tests::{check, content, loops};

const SIZE: u64 = 16 * MIB;

/// One kind of damage, and what the check has to call it.
type Damage = (&'static str, fn(&Path), &'static str);

/// The object's folder is given; each is done to a fresh object.
const TO_A_VOLUME: &[Damage] = &[
    (
        "image gone",
        |folder| std::fs::remove_file(folder.join("disk.img")).unwrap(),
        "missing",
    ),
    (
        "image cut",
        |folder| resize(&folder.join("disk.img"), SIZE - 512),
        "bytes",
    ),
    (
        "image grown",
        |folder| resize(&folder.join("disk.img"), SIZE + 512),
        "bytes",
    ),
    (
        "image open to others",
        |folder| set_mode(&folder.join("disk.img"), 0o644),
        "mode",
    ),
    (
        "something beside it",
        |folder| drop(File::create(folder.join("notes")).unwrap()),
        "notes",
    ),
    (
        "record gone",
        |folder| std::fs::remove_file(folder.join("record")).unwrap(),
        "record",
    ),
    (
        "record empty",
        |folder| resize(&folder.join("record"), 0),
        "record",
    ),
    ("record of a later version", later_version, "version"),
    (
        "record of another volume",
        |folder| rename_folder(folder),
        "record",
    ),
];

const TO_A_SNAPSHOT: &[Damage] = &[
    (
        "image gone",
        |folder| std::fs::remove_file(folder.join("image.qcow2")).unwrap(),
        "missing",
    ),
    (
        "image cut",
        |folder| resize(&folder.join("image.qcow2"), 4096),
        "",
    ),
    (
        "image writable",
        |folder| set_mode(&folder.join("image.qcow2"), 0o600),
        "mode",
    ),
    (
        "header flipped",
        |folder| flip(&folder.join("image.qcow2"), 24),
        "",
    ),
    (
        "table flipped",
        |folder| flip(&folder.join("image.qcow2"), 65_536 + 7),
        "",
    ),
    (
        "record gone",
        |folder| std::fs::remove_file(folder.join("record")).unwrap(),
        "record",
    ),
];

fn resize(file: &Path, bytes: u64) {
    let file = OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(bytes).unwrap();
}

fn set_mode(file: &Path, mode: u32) {
    std::fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
}

fn flip(file: &Path, offset: u64) {
    let byte = content::read_at(file, offset, 1)[0];
    content::write_at(file, offset, &[byte ^ 0x10]);
}

fn later_version(folder: &Path) {
    let record = folder.join("record");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replacen(" 1 ", " 2 ", 1)).unwrap();
}

/// Swaps the last digit of the folder's name, so that the record in it is another volume's.
fn rename_folder(folder: &Path) {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let (front, last) = name.split_at(name.len() - 1);
    let other = folder.with_file_name(format!("{front}{}", if last == "0" { "1" } else { "0" }));
    std::fs::rename(folder, other).unwrap();
}

#[track_caller]
fn assert_found(fixture: &Fixture, what: &str, sign: &str) {
    let said = check::finds(&fixture.pool());
    assert!(said.contains(sign), "{what}: {sign:?} is not in\n{said}");
}

fn parent(file: &Path) -> PathBuf {
    file.parent().unwrap().to_owned()
}

#[test]
fn damage_to_a_volume_is_found() {
    for (what, damage, sign) in TO_A_VOLUME {
        let fixture = Fixture::on(FsKind::Xfs);
        let made = fixture.csi.made_volume(volume(what, SIZE, block()));
        check::clean(&fixture.pool());
        damage(&parent(&fixture.image(&made.volume_id)));
        assert_found(&fixture, what, sign);
        fixture.spoiled();
    }
}

#[test]
fn damage_to_a_snapshot_is_found() {
    for (what, damage, sign) in TO_A_SNAPSHOT {
        let fixture = Fixture::on(FsKind::Xfs);
        let made = fixture.csi.made_volume(volume(what, SIZE, block()));
        content::write_at(&fixture.image(&made.volume_id), MIB, b"data");
        let cut = fixture.csi.made_snapshot(snapshot(what, &made.volume_id));
        check::clean(&fixture.pool());
        damage(&parent(&fixture.snapshot_file(&cut.snapshot_id)));
        assert_found(&fixture, what, sign);
        fixture.spoiled();
    }
}

#[test]
fn a_flip_of_any_byte_of_a_record_is_found() {
    let fixture = Fixture::on(FsKind::Xfs);
    let made = fixture.csi.made_volume(volume("flipped", SIZE, block()));
    let record = parent(&fixture.image(&made.volume_id)).join("record");
    for offset in 0..content::size_of(&record) {
        flip(&record, offset);
        assert_found(&fixture, &format!("byte {offset}"), "");
        flip(&record, offset);
    }
    check::clean(&fixture.pool());
    accepted(fixture.csi.delete(&made.volume_id));
}

#[test]
fn a_volume_attached_twice_for_writing_is_found() {
    let fixture = Fixture::on(FsKind::Xfs);
    let attachment = fixture.published("twice", SIZE, &block());
    let foreign = loops::attach(&fixture.image(&attachment.volume_id));
    assert_found(&fixture, "twice", &attachment.volume_id);
    let foreign = loops::all()
        .into_iter()
        .find(|one| one.name == foreign)
        .unwrap();
    assert!(loops::detach(&foreign.name, foreign.back_inode));
    attachment.down_and_delete(&fixture.csi);
}

#[test]
fn a_device_of_a_deleted_volume_is_found() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let attachment = fixture.published("deleted", SIZE, &block());
    let folder = parent(&fixture.image(&attachment.volume_id));
    assert!(fixture.server.terminate().success());
    let deleted = fixture.pool().join("trash/by-hand");
    std::fs::rename(&folder, &deleted).unwrap();
    assert_found(&fixture, "deleted", "no volume's image");
    std::fs::rename(&deleted, &folder).unwrap();
    check::clean(&fixture.pool());
    fixture.server.start_again();
    fixture.reconnect();
    attachment.down_and_delete(&fixture.csi);
}

#[test]
fn a_volume_in_use_that_was_never_staged_is_found() {
    for how in [block(), filesystem("ext4")] {
        let fixture = Fixture::on(FsKind::Xfs);
        let attachment = fixture.published("in use", SIZE, &how);
        let path = of_volume(&fixture.pool(), &attachment.volume_id);
        let record = Record::read(&path);
        std::fs::write(&path, record.clone().with("staged", false).bytes()).unwrap();
        assert_found(&fixture, "in use", "never staged");
        std::fs::write(&path, record.bytes()).unwrap();
        attachment.down_and_delete(&fixture.csi);
    }
}

#[test]
fn a_volume_of_which_only_a_folder_is_still_mounted_is_found() {
    let fixture = Fixture::on(FsKind::Xfs);
    let attachment = fixture.published("folder", SIZE, &filesystem("ext4"));
    let sub_path = attachment.target.join("sub");
    std::fs::create_dir(&sub_path).unwrap();
    let bound = fixture.kubelet().join("sub-path");
    std::fs::create_dir(&bound).unwrap();
    bind(&sub_path, &bound);
    // As kubelet does for a subPath.
    check::clean(&fixture.pool());
    for whole in [&attachment.target, &attachment.staging] {
        nix::mount::umount(whole).unwrap();
    }
    assert_found(&fixture, "folder", "but for its folder /sub");
    nix::mount::umount(&bound).unwrap();
    check::clean(&fixture.pool());
    attachment.down_and_delete(&fixture.csi);
}

fn bind(source: &Path, target: &Path) {
    let flags = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(source), target, None::<&str>, flags, None::<&str>).unwrap();
}

#[test]
fn leftovers_are_found_once_nobody_works_on_the_pool() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let made = fixture.csi.made_volume(volume("kept", SIZE, block()));
    let cut = fixture.csi.made_snapshot(snapshot("kept", &made.volume_id));
    let folders = [
        fixture.image(&made.volume_id),
        fixture.snapshot_file(&cut.snapshot_id),
    ]
    .map(|image| parent(&image));
    let leftovers = folders.map(|folder| folder.join("record.tmp"));
    for leftover in &leftovers {
        std::fs::write(leftover, "half a record").unwrap();
        // The server may be writing it at this moment.
        check::clean(&fixture.pool());
    }
    assert!(fixture.server.terminate().success());
    for leftover in &leftovers {
        assert_found(&fixture, "record.tmp", "record.tmp");
        std::fs::remove_file(leftover).unwrap();
    }
    check::clean(&fixture.pool());
    for place in ["tmp/half-made", "trash/half-gone"] {
        let leftover = fixture.pool().join(place);
        std::fs::create_dir(&leftover).unwrap();
        assert_found(&fixture, place, place);
        std::fs::remove_dir(&leftover).unwrap();
        check::clean(&fixture.pool());
    }
    fixture.server.start_again();
    fixture.reconnect();
    accepted(fixture.csi.delete_cut(&cut.snapshot_id));
    accepted(fixture.csi.delete(&made.volume_id));
}

#[test]
fn what_is_no_pool_could_not_be_checked() {
    let fixture = Fixture::on(FsKind::Xfs);
    let nowhere = check::run(&fixture.kubelet());
    assert_eq!(nowhere.code, Some(2), "{nowhere}");
    let marker = fixture.pool().join(".vd-pool");
    flip(&marker, 20);
    let damaged = check::run(&fixture.pool());
    assert_eq!(damaged.code, Some(2), "{damaged}");
    flip(&marker, 20);
}
