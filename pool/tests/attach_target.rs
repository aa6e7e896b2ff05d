//! Staging and target paths: what is mounted there, and what a hostile neighbour plants there.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod attach;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use attach::{MIB, Scratch, attach_image, write_file};
use pool::ErrorKind;
use pool::attach::mount::{bind_device, bind_folder, mount_filesystem, unmount_top};
use pool::attach::mount_options::MountOptions;
use pool::attach::target::{Content, Found, TargetBase};
use pool::record::FsType;

#[test]
fn what_lies_at_a_target_is_told_apart() {
    let scratch = Scratch::new();
    let at = |name: &str| scratch.path().join(name);
    fs::create_dir(at("empty")).unwrap();
    fs::create_dir_all(at("full/x")).unwrap();
    write_file(&at("file"), b"x");
    write_file(&at("void"), b"");
    symlink("/etc", at("link")).unwrap();
    symlink("nowhere", at("broken")).unwrap();
    let table = [
        ("nothing", Found::Nothing),
        ("empty", Found::Folder { empty: true }),
        ("full", Found::Folder { empty: false }),
        ("file", Found::File { empty: false }),
        ("void", Found::File { empty: true }),
        ("link", Found::Other(Content::Link)),
        ("broken", Found::Other(Content::Link)),
    ];
    for (name, expected) in table {
        assert_eq!(scratch.target(name).inspect().unwrap(), expected, "{name}");
    }
}

#[test]
fn leftovers_that_are_empty_are_used_and_anything_else_is_left_alone() {
    let scratch = Scratch::new();
    let at = |name: &str| scratch.path().join(name);
    let folder = scratch.target("folder");
    assert!(folder.make_folder().unwrap());
    assert!(!folder.make_folder().unwrap());
    let file = scratch.target("file");
    assert!(file.make_file().unwrap());
    assert!(!file.make_file().unwrap());
    assert!(folder.make_file().unwrap());
    fs::create_dir_all(at("full/x")).unwrap();
    write_file(&at("written"), b"x");
    symlink("/etc", at("link")).unwrap();
    for name in ["full", "written", "link"] {
        let target = scratch.target(name);
        assert_eq!(target.make_file().unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(
            target.make_folder().unwrap_err().kind(),
            ErrorKind::Conflict
        );
        assert!(!target.remove().unwrap());
        assert!(at(name).symlink_metadata().is_ok());
    }
    for name in ["folder", "file", "nothing"] {
        assert!(scratch.target(name).remove().unwrap());
    }
}

#[test]
fn a_missing_parent_is_no_target() {
    let path = "/var/tmp/there-is-no-such-folder/target";
    assert!(TargetBase::anywhere().open(path).unwrap().is_none());
}

#[test]
fn a_path_outside_kubelets_folder_or_through_a_link_in_it_is_refused() {
    let scratch = Scratch::new();
    let real = scratch.path().join("real");
    fs::create_dir_all(real.join("pods/a")).unwrap();
    symlink("/etc", real.join("pods/link")).unwrap();
    symlink(&real, scratch.path().join("kubelet")).unwrap();
    let dir = scratch.path().join("kubelet");
    let base = TargetBase::kubelet(dir.clone());
    let open = |path: &Path| base.open(path.to_str().unwrap());
    // The base itself may be a link.
    assert!(open(&dir.join("pods/a/mount")).unwrap().is_some());
    assert!(open(&dir.join("mount")).unwrap().is_some());
    assert!(open(&dir.join("pods/b/mount")).unwrap().is_none());
    for path in [
        dir.join("pods/link/mount"),
        real.join("pods/a/mount"),
        "/etc/mount".into(),
        dir.join("pods/../../etc"),
        dir.clone(),
        dir.join("pods/a").join("x".repeat(300)).join("y"),
    ] {
        assert_eq!(
            open(&path).unwrap_err().kind(),
            ErrorKind::InvalidInput,
            "{path:?}"
        );
    }
}

#[test]
fn a_mount_is_seen_with_its_stack_also_through_a_link_to_its_parent() {
    let scratch = Scratch::new();
    let image = scratch.formatted("a.img", FsType::Ext4, 16 * MIB);
    let (device, target) = scratch.mounted(&image, FsType::Ext4, "m");
    bind_folder(&target, &target, &none()).unwrap();
    symlink(scratch.path(), scratch.path().join("link")).unwrap();
    let seen = scratch.target("link/m").inspect().unwrap();
    let Found::Mounted(mounts) = seen else {
        panic!("{seen:?}")
    };
    assert_eq!(mounts.len(), 2);
    assert!(
        mounts
            .iter()
            .all(|mount| mount.device == device.device_number())
    );
    assert_eq!(target.remove().unwrap_err().kind(), ErrorKind::InUse);
}

#[test]
fn a_volume_is_mounted_nosuid_and_nodev_and_bound_read_only_where_asked() {
    let scratch = Scratch::new();
    for fs in [FsType::Ext4, FsType::Xfs] {
        let image = scratch.formatted(fs.as_str(), fs, 300 * MIB);
        let (_device, staged) = scratch.mounted(&image, fs, &format!("m-{fs}"));
        let writable = scratch.folder(&format!("rw-{fs}"));
        let read_only = scratch.folder(&format!("ro-{fs}"));
        bind_folder(&staged, &writable, &none()).unwrap();
        bind_folder(&staged, &read_only, &none().read_only()).unwrap();
        write_file(&writable.path().join("file"), b"x");
        let refused = fs::File::create(read_only.path().join("other")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
        assert_eq!(fs::read(read_only.path().join("file")).unwrap(), b"x");
        for target in [&staged, &writable, &read_only] {
            let found = nix::sys::statvfs::statvfs(target.path()).unwrap().flags();
            let wanted =
                nix::sys::statvfs::FsFlags::ST_NOSUID | nix::sys::statvfs::FsFlags::ST_NODEV;
            assert!(found.contains(wanted), "{found:?}");
        }
    }
}

#[test]
fn a_published_device_is_a_block_device_that_can_be_written() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", MIB);
    let device = attach_image(&image, false).unwrap().device;
    let target = scratch.target("t");
    target.make_file().unwrap();
    bind_device(&device, &target).unwrap();
    let metadata = fs::metadata(target.path()).unwrap();
    assert!(metadata.file_type().is_block_device() && metadata.rdev() == device.rdev);
    let disk = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_EXCL)
        .open(target.path());
    assert!(disk.is_ok());
    drop(disk);
    unmount_top(&target).unwrap();
    assert_eq!(target.inspect().unwrap(), Found::File { empty: true });
}

