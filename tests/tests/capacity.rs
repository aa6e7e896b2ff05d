//! Capacity is a promise: at ratio 1.0 no guest ever meets a full disk, snapshots included; what cannot be promised is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tests::chance::Random;
use tests::client::{Client, accepted, refused, shown};
use tests::damage::findings;
use tests::fixture::Fixture;
use tests::records::{Record, of_snapshot, of_volume, overwrite};
use tests::scratch_fs::{FsKind, MIB, ScratchFs};
use tests::small_disk::SmallDisk;
use tests::{content, csi, requests, rewrite, tools};
use tonic::Code;

const POOL: u64 = 640 * MIB;

/// A pool on a disk in memory: nothing here is about the speed of a disk.
fn pool(kind: FsKind, arguments: &[&str]) -> (SmallDisk, Fixture) {
    let disk = SmallDisk::new(2 * POOL);
    let fs = ScratchFs::on_disk(disk.path(), kind, POOL);
    let fixture = Fixture::with_fs(fs, |mut setup| {
        setup.arguments = arguments.iter().map(|one| (*one).to_owned()).collect();
        setup
    });
    // In this order: what stands on the disk goes first.
    (disk, fixture)
}

fn free(client: &Client) -> u64 {
    u64::try_from(client.free_bytes()).unwrap()
}

fn create(client: &Client, name: &str, bytes: u64) -> Result<csi::Volume, tonic::Status> {
    let request = requests::volume(name, bytes, requests::block());
    client
        .create_volume(request)
        .map(|answer| answer.volume.unwrap())
}

fn create_thick(client: &Client, name: &str, bytes: u64) -> Result<csi::Volume, tonic::Status> {
    let request = requests::volume(name, bytes, requests::block());
    let request = requests::with_parameter(request, "provisioning", "thick");
    client
        .create_volume(request)
        .map(|answer| answer.volume.unwrap())
}

#[test]
fn get_capacity_is_what_create_volume_gives_and_a_refusal_has_the_figures() {
    for kind in FsKind::ALL {
        let (_disk, fixture) = pool(kind, &[]);
        let client = &fixture.csi;
        let most = free(client);
        assert!(most > 400 * MIB && most < POOL * 9 / 10, "{kind:?}: {most}");
        let status = refused(
            create(client, "too much", most + MIB),
            Code::ResourceExhausted,
        );
        for figure in [
            "may promise",
            "overcommit 1",
            "reserve 10%",
            "MiB",
            "Delete volumes",
        ] {
            assert!(status.message().contains(figure), "{}", shown(&status));
        }
        let all = accepted(create(client, "all", most));
        assert_eq!(free(client), 0, "{kind:?}");
        refused(create(client, "one more", MIB), Code::ResourceExhausted);
        let grow = requests::expand(&all.volume_id, most + MIB, requests::block());
        refused(client.controller_expand_volume(grow), Code::OutOfRange);
        assert_eq!(client.volume_ids(), [all.volume_id.as_str()]);
        accepted(client.delete(&all.volume_id));
        assert!(free(client) + MIB >= most, "{kind:?}: all of it is back");
    }
}

#[test]
fn two_at_once_never_share_the_last_of_the_room() {
    let (_disk, fixture) = pool(FsKind::Xfs, &[]);
    let mut counts = BTreeMap::new();
    for round in 0..12 {
        let most = free(&fixture.csi);
        let (parts, fit) = if round % 2 == 0 { (2, 1) } else { (3, 3) };
        let each = if fit == 1 {
            most / 2 + MIB
        } else {
            most / 3 / MIB * MIB
        };
        let made: Vec<_> = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..4)
                .map(|caller| {
                    let client = fixture.server.client();
                    let name = format!("round {round} caller {caller}");
                    scope.spawn(move || create(&client, &name, each))
                })
                .collect();
            callers
                .into_iter()
                .map(|caller| caller.join().unwrap())
                .collect()
        });
        let mut won = 0;
        for result in made {
            match result {
                Ok(volume) => {
                    won += 1;
                    accepted(fixture.csi.delete(&volume.volume_id));
                }
                Err(status) => {
                    assert_eq!(status.code(), Code::ResourceExhausted, "{}", shown(&status));
                }
            }
        }
        assert_eq!(won, fit, "4 callers asked for a {parts}th of the room each");
        *counts.entry(fit).or_insert(0) += 1;
    }
    eprintln!("winners of four callers: rounds {counts:?}");
}

