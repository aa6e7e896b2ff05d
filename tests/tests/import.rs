//! `vdctl snapshot import`: a disk from elsewhere as a snapshot of a pool, whole or not there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pool::fault::{Operation, Step};
use tempfile::TempDir;
use tests::fixture::Fixture;
use tests::requests::{block, filesystem, from_snapshot, volume};
use tests::scratch_fs::{FsKind, MIB};
use tests::tools::Ran;
use tests::{binaries, content, integrity, packing, tools, wait};

/// A raw disk, and what else is made of it.
struct Foreign {
    folder: TempDir,
}

impl Foreign {
    /// A disk of `bytes` with some data.
    fn new(bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create_new(folder.path().join("disk.raw")).unwrap();
        file.set_len(bytes).unwrap();
        let noise = content::pattern("foreign", 3 << 20);
        file.write_all_at(&noise, 5 << 20).unwrap();
        file.write_all_at(b"the end", bytes - 7).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn converted(&self, name: &str, options: &[&str]) -> PathBuf {
        let path = self.path(name);
        let raw = self.path("disk.raw");
        let files = [raw.to_str().unwrap(), path.to_str().unwrap()];
        let convert = ["convert", "-f", "raw", "-O", "qcow2"];
        let _out = tools::run("qemu-img", &[&convert[..], options, &files].concat());
        path
    }
}

fn import(fixture: &Fixture, file: &Path, more: &[&str]) -> Ran {
    let words = [&["snapshot", "import", file.to_str().unwrap()], more].concat();
    fixture.vdctl(&words)
}

/// The id that an import said.
fn id_in(said: &str) -> String {
    let word = said.split(' ').find(|word| word.starts_with("snap"));
    word.unwrap_or_else(|| panic!("{said}")).to_owned()
}

fn start(fixture: &mut Fixture) {
    fixture.server.start_again();
    fixture.reconnect();
}

/// Nothing of an import is left, or will be after the next start.
fn assert_nothing(fixture: &mut Fixture, what: &str) {
    start(fixture);
    assert_eq!(fixture.csi.snapshot_ids(), Vec::<String>::new(), "{what}");
    let left = std::fs::read_dir(fixture.pool().join("tmp")).unwrap();
    assert_eq!(left.count(), 0, "{what}");
    fixture.check();
    fixture.server.kill();
}

#[test]
fn an_imported_image_is_a_snapshot_like_any_other() {
    for kind in [FsKind::Xfs, FsKind::Ext4] {
        let mut fixture = Fixture::on(kind);
        let foreign = Foreign::new(40 * MIB);
        let digest = content::digest(&foreign.path("disk.raw"));
        let forms = [
            ("plain", vec![]),
            ("zlib", vec!["-c"]),
            ("zstd", vec!["-c", "-o", "compression_type=zstd"]),
            ("tiny", vec!["-o", "cluster_size=512,compat=0.10"]),
        ];
        assert!(fixture.server.terminate().success());
        let mut ids = Vec::new();
        for (name, options) in forms {
            let file = foreign.converted(&format!("{name}.qcow2"), &options);
            let more = ["--compress", "--checksum"];
            ids.push(id_in(&import(&fixture, &file, &more).ok()));
        }
        let raw = foreign.path("disk.raw");
        ids.push(id_in(
            &import(&fixture, &raw, &["--format", "raw", "--name", "a name"]).ok(),
        ));
        start(&mut fixture);
        for (number, id) in ids.iter().enumerate() {
            assert!(fixture.csi.snapshot_ids().contains(id), "{id}");
            if number < 4 {
                let _took = packing::wait(&fixture.pool(), id);
                let digest = integrity::wait_for_digest(&fixture.pool(), id);
                let disk = integrity::digest_of_disk(&foreign.path("disk.raw"));
                assert_eq!(digest, disk, "{id}");
            }
            // As large as its snapshot.
            let request = from_snapshot(volume(&format!("of {id}"), 40 * MIB, block()), id);
            let restored = fixture.csi.made_volume(request).volume_id;
            assert_eq!(content::digest(&fixture.image(&restored)), digest, "{id}");
        }
    }
}

#[test]
fn a_disk_that_is_no_whole_number_of_mebibytes_is_zero_at_its_end() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let foreign = Foreign::new(10 * MIB + 512);
    let file = foreign.converted("odd.qcow2", &[]);
    assert!(fixture.server.terminate().success());
    let id = id_in(&import(&fixture, &file, &[]).ok());
    start(&mut fixture);
    let request = from_snapshot(volume("restored", 11 * MIB, block()), &id);
    let image = fixture.image(&fixture.csi.made_volume(request).volume_id);
    let bytes = 10 * MIB + 512;
    assert_eq!(
        content::digest_of(&image, 0, bytes),
        content::digest(&foreign.path("disk.raw"))
    );
    assert_eq!(content::first_not_zero(&image, bytes, MIB - 512), None);
}

