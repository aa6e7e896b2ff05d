//! An image that is missing, cut short or grown behind our back is refused and reported, and never replaced by an empty one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and they damage pools on purpose"
)]

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tests::client::{accepted, refused, shown};
use tests::damage::{findings, others_go_on, reasons, troubled, volume};
use tests::fixture::Fixture;
use tests::scratch_fs::{FsKind, MIB};
use tests::{check, content, requests};
use tonic::Code;

const BYTES: u64 = 4 * MIB;

fn made(fixture: &Fixture, name: &str) -> String {
    let request = requests::volume(name, BYTES, requests::block());
    fixture.csi.made_volume(request).volume_id
}

/// The image under another name beside its folder, where nothing of the driver looks.
fn aside(fixture: &Fixture, image: &Path) -> PathBuf {
    let aside = fixture.pool().join("taken-away");
    std::fs::rename(image, &aside).unwrap();
    aside
}

fn set_size(image: &Path, bytes: u64) {
    let file = OpenOptions::new().write(true).open(image).unwrap();
    file.set_len(bytes).unwrap();
}

/// Nobody can use the volume, everybody is told, and others go on.
#[track_caller]
fn refused_and_reported(fixture: &Fixture, victim: &str, what: &str) {
    let client = &fixture.csi;
    assert_eq!(reasons(client, victim), ["ImageDamaged"], "{what}");
    assert_eq!(
        troubled(client),
        BTreeSet::from([victim.to_owned()]),
        "{what}"
    );
    assert_eq!(
        findings(fixture),
        BTreeSet::from([victim.to_owned()]),
        "{what}"
    );
    let text = check::finds(&fixture.pool());
    assert!(text.contains(victim), "{what}: {text}");
    for status in [
        refused(
            client.create_snapshot(requests::snapshot("new", victim)),
            Code::DataLoss,
        ),
        refused(
            client.create_volume(requests::from_volume(
                requests::volume("clone", 2 * BYTES, requests::block()),
                victim,
            )),
            Code::DataLoss,
        ),
        refused(
            client.controller_expand_volume(requests::expand(victim, 2 * BYTES, requests::block())),
            Code::DataLoss,
        ),
    ] {
        assert!(
            status.message().contains(victim),
            "{what}: {}",
            shown(&status)
        );
    }
    let attachment = fixture.attachment(victim, "pod", &requests::block());
    refused(attachment.stage(client), Code::DataLoss);
    others_go_on(client, &fixture.pool());
    // What was refused left the damage visible.
    assert_eq!(
        reasons(client, victim),
        ["ImageDamaged"],
        "{what}, afterwards"
    );
    let same_name = requests::volume("victim", BYTES, requests::block());
    let same = accepted(client.create_volume(same_name)).volume.unwrap();
    assert_eq!(
        same.volume_id, victim,
        "{what}: the record is whole, so the volume exists"
    );
}

#[test]
fn a_volume_whose_image_is_missing_cut_short_grown_or_no_file_is_refused_until_it_is_back() {
    for kind in [FsKind::Xfs, FsKind::Ext4] {
        let mut fixture = Fixture::on(kind);
        let victim = made(&fixture, "victim");
        let image = fixture.image(&victim);
        let data = content::pattern("victim", 4 << 20);
        content::write_at(&image, 0, &data);
        let whole = aside(&fixture, &image);

        refused_and_reported(&fixture, &victim, "missing");
        assert!(!image.exists(), "nothing empty is put in its place");
        fixture.crash_and_restart();
        refused_and_reported(&fixture, &victim, "missing after a restart");
        assert!(!image.exists(), "nothing empty is put in its place");
        symlink(&whole, &image).unwrap();
        refused_and_reported(&fixture, &victim, "a symlink");
        std::fs::remove_file(&image).unwrap();
        std::fs::create_dir(&image).unwrap();
        refused_and_reported(&fixture, &victim, "a folder");
        std::fs::remove_dir(&image).unwrap();

        std::fs::rename(&whole, &image).unwrap();
        assert_eq!(reasons(&fixture.csi, &victim), Vec::<String>::new());
        for (bytes, what) in [
            (BYTES - MIB, "cut short"),
            (BYTES - 1, "cut short by a byte"),
            (0, "empty"),
            (BYTES + MIB, "grown"),
            (2 * BYTES, "grown twice"),
        ] {
            set_size(&image, bytes);
            refused_and_reported(&fixture, &victim, what);
            assert_eq!(
                content::size_of(&image),
                bytes,
                "{what}: left as it was found"
            );
        }
        set_size(&image, BYTES);
        assert_eq!(reasons(&fixture.csi, &victim), Vec::<String>::new());
        fixture.check();
        accepted(fixture.csi.delete(&victim));
        refused(volume(&fixture.csi, &victim), Code::NotFound);
    }
}

