//! `vdctl snapshot export`: the same disk as a file of its own, whole or not there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use tempfile::TempDir;
use tests::fixture::Fixture;
use tests::requests::{block, snapshot, volume};
use tests::scratch_fs::{FsKind, MIB};
use tests::{binaries, integrity, tools};

/// A snapshot of a disk of 64 MiB with some data, its id, the raw disk, and a folder to export to.
struct Cut {
    fixture: Fixture,
    id: String,
    raw: PathBuf,
    folder: TempDir,
}

fn cut(kind: FsKind) -> Cut {
    let fixture = Fixture::on(kind);
    let made = fixture
        .csi
        .made_volume(volume("a-volume", 64 * MIB, block()));
    let disk = fixture
        .pool()
        .join("volumes")
        .join(&made.volume_id)
        .join("disk.img");
    let file = File::options().write(true).open(&disk).unwrap();
    file.write_all_at(&[7; 3 << 20], 5 << 20).unwrap();
    file.write_all_at(b"the end", (64 << 20) - 7).unwrap();
    file.sync_all().unwrap();
    let id = fixture
        .csi
        .made_snapshot(snapshot("a-snapshot", &made.volume_id))
        .snapshot_id;
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    let _bytes = std::fs::copy(&disk, &raw).unwrap();
    Cut {
        fixture,
        id,
        raw,
        folder,
    }
}

