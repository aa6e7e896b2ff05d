//! A volume is raw by what it is, whatever its content looks like.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and their folders are their own"
)]

use std::path::{Path, PathBuf};

use tests::client::accepted;
use tests::csi;
use tests::fixture::Fixture;
use tests::requests::{block, expand, filesystem, from_snapshot, from_volume, snapshot, volume};
use tests::scratch_fs::{FsKind, MIB};
use tests::{content, tools};

const SIZE: u64 = 16 * MIB;

/// What a guest may have written into its disk, by name.
fn disguises(folder: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let secret = folder.join("secret");
    std::fs::write(&secret, "not for guests").unwrap();
    let secret = secret.to_str().unwrap();
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let create = |arguments: &[&str]| {
        let _quiet = tools::run("qemu-img", &[&["create", "-q"], arguments].concat());
    };
    create(&["-f", "qcow2", &at("qcow2"), "1G"]);
    // The one that made a host read its own files for a guest: a qcow2 that names them.
    create(&[
        "-f",
        "qcow2",
        "-u",
        "-b",
        secret,
        "-F",
        "raw",
        &at("backed"),
        "1G",
    ]);
    create(&["-f", "vmdk", &at("vmdk"), "1G"]);
    for (name, program) in [("ext4", "mkfs.ext4"), ("xfs", "mkfs.xfs")] {
        create(&["-f", "raw", &at(name), "400M"]);
        let _quiet = tools::run(program, &["-q", &at(name)]);
    }
    let made = ["qcow2", "backed", "vmdk", "ext4", "xfs"];
    let mut disguises: Vec<_> = made
        .into_iter()
        .map(|name| (name, head_of(&folder.join(name))))
        .collect();
    disguises.push(("luks", luks()));
    disguises.push(("gpt", gpt()));
    disguises
}

fn head_of(file: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(file).unwrap();
    bytes.truncate(1 << 20);
    bytes
}

fn luks() -> Vec<u8> {
    let mut bytes = content::pattern("luks", 65_536);
    bytes[..8].copy_from_slice(b"LUKS\xba\xbe\x00\x02");
    bytes
}

/// A protective MBR with a bootable-looking partition, and a GPT header behind it.
fn gpt() -> Vec<u8> {
    let mut bytes = vec![0; 65_536];
    bytes[446..462].copy_from_slice(&[
        0x80, 0, 2, 0, 0xee, 255, 255, 255, 1, 0, 0, 0, 255, 255, 0, 0,
    ]);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    bytes[512..520].copy_from_slice(b"EFI PART");
    bytes
}

/// Writes the disguise at the front and something at the end, and returns the digest of the whole image.
fn dress(fixture: &Fixture, name: &str, bytes: &[u8]) -> (String, String) {
    let attachment = fixture.published(name, SIZE, &block());
    content::write_at(&attachment.target, 0, bytes);
    content::write_at(
        &attachment.target,
        SIZE - 4096,
        &content::pattern(name, 4096),
    );
    attachment.down(&fixture.csi);
    let digest = content::digest(&fixture.image(&attachment.volume_id));
    (attachment.volume_id, digest)
}

#[track_caller]
fn assert_still_raw(fixture: &Fixture, name: &str, volume_id: &str, digest: &str) {
    let attachment = fixture.attachment(volume_id, "pod", &block());
    attachment.up(&fixture.csi);
    assert!(
        content::size_of(&attachment.target) >= SIZE,
        "{name}: the size of the image"
    );
    let seen = content::digest_of(&attachment.target, 0, SIZE);
    assert_eq!(seen, digest, "{name}: another content");
    let device = attachment.target.to_str().unwrap();
    let partitions = tools::run(
        "lsblk",
        &["--noheadings", "--list", "--output", "TYPE", device],
    );
    assert_eq!(
        partitions.trim(),
        "loop",
        "{name}: no partitions are looked for"
    );
    attachment.down(&fixture.csi);
}

fn source_folder(fixture: &Fixture) -> PathBuf {
    let folder = fixture.fs.folder().join("disguises");
    std::fs::create_dir(&folder).unwrap();
    folder
}

#[test]
fn a_volume_that_looks_like_another_format_is_still_raw_everywhere() {
    for kind in FsKind::ALL {
        let fixture = Fixture::on(kind);
        for (name, bytes) in disguises(&source_folder(&fixture)) {
            let (source, digest) = dress(&fixture, name, &bytes);
            let csi = &fixture.csi;
            let cut = csi.made_snapshot(snapshot(name, &source));
            assert_eq!(cut.size_bytes, tests::requests::signed(SIZE), "{name}");
            assert_same_bytes_in_snapshot(&fixture, &cut, &source);
            let restored = volume(&format!("{name}-restored"), SIZE, block());
            let restored = csi.made_volume(from_snapshot(restored, &cut.snapshot_id));
            let cloned = volume(&format!("{name}-cloned"), SIZE, block());
            let cloned = csi.made_volume(from_volume(cloned, &source));
            let grown = expand(&source, 2 * SIZE, block());
            assert_eq!(
                accepted(csi.controller_expand_volume(grown)).capacity_bytes,
                tests::requests::signed(2 * SIZE)
            );
            for id in [&source, &restored.volume_id, &cloned.volume_id] {
                assert_still_raw(&fixture, name, id, &digest);
                accepted(csi.delete(id));
            }
            accepted(csi.delete_cut(&cut.snapshot_id));
        }
    }
}

/// qemu reads the snapshot as qcow2 and finds the raw bytes of the volume in it.
#[track_caller]
fn assert_same_bytes_in_snapshot(fixture: &Fixture, cut: &csi::Snapshot, source: &str) {
    let snapshot = fixture.snapshot_file(&cut.snapshot_id);
    let image = fixture.image(source);
    let compare = ["compare", "-f", "qcow2", "-F", "raw"];
    let files = [snapshot.to_str().unwrap(), image.to_str().unwrap()];
    let _identical = tools::run("qemu-img", &[&compare[..], &files[..]].concat());
}

#[test]
fn a_disguised_block_volume_restored_as_a_filesystem_is_never_formatted() {
    let fixture = Fixture::on(FsKind::Xfs);
    let folder = source_folder(&fixture);
    // What looks like ext4 may be checked and mounted as ext4: that was asked for.
    let others = disguises(&folder)
        .into_iter()
        .filter(|(name, _)| *name != "ext4");
    for (name, bytes) in others {
        let (source, digest) = dress(&fixture, name, &bytes);
        let cut = fixture.csi.made_snapshot(snapshot(name, &source));
        let how = filesystem("ext4");
        let request = volume(&format!("{name}-as-ext4"), SIZE, how.clone());
        let made = fixture
            .csi
            .made_volume(from_snapshot(request, &cut.snapshot_id));
        let attachment = fixture.attachment(&made.volume_id, "pod", &how);
        let status = attachment
            .stage(&fixture.csi)
            .expect_err("it is no whole ext4");
        assert!(!status.message().is_empty());
        accepted(attachment.unstage(&fixture.csi));
        let image = fixture.image(&made.volume_id);
        assert_eq!(
            content::digest_of(&image, 0, SIZE),
            digest,
            "{name} was written to"
        );
        accepted(fixture.csi.delete(&made.volume_id));
        accepted(fixture.csi.delete_cut(&cut.snapshot_id));
        accepted(fixture.csi.delete(&source));
    }
}
