//! The support library itself: what it makes is gone afterwards, and what it is to find, it finds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report"
)]

use std::fs::File;
use std::path::Path;

use tests::scratch_fs::{FsKind, GIB, ScratchFs};
use tests::{loops, mounts, residue};

fn assert_gone(folder: &Path) {
    assert!(!folder.exists(), "{} is left", folder.display());
    assert_eq!(mounts::below(folder), []);
    assert_eq!(loops::below(folder), []);
}

#[test]
fn a_scratch_filesystem_of_each_kind_is_made_and_goes() {
    for kind in FsKind::ALL {
        let fs = ScratchFs::new(kind, GIB);
        let folder = fs.folder().to_owned();
        let mounted = mounts::at(&fs.mount_point());
        assert_eq!(mounted.len(), 1);
        assert_eq!(mounted[0].fs_type, kind.name());
        drop(fs);
        assert_gone(&folder);
    }
}

#[test]
fn a_scratch_filesystem_goes_with_loops_and_mounts_on_it_when_a_test_panics() {
    let (tell, told) = std::sync::mpsc::channel();
    let ended = std::thread::spawn(move || {
        let fs = ScratchFs::new(FsKind::Xfs, GIB);
        tell.send(fs.folder().to_owned()).unwrap();
        let image = fs.mount_point().join("image");
        File::create(&image).unwrap().set_len(1 << 20).unwrap();
        let _device = loops::attach(&image);
        panic!("as a failing test does");
    })
    .join();
    assert!(ended.is_err());
    assert_gone(&told.recv().unwrap());
}

#[test]
fn residue_of_each_kind_is_found() {
    let fs = ScratchFs::new(FsKind::Btrfs, GIB);
    assert_eq!(residue::find(&fs, None), Vec::<String>::new());
    let image = fs.mount_point().join("image");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let device = loops::attach(&image);
    std::fs::create_dir_all(fs.mount_point().join("tmp/half-made")).unwrap();
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .env(tests::server::MARK, fs.folder())
        .spawn()
        .unwrap();
    tests::wait::until(
        "the child has its environment",
        tests::server::PATIENCE,
        || !tests::server::processes_of(fs.folder()).is_empty(),
    );
    let found = residue::find(&fs, None).join("\n");
    for sign in [device.to_str().unwrap(), "half-made", "sleep 60"] {
        assert!(found.contains(sign), "{sign} in {found}");
    }
    assert_eq!(residue::find(&fs, Some(child.id())).len(), 2);
    child.kill().unwrap();
    child.wait().unwrap();
    for one in fs.loops() {
        assert!(one.name == device && loops::detach(&device, one.back_inode));
    }
}

#[test]
fn power_loss_drops_what_was_not_synced() {
    for kind in [FsKind::Xfs, FsKind::Ext4] {
        let fs = ScratchFs::new(kind, GIB);
        let (kept, lost) = (fs.mount_point().join("kept"), fs.mount_point().join("lost"));
        File::create(&kept).unwrap().sync_all().unwrap();
        File::open(fs.mount_point()).unwrap().sync_all().unwrap();
        let _not_synced = File::create(&lost).unwrap();
        fs.shut_down();
        drop(_not_synced);
        fs.unmount();
        fs.mount();
        assert!(kept.exists(), "{kind:?}");
        assert!(!lost.exists(), "{kind:?}");
    }
}