#[test]
fn what_is_deleted_is_free_at_once_for_the_next_volume() {
    for kind in [FsKind::Xfs, FsKind::Ext4] {
        let (_disk, fixture) = pool(kind, &[]);
        let client = &fixture.csi;
        let most = free(client);
        for round in 0..5 {
            let name = format!("round {round}");
            let volume = accepted(create_thick(client, &name, most));
            accepted(client.delete(&volume.volume_id));
        }
    }
}

#[test]
fn files_of_others_take_from_what_is_promised_and_give_it_back() {
    let (_disk, fixture) = pool(FsKind::Xfs, &[]);
    let before = free(&fixture.csi);
    let foreign = fixture.pool().join("foreign");
    let path = foreign.to_str().unwrap();
    let _made = tools::run("fallocate", &["--length", "104857600", path]);
    let with = free(&fixture.csi);
    assert!(before - with >= 100 * MIB, "{before} became {with}");
    refused(
        create(&fixture.csi, "too much", before),
        Code::ResourceExhausted,
    );
    std::fs::remove_file(&foreign).unwrap();
    tests::wait::until("the room is back", Duration::from_secs(20), || {
        free(&fixture.csi) == before
    });
}

#[test]
fn what_is_kept_but_cannot_be_read_keeps_its_room() {
    let (_disk, mut fixture) = pool(FsKind::Xfs, &[]);
    let volume = accepted(create(&fixture.csi, "kept", 300 * MIB)).volume_id;
    let data = content::pattern("kept", 8 << 20);
    content::write_at(&fixture.image(&volume), 0, &data);
    let request = requests::snapshot("kept", &volume);
    let cut = fixture.csi.made_snapshot(request).snapshot_id;
    let before = free(&fixture.csi);
    let paths = [
        of_volume(&fixture.pool(), &volume),
        of_snapshot(&fixture.pool(), &cut),
    ];
    let whole = paths.clone().map(|path| std::fs::read(path).unwrap());
    for path in &paths {
        overwrite(path, b"damaged");
    }
    fixture.crash_and_restart();
    assert_eq!(fixture.csi.volume_ids(), Vec::<String>::new());
    let damaged = free(&fixture.csi);
    assert!(damaged <= before, "{before} became {damaged}");
    refused(
        create(&fixture.csi, "too much", 300 * MIB),
        Code::ResourceExhausted,
    );
    for (path, bytes) in paths.iter().zip(&whole) {
        overwrite(path, bytes);
    }
    fixture.crash_and_restart();
    assert_eq!(free(&fixture.csi), before);
}

#[test]
fn above_ratio_one_the_guest_meets_a_full_disk_and_deleting_a_snapshot_heals_it() {
    for kind in [FsKind::Xfs, FsKind::Btrfs] {
        let (_disk, fixture) = pool(kind, &["--overcommit", "4", "--reserve", "0%"]);
        let client = &fixture.csi;
        let mut random = Random::new(1);
        let used = fixture.published("used", 320 * MIB, &requests::block());
        rewrite::all(&used.target, 1 << 20, &mut random).unwrap();
        let cut = client
            .made_snapshot(requests::snapshot("cut", &used.volume_id))
            .snapshot_id;
        let kept = content::digest(&fixture.snapshot_file(&cut));
        let other = accepted(create(client, "other", 400 * MIB)).volume_id;

        let full = rewrite::all(&used.target, 1 << 20, &mut random).unwrap_err();
        assert_eq!(full.raw_os_error(), Some(libc_enospc()), "{kind:?}: {full}");
        assert!(client.is_ready(), "{kind:?}");
        assert_eq!(
            content::digest(&fixture.snapshot_file(&cut)),
            kept,
            "{kind:?}"
        );
        let found = findings(&fixture);
        assert!(
            found.iter().all(|what| what == "capacity"),
            "{kind:?}: {found:?}"
        );

        accepted(client.delete(&other));
        accepted(client.delete_cut(&cut));
        tests::wait::until(
            "the snapshot's room is back",
            Duration::from_secs(60),
            || {
                let _synced = tools::run("sync", &["-f", fixture.pool().to_str().unwrap()]);
                rewrite::all(&used.target, 1 << 20, &mut random).is_ok()
            },
        );
        used.down_and_delete(client);
    }
}