#[test]
fn an_imported_filesystem_is_mounted_by_pods() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("fs.raw");
    File::create_new(&disk).unwrap().set_len(64 * MIB).unwrap();
    let _out = tools::run("mkfs.ext4", &["-q", disk.to_str().unwrap()]);
    assert!(fixture.server.terminate().success());
    let words = ["--format", "raw", "--fs-type", "ext4"];
    let id = id_in(&import(&fixture, &disk, &words).ok());
    start(&mut fixture);
    let how = filesystem("ext4");
    let request = from_snapshot(volume("restored", 64 * MIB, how.clone()), &id);
    let made = fixture.csi.made_volume(request).volume_id;
    let attachment = fixture.attachment(&made, "pod-1", &how);
    attachment.up(&fixture.csi);
    assert!(attachment.target.join("lost+found").is_dir());
    attachment.down(&fixture.csi);
}

#[test]
fn what_cannot_be_trusted_or_does_not_fit_is_refused_and_leaves_nothing() {
    let mut fixture = Fixture::sized(FsKind::Xfs, 400 * MIB);
    let foreign = Foreign::new(40 * MIB);
    let good = foreign.converted("good.qcow2", &[]);
    let served = import(&fixture, &good, &[]);
    assert!(
        served.code == Some(2) && served.err.contains("is served by a running process"),
        "{served}"
    );
    assert!(fixture.server.terminate().success());

    let backed = foreign.path("backed.qcow2");
    let words = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b"];
    let files = [foreign.path("disk.raw"), backed.clone()];
    let files = files.each_ref().map(|file| file.to_str().unwrap());
    let _out = tools::run("qemu-img", &[&words[..], &files].concat());
    let link = foreign.path("link.qcow2");
    std::os::unix::fs::symlink(&good, &link).unwrap();
    let empty = foreign.path("empty");
    drop(File::create_new(&empty).unwrap());
    let huge = foreign.path("huge");
    let noise = content::pattern("huge", 450 << 20);
    File::create_new(&huge)
        .unwrap()
        .write_all_at(&noise, 0)
        .unwrap();
    let long = "n".repeat(129);
    let cases: [(&Path, &[&str], &str); 8] = [
        (&backed, &[], "backing"),
        (&link, &[], "link"),
        (&foreign.path("disk.raw"), &[], "not-qcow2"),
        (&foreign.path("missing"), &[], "missing"),
        (&empty, &["--format", "raw"], "empty"),
        (&huge, &["--format", "raw"], "no room"),
        (&good, &["--name", ""], "name"),
        (&good, &["--name", &long], "name"),
    ];
    for (file, more, text) in cases {
        let ran = import(&fixture, file, more);
        assert!(ran.code == Some(2) && ran.err.contains(text), "{ran}");
        assert_nothing(&mut fixture, text);
    }
    let _said = import(&fixture, &good, &[]).ok();
    let twice = import(&fixture, &good, &[]);
    assert!(
        twice.code == Some(2) && twice.err.contains("exists already"),
        "{twice}"
    );
    start(&mut fixture);
    assert_eq!(fixture.csi.snapshot_ids().len(), 1);
}

/// Steps that an import comes to: those of a snapshot, but that there is nothing to freeze.
fn steps() -> impl Iterator<Item = Step> {
    let frozen = [Step::SnapshotFrozen, Step::SnapshotThawed];
    Step::ALL
        .iter()
        .copied()
        .filter(move |step| step.operation() == Operation::CreateSnapshot && !frozen.contains(step))
}

#[test]
fn an_import_that_is_killed_or_fails_at_any_step_is_there_whole_or_not_at_all() {
    let mut fixture = Fixture::on(FsKind::Xfs);
    let foreign = Foreign::new(20 * MIB);
    let digest = content::digest(&foreign.path("disk.raw"));
    let file = foreign.converted("disk.qcow2", &["-c"]);
    let pool = fixture.pool();
    fixture.server.kill();
    for step in steps() {
        for action in ["kill", "enospc", "eio"] {
            let fault = format!("{}:{action}", step.name());
            let mut command = Command::new(binaries::with_faults());
            let command = command
                .args(["snapshot", "import"])
                .arg(&file)
                .arg("--pool")
                .arg(&pool)
                .env("VD_FAULT", &fault);
            let output = command.output().unwrap();
            assert!(!output.status.success(), "{fault}: {output:?}");
            start(&mut fixture);
            let there = fixture.csi.snapshot_ids();
            let published = matches!(step, Step::SnapshotPublished | Step::SnapshotParentsSynced);
            assert_eq!(there.len(), usize::from(published), "{fault}");
            for id in &there {
                let request = from_snapshot(volume("restored", 20 * MIB, block()), id);
                let restored = fixture.csi.made_volume(request).volume_id;
                assert_eq!(content::digest(&fixture.image(&restored)), digest);
                fixture.csi.delete(&restored).unwrap();
                fixture.csi.delete_cut(id).unwrap();
            }
            let tidy = || {
                let empty = |name| std::fs::read_dir(pool.join(name)).unwrap().count() == 0;
                empty("tmp") && empty("trash")
            };
            wait::until(&fault, packing::LIMIT, tidy);
            fixture.check();
            fixture.server.kill();
        }
    }
    let id = id_in(&import(&fixture, &file, &[]).ok());
    start(&mut fixture);
    assert_eq!(fixture.csi.snapshot_ids(), [id]);
}