#[test]
fn a_busy_mount_is_in_use_and_stays() {
    let scratch = Scratch::new();
    let image = scratch.formatted("a.img", FsType::Ext4, 16 * MIB);
    let (_device, target) = scratch.mounted(&image, FsType::Ext4, "m");
    let user = fs::File::create(target.path().join("open")).unwrap();
    assert_eq!(unmount_top(&target).unwrap_err().kind(), ErrorKind::InUse);
    assert!(matches!(target.inspect().unwrap(), Found::Mounted(_)));
    drop(user);
    unmount_top(&target).unwrap();
    assert_eq!(
        unmount_top(&target).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

/// A neighbour swaps the target for a link to a folder it wants us to mount on, unmount or remove.
#[test]
fn a_target_that_is_swapped_for_a_link_never_redirects() {
    let scratch = Scratch::new();
    let image = scratch.formatted("a.img", FsType::Ext4, 16 * MIB);
    let device = attach_image(&image, false).unwrap().device;
    let victim = scratch.path().join("victim");
    fs::create_dir(&victim).unwrap();
    write_file(&victim.join("canary"), b"alive");
    let place = scratch.path().join("t");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                symlink(&victim, &place).ok();
                fs::remove_file(&place).ok();
            }
        });
        for _round in 0..2000 {
            let target = scratch.target("t");
            let mounted = target
                .make_folder()
                .and_then(|_made| mount_filesystem(&device, FsType::Ext4, &none(), &target));
            assert!(victim.join("canary").exists());
            if mounted.is_ok() {
                assert!(matches!(target.inspect().unwrap(), Found::Mounted(_)));
                unmount_top(&target).unwrap();
            }
            target.remove().ok();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read(victim.join("canary")).unwrap(), b"alive");
}

fn none() -> MountOptions {
    MountOptions::default()
}