fn libc_enospc() -> i32 {
    nix::errno::Errno::ENOSPC as i32
}

/// A volume that is written, cut, and written again, twice; what it charges and which files hold it.
struct Lineage {
    charges: u64,
    files: Vec<PathBuf>,
}

fn lineage(fixture: &Fixture, name: &str, bytes: u64, random: &mut Random) -> Lineage {
    let client = &fixture.csi;
    let used = fixture.published(name, bytes, &requests::block());
    let mut made = Lineage {
        charges: 0,
        files: vec![fixture.image(&used.volume_id)],
    };
    for cut in 0..2 {
        rewrite::all(&used.target, 1 << (16 + 2 * cut), random).unwrap();
        // Without shared blocks only a quiet volume is copied.
        used.down(client);
        let request = requests::snapshot(&format!("{name} {cut}"), &used.volume_id);
        let id = client.made_snapshot(request).snapshot_id;
        used.up(client);
        let image = fixture.snapshot_file(&id);
        let allocated = blocks(&image);
        let charged = Record::read(&of_snapshot(&fixture.pool(), &id)).number("charge_bytes");
        assert!(
            (allocated..=allocated + MIB).contains(&charged),
            "charged {charged} for {allocated}"
        );
        made.charges += charged;
        made.files.push(image);
    }
    rewrite::all(&used.target, 1 << 20, random).unwrap();
    used.down(client);
    made
}

#[test]
fn what_is_committed_is_what_the_formula_gives_for_figures_counted_otherwise() {
    for kind in [FsKind::Xfs, FsKind::Ext4] {
        let (_disk, fixture) = pool(kind, &[]);
        let mut random = Random::new(3);
        let sizes = [48 * MIB, 24 * MIB];
        let lineages =
            sizes.map(|bytes| lineage(&fixture, &format!("{bytes}"), bytes, &mut random));
        let sizes: u64 = sizes.into_iter().sum();
        let charges: u64 = lineages.iter().map(|one| one.charges).sum();
        let _synced = tools::run("sync", &["-f", fixture.pool().to_str().unwrap()]);
        let disk = statvfs(&fixture.pool()).unwrap();
        let used = (disk.blocks() - disk.blocks_free()) * disk.fragment_size();
        let ours: u64 = lineages.iter().map(|one| covered(&one.files)).sum();
        let by_charge = sizes + charges + used.saturating_sub(ours);
        let committed = by_charge.min(used + sizes);
        let status = fixture.vdctl(&["pool", "status", "-o", "json"]).ok();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let theirs = status["committed_bytes"].as_u64().unwrap();
        eprintln!(
            "{kind:?}: sizes {sizes}, charges {charges}, used {used}, ours {ours}: {committed} and {theirs}"
        );
        assert!(
            theirs.abs_diff(committed) <= MIB,
            "{kind:?}: {theirs} and not {committed}"
        );
        let limit = disk.blocks() * disk.fragment_size() * 9 / 10;
        let promised = limit.saturating_sub(committed);
        assert!(
            free(&fixture.csi).abs_diff(promised) <= 2 * MIB,
            "{kind:?}: {promised}"
        );
    }
}

fn blocks(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).unwrap()) * 512
}

/// The bytes of the filesystem that at least one of the files holds, by `filefrag`.
fn covered(files: &[PathBuf]) -> u64 {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for file in files {
        let text = tools::run("filefrag", &["-v", "-b512", file.to_str().unwrap()]);
        // "   0:        0..    1023:     123456..    124479:   1024:   ..."
        ranges.extend(text.lines().filter_map(|line| {
            let mut columns = line.split(':');
            let _number: u64 = columns.next()?.trim().parse().ok()?;
            let (start, end) = columns.nth(1)?.split_once("..")?;
            let start: u64 = start.trim().parse().ok()?;
            Some((start, end.trim().parse::<u64>().ok()? + 1))
        }));
    }
    assert!(!ranges.is_empty());
    ranges.sort_unstable();
    let mut end = 0;
    let mut total = 0;
    for (start, stop) in ranges {
        total += stop.saturating_sub(start.max(end));
        end = end.max(stop);
    }
    total * 512
}