impl Cut {
    fn export(&self, name: &str, more: &[&str]) -> tools::Ran {
        let out = self.folder.path().join(name);
        let words = [
            &["snapshot", "export", &self.id, out.to_str().unwrap()],
            more,
        ]
        .concat();
        self.fixture.vdctl(&words)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn compare(&self, name: &str, format: &str) {
        let exported = self.folder.path().join(name);
        let words = [
            "compare",
            "-f",
            "raw",
            "-F",
            format,
            self.raw.to_str().unwrap(),
            exported.to_str().unwrap(),
        ];
        let _out = tools::run("qemu-img", &words);
    }
}

#[test]
fn exported_files_hold_the_disk_of_the_snapshot() {
    for kind in [FsKind::Xfs, FsKind::Ext4] {
        let cut = cut(kind);
        let _said = cut.export("disk.qcow2", &[]).ok();
        let _said = cut.export("disk.raw", &["--format", "raw"]).ok();
        cut.compare("disk.qcow2", "qcow2");
        cut.compare("disk.raw", "raw");
        let size = |name: &str| cut.folder.path().join(name).metadata().unwrap().len();
        assert_eq!(size("disk.raw"), 64 * MIB);
        assert!(size("disk.qcow2") < 5 * MIB, "{}", size("disk.qcow2"));
        let path = cut.folder.path().join("disk.qcow2");
        let _accepted = tools::run(
            binaries::shipped(),
            &["image", "check", path.to_str().unwrap()],
        );
    }
}

#[test]
fn export_replaces_nothing_and_leaves_nothing_when_it_fails() {
    let cut = cut(FsKind::Xfs);
    let _said = cut.export("disk", &[]).ok();
    let before = std::fs::read(cut.folder.path().join("disk")).unwrap();
    let again = cut.export("disk", &["--format", "raw"]);
    assert!(
        again.code == Some(2) && again.err.contains("is there already"),
        "{again}"
    );
    assert_eq!(
        std::fs::read(cut.folder.path().join("disk")).unwrap(),
        before
    );

    let record = cut
        .fixture
        .pool()
        .join("snapshots")
        .join(&cut.id)
        .join("image.qcow2");
    let image = File::options().write(true).open(&record).unwrap();
    let mut byte = [0];
    File::open(&record)
        .unwrap()
        .read_exact_at(&mut byte, 65_536 * 4 + 7)
        .unwrap();
    image.write_all_at(&[byte[0] ^ 1], 65_536 * 4 + 7).unwrap();
    let damaged = cut.export("other", &[]);
    assert!(
        damaged.code == Some(2) && damaged.err.contains("is not what was recorded"),
        "{damaged}"
    );
    assert_eq!(cut.names(), ["disk", "raw"]);
    image.write_all_at(&byte, 65_536 * 4 + 7).unwrap();
    let unknown = cut.fixture.vdctl(&[
        "snapshot",
        "export",
        "snap-00000000000000000000000000000000",
        "/tmp/x",
    ]);
    assert_eq!(unknown.code, Some(2), "{unknown}");
}

#[test]
fn a_snapshot_that_is_marked_as_damaged_is_exported_only_to_whom_asks_for_what_is_left_of_it() {
    let cut = cut(FsKind::Xfs);
    let source = cut.fixture.csi.volume_ids().remove(0);
    let request = integrity::digested("digested", &source);
    let id = cut.fixture.csi.made_snapshot(request).snapshot_id;
    let _digest = integrity::wait_for_digest(&cut.fixture.pool(), &id);
    let data = integrity::record(&cut.fixture.pool(), &id).data_offset;
    let damaged = data + (5 << 20);
    integrity::flip(&cut.fixture.snapshot_file(&id), damaged);
    let socket = format!("unix://{}", cut.fixture.server.setup().socket.display());
    let verify = ["snapshot", "verify", &id, "--agent", &socket];
    assert_eq!(cut.fixture.vdctl(&verify).code, Some(1));
    let export = |name: &str, more: &[&str]| {
        let out = cut.folder.path().join(name);
        let words = ["snapshot", "export", &id, out.to_str().unwrap()];
        cut.fixture.vdctl(&[&words[..], more].concat())
    };
    for more in [&[][..], &["--compress"], &["--format", "raw"]] {
        let refused = export("refused", more);
        assert!(
            refused.code == Some(2) && refused.err.contains("marked as damaged"),
            "{refused}"
        );
    }
    assert_eq!(cut.names(), ["raw"]);
    let _said = export("left", &["--format", "raw", "--damaged"]).ok();
    let (left, mut whole) = (
        std::fs::read(cut.folder.path().join("left")).unwrap(),
        std::fs::read(&cut.raw).unwrap(),
    );
    assert!(left != whole);
    let at = usize::try_from(damaged - data).unwrap();
    whole[at] = left[at];
    assert!(left == whole, "nothing but the damaged byte differs");
    integrity::flip(&cut.fixture.snapshot_file(&id), damaged);
    assert_eq!(cut.fixture.vdctl(&verify).code, Some(0));
    let _said = export("sound", &[]).ok();
}

/// Exports under strace, which does `what` to the call number `when` of `call`: whether the call was reached, and how it ended.
fn export_with(
    cut: &Cut,
    more: &[&str],
    call: &str,
    when: usize,
    what: &str,
) -> (bool, tools::Ran) {
    let out = cut.folder.path().join("disk");
    let trace = cut.fixture.fs.folder().join("trace");
    let (pool, vdctl) = (cut.fixture.pool(), binaries::shipped());
    let traced = format!("trace={call}");
    let inject = format!("inject={call}:{what}:when={when}");
    let words = [
        "-f",
        "-o",
        trace.to_str().unwrap(),
        "-e",
        &traced,
        "-e",
        &inject,
        vdctl.to_str().unwrap(),
        "snapshot",
        "export",
        &cut.id,
        out.to_str().unwrap(),
        "--pool",
        pool.to_str().unwrap(),
    ];
    let ran = tools::attempt("strace", &[&words[..], more].concat());
    let said = std::fs::read_to_string(&trace).unwrap();
    std::fs::remove_file(&trace).unwrap();
    let reached = said.contains("INJECTED") || said.contains("killed by SIGKILL");
    (reached, ran)
}

#[test]
fn an_export_that_is_killed_or_fails_at_any_call_leaves_nothing_or_the_whole_disk() {
    let cut = cut(FsKind::Ext4);
    let forms = [
        (&[][..], "qcow2"),
        (&["--compress"], "qcow2"),
        (&["--format", "raw"], "raw"),
    ];
    // The first writes of data, of tables, and of the header; making it durable; giving it its name; making that durable.
    let calls = [
        ("pwrite64", 1),
        ("pwrite64", 2),
        ("pwrite64", 5),
        ("fsync", 1),
        ("linkat", 1),
        ("fsync", 2),
    ];
    let mut reached = 0;
    for (more, format) in forms {
        for (call, when) in calls {
            for what in ["signal=SIGKILL", "error=EIO", "error=ENOSPC"] {
                let (met, ran) = export_with(&cut, more, call, when, what);
                let case = format!("{more:?} {call} {when} {what}: {ran}");
                reached += usize::from(met);
                assert_ne!(met, ran.code == Some(0), "{case}");
                if cut.names() == ["disk", "raw"] {
                    let named = call == "linkat" && what == "signal=SIGKILL";
                    assert!(!met || named || (call, when) == ("fsync", 2), "{case}");
                    cut.compare("disk", format);
                    std::fs::remove_file(cut.folder.path().join("disk")).unwrap();
                }
                assert_eq!(cut.names(), ["raw"], "{case}");
            }
        }
    }
    // A raw file is written in fewer calls.
    assert!(reached >= 40, "only {reached} of 54 were reached");
}

#[test]
fn a_compressed_export_is_the_same_file_before_and_after_the_snapshot_is_compressed() {
    let cut = cut(FsKind::Xfs);
    let fixture = &cut.fixture;
    let source = fixture.csi.volume_ids().remove(0);
    let request = tests::requests::compressed_snapshot("small", &source);
    let small = fixture.csi.made_snapshot(request).snapshot_id;
    let _took = tests::packing::wait(&fixture.pool(), &small);
    let _said = cut.export("of-plain.qcow2", &["--compress"]).ok();
    let path = |name: &str| cut.folder.path().join(name);
    for (name, more) in [
        ("of-small.qcow2", &["--compress"][..]),
        ("plain.qcow2", &[]),
        ("small.raw", &["--format", "raw"]),
    ] {
        let out = path(name);
        let words = ["snapshot", "export", &small, out.to_str().unwrap()];
        let _said = fixture.vdctl(&[&words[..], more].concat()).ok();
    }
    let bytes = |name: &str| std::fs::read(path(name)).unwrap();
    assert!(bytes("of-plain.qcow2") == bytes("of-small.qcow2"));
    assert!(bytes("of-small.qcow2") == std::fs::read(fixture.snapshot_file(&small)).unwrap());
    for name in ["of-plain.qcow2", "plain.qcow2"] {
        cut.compare(name, "qcow2");
    }
    cut.compare("small.raw", "raw");
    let refused = cut.export("x", &["--compress", "--format", "raw"]);
    assert_eq!(refused.code, Some(2), "{refused}");
}

#[test]
fn an_export_stopped_by_ctrl_c_leaves_nothing_and_can_be_run_again() {
    let cut = cut(FsKind::Ext4);
    let out = cut.folder.path().join("disk");
    let pool = cut.fixture.pool();
    for more in [&["--compress"][..], &["--format", "raw"], &[]] {
        let vdctl = binaries::shipped();
        let trace = ["-f", "-o", "/dev/null", "-e", "trace=fsync"];
        // The signal of Ctrl-C, where everything is written and nothing is named.
        let inject = ["-e", "inject=fsync:signal=SIGINT"];
        let command = [
            vdctl.to_str().unwrap(),
            "snapshot",
            "export",
            &cut.id,
            out.to_str().unwrap(),
            "--pool",
            pool.to_str().unwrap(),
        ];
        let words = [&trace[..], &inject, &command, more].concat();
        let ran = tools::attempt("strace", &words);
        assert_ne!(ran.code, Some(0), "{ran}");
        assert_eq!(cut.names(), ["raw"]);
    }
    let _said = cut.export("disk", &["--compress"]).ok();
    cut.compare("disk", "qcow2");
}