#[test]
fn a_snapshot_whose_image_is_missing_cut_short_or_changed_is_never_restored() {
    let fixture = Fixture::on(FsKind::Xfs);
    let client = &fixture.csi;
    let victim = made(&fixture, "victim");
    content::write_at(&fixture.image(&victim), 0, &content::pattern("v", 1 << 20));
    let cut = client
        .made_snapshot(requests::snapshot("victim", &victim))
        .snapshot_id;
    let image = fixture.snapshot_file(&cut);
    let bytes = content::size_of(&image);
    let restore = || {
        let request = requests::volume("restored", BYTES, requests::block());
        client.create_volume(requests::from_snapshot(request, &cut))
    };
    let named = |what: &str| {
        assert_eq!(findings(&fixture), BTreeSet::from([cut.clone()]), "{what}");
    };

    let whole = aside(&fixture, &image);
    refused(restore(), Code::DataLoss);
    named("missing");
    std::fs::rename(&whole, &image).unwrap();
    set_size(&image, bytes - 1);
    refused(restore(), Code::DataLoss);
    named("cut short");
    set_size(&image, bytes);
    for at in [0, 8, 24, 36, 40, 48, 100, 65536] {
        let before = content::read_at(&image, at, 1);
        content::write_at(&image, at, &[before[0] ^ 0x10]);
        refused(restore(), Code::DataLoss);
        named(&format!("byte {at} changed"));
        content::write_at(&image, at, &before);
    }
    others_go_on(client, &fixture.pool());
    assert_eq!(
        client.volume_ids(),
        [victim.as_str()],
        "no half restored volume"
    );
    fixture.check();
    let restored = accepted(restore()).volume.unwrap().volume_id;
    assert_eq!(
        content::digest(&fixture.image(&restored)),
        content::digest(&fixture.image(&victim))
    );
}

#[test]
fn what_is_deleted_although_its_image_is_gone_is_gone_whole() {
    let fixture = Fixture::on(FsKind::Xfs);
    let victim = made(&fixture, "victim");
    let cut = fixture
        .csi
        .made_snapshot(requests::snapshot("victim", &victim))
        .snapshot_id;
    std::fs::remove_file(fixture.image(&victim)).unwrap();
    std::fs::remove_file(fixture.snapshot_file(&cut)).unwrap();
    accepted(fixture.csi.delete(&victim));
    accepted(fixture.csi.delete_cut(&cut));
    assert_eq!(fixture.csi.volume_ids(), Vec::<String>::new());
    assert_eq!(fixture.csi.snapshot_ids(), Vec::<String>::new());
}

#[test]
fn files_of_others_in_the_pool_are_left_alone() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let strange = [
        "vol0",
        "volumes/vol0",
        "snapshots/mine",
        "volumes/pvc-nonsense",
    ];
    for name in strange {
        let folder = fixture.pool().join(name);
        std::fs::create_dir(&folder).unwrap();
        let file = File::create(folder.join("disk.img")).unwrap();
        file.set_len(MIB).unwrap();
    }
    fixture.crash_and_restart();
    others_go_on(&fixture.csi, &fixture.pool());
    for name in strange {
        assert!(
            fixture.pool().join(name).join("disk.img").exists(),
            "{name} stays"
        );
        fixture.csi.delete(name).unwrap();
        let last = name.rsplit('/').next().unwrap();
        fixture.csi.delete(last).unwrap();
        assert!(
            fixture.pool().join(name).join("disk.img").exists(),
            "{name} stays"
        );
    }
    assert_eq!(fixture.csi.volume_ids(), Vec::<String>::new());
    let expected: BTreeSet<String> = strange[1..].iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(
        findings(&fixture),
        expected,
        "strange folders among ours are reported"
    );
    fixture.spoiled();
}
