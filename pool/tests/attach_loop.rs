//! Loop devices on real images.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking and reports by printing"
)]

mod attach;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::thread;

use attach::{MIB, Scratch, attach_image, name_of};
use pool::ErrorKind;
use pool::attach::loop_device::{self, ImageKey, Usage, all_backed_by_device, detach, find};
use pool::attach::mount::{bind_device, unmount_top};
use pool::record::FsType;

#[test]
fn attaching_twice_gives_the_same_device_with_direct_io() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", 8 * MIB);
    let first = attach_image(&image, false).unwrap();
    let second = attach_image(&image, false).unwrap();
    assert!(first.fresh && !second.fresh);
    assert_eq!(first.device, second.device);
    assert!(first.device.direct_io && !first.device.read_only && !first.device.autoclear);
    assert_eq!(first.device.bytes().unwrap(), 8 * MIB);
    let sector = format!(
        "/sys/block/loop{}/queue/logical_block_size",
        first.device.number
    );
    assert_eq!(fs::read_to_string(sector).unwrap().trim(), "512");
}

#[test]
fn bytes_written_to_the_device_are_in_the_image() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", MIB);
    let device = attach_image(&image, false).unwrap().device;
    let disk = OpenOptions::new().write(true).open(device.path()).unwrap();
    disk.write_all_at(b"hello", 4096).unwrap();
    disk.sync_all().unwrap();
    drop(disk);
    let mut seen = [0; 5];
    image.read_exact_at(&mut seen, 4096).unwrap();
    assert_eq!(&seen, b"hello");
    detach(&device).unwrap();
    assert!(find(ImageKey::of(&image).unwrap()).unwrap().is_empty());
}

#[test]
fn a_read_only_device_stands_beside_the_writable_one() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", MIB);
    let writable = attach_image(&image, false).unwrap().device;
    let read_only = attach_image(&image, true).unwrap().device;
    assert_ne!(writable.number, read_only.number);
    assert!(read_only.read_only);
    let disk = OpenOptions::new().write(true).open(read_only.path());
    let error = disk.and_then(|disk| disk.write_at(b"x", 0)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    assert_eq!(find(ImageKey::of(&image).unwrap()).unwrap().len(), 2);
}

#[test]
fn a_file_that_is_open_for_reading_only_is_never_bound_for_writing() {
    let scratch = Scratch::new();
    drop(scratch.image("a.img", MIB));
    let image = File::open(scratch.path().join("a.img")).unwrap();
    assert!(attach_image(&image, false).is_err());
    assert!(find(ImageKey::of(&image).unwrap()).unwrap().is_empty());
}

#[test]
fn eight_threads_bind_one_image_once() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", MIB);
    for _round in 0..10 {
        let attached: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| attach_image(&image, false).unwrap()))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(attached.iter().filter(|one| one.fresh).count(), 1);
        assert!(attached.iter().all(|one| one.device == attached[0].device));
        assert_eq!(find(ImageKey::of(&image).unwrap()).unwrap().len(), 1);
        detach(&attached[0].device).unwrap();
    }
}

#[test]
fn eight_threads_bind_eight_images_each_to_its_own_device() {
    let scratch = Scratch::new();
    let images: Vec<_> = (0..8)
        .map(|n| scratch.image(&format!("{n}.img"), MIB))
        .collect();
    thread::scope(|scope| {
        for image in &images {
            scope.spawn(|| {
                let device = attach_image(image, false).unwrap().device;
                assert_eq!(device.image, ImageKey::of(image).unwrap());
            });
        }
    });
}

#[test]
fn the_device_grows_with_the_image_and_never_shrinks() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", 4 * MIB);
    let device = attach_image(&image, false).unwrap().device;
    image.set_len(16 * MIB).unwrap();
    assert_eq!(device.bytes().unwrap(), 4 * MIB);
    assert_eq!(
        loop_device::set_capacity(&device, &image).unwrap(),
        16 * MIB
    );
    image.set_len(32 * MIB).unwrap();
    attach_image(&image, false).unwrap();
    assert_eq!(device.bytes().unwrap(), 32 * MIB);
    image.set_len(MIB).unwrap();
    assert_eq!(
        loop_device::set_capacity(&device, &image).unwrap(),
        32 * MIB
    );
}

#[test]
fn the_device_of_an_unlinked_image_is_found_and_one_of_a_new_file_of_that_name_is_not() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", MIB);
    let device = attach_image(&image, false).unwrap().device;
    fs::remove_file(scratch.path().join("a.img")).unwrap();
    let other = scratch.image("a.img", MIB);
    assert!(find(ImageKey::of(&other).unwrap()).unwrap().is_empty());
    let key = ImageKey::of(&image).unwrap();
    drop(image);
    assert_eq!(find(key).unwrap(), [device]);
    assert!(all_backed_by_device(key.device).unwrap().contains(&device));
    detach(&device).unwrap();
    assert!(find(key).unwrap().is_empty());
}

#[test]
fn detaching_what_is_gone_or_reused_changes_nothing() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", MIB);
    let device = attach_image(&image, false).unwrap().device;
    detach(&device).unwrap();
    detach(&device).unwrap();
    let other = scratch.image("b.img", MIB);
    let taken = attach_image(&other, false).unwrap().device;
    // As if the kernel had given the number to another image.
    let stale = loop_device::LoopDevice {
        number: taken.number,
        rdev: taken.rdev,
        ..device
    };
    detach(&stale).unwrap();
    assert_eq!(find(taken.image).unwrap(), [taken]);
}

#[test]
fn a_mounted_device_is_not_released() {
    let scratch = Scratch::new();
    let image = scratch.formatted("a.img", FsType::Ext4, 16 * MIB);
    let (device, target) = scratch.mounted(&image, FsType::Ext4, "m");
    let error = detach(&device).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.to_string().contains("mounted at"), "{error}");
    assert!(!find(device.image).unwrap()[0].autoclear);
    unmount_top(&target).unwrap();
    detach(&device).unwrap();
}

#[test]
fn a_published_device_is_not_released() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", MIB);
    let device = attach_image(&image, false).unwrap().device;
    let target = scratch.target("t");
    target.make_file().unwrap();
    bind_device(&device, &target).unwrap();
    assert!(matches!(
        loop_device::usage(&device).unwrap(),
        Usage::Published(_)
    ));
    assert_eq!(detach(&device).unwrap_err().kind(), ErrorKind::InUse);
    unmount_top(&target).unwrap();
    detach(&device).unwrap();
}

#[test]
fn a_device_under_kubelets_lock_is_not_released() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", MIB);
    let device = attach_image(&image, false).unwrap().device;
    // kubelet holds a published device by a loop device over it.
    let node = OpenOptions::new()
        .read(true)
        .write(true)
        .open(device.path())
        .unwrap();
    scratch.watch(&node);
    let lock = attach_image(&node, false).unwrap().device;
    assert_eq!(lock.backing_rdev, device.rdev);
    drop(node);
    let usage = loop_device::usage(&device).unwrap();
    let refused = detach(&device);
    detach(&lock).unwrap();
    assert!(matches!(usage, Usage::Held(_)), "{usage:?}");
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InUse);
    detach(&device).unwrap();
}

#[test]
fn a_claimed_device_is_not_released() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", MIB);
    let device = attach_image(&image, false).unwrap().device;
    let claim = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_EXCL)
        .open(device.path())
        .unwrap();
    let error = detach(&device).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.to_string().contains("claimed"), "{error}");
    drop(claim);
    detach(&device).unwrap();
}

#[test]
fn a_device_that_is_going_away_is_kept_when_it_is_needed_again() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", MIB);
    let device = attach_image(&image, false).unwrap().device;
    let user = File::open(device.path()).unwrap();
    assert_eq!(detach(&device).unwrap_err().kind(), ErrorKind::InUse);
    assert!(find(device.image).unwrap()[0].autoclear);
    let again = attach_image(&image, false).unwrap();
    assert!(!again.fresh);
    drop(user);
    assert_eq!(find(device.image).unwrap(), [again.device]);
    assert!(!again.device.autoclear);
}

#[test]
fn a_released_number_is_not_there_for_others_to_take() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", MIB);
    let name = name_of(ImageKey::of(&image).unwrap());
    let attach = || loop_device::attach(&image, &name, false).unwrap().device;
    let device = attach();
    detach(&device).unwrap();
    assert!(!is_known(device.number));
    assert_eq!(attach().number, device.number);
    // Open when it was detached: it went away later, and nobody came by.
    let user = File::open(device.path()).unwrap();
    assert_eq!(detach(&device).unwrap_err().kind(), ErrorKind::InUse);
    drop(user);
    loop_device::remove_unused(&name).unwrap();
    assert!(!is_known(device.number));
    assert!(!device.path().exists());
}

#[test]
fn who_asks_the_kernel_for_a_free_device_never_gets_one_of_a_volume() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", MIB);
    let attach = || attach_image(&image, false).unwrap().device;
    let device = attach();
    detach(&device).unwrap();
    // As by a container that opens what was taken away from it, and on a node where all devices of the kernel's are in use.
    let control = File::open("/dev/loop-control").unwrap();
    pool::sys::loop_add(&control, device.number).unwrap();
    let published = scratch.image("published.img", MIB);
    let is_free = |number: &u32| {
        is_known(*number) && !Path::new(&format!("/sys/block/loop{number}/loop")).exists()
    };
    let more_than_free = (0..4096).filter(is_free).count() + 4;
    let taken: Vec<u32> = (0..more_than_free)
        .map(|place| {
            attach_image(&published, false).unwrap();
            let name = format!("{place}.img");
            let other = scratch.image(&name, MIB);
            losetup(&["-f", scratch.path().join(name).to_str().unwrap()]);
            find(ImageKey::of(&other).unwrap()).unwrap()[0].number
        })
        .collect();
    assert!(taken.iter().all(|number| *number < 4096), "{taken:?}");
    assert_eq!(attach().number, device.number);
}

#[test]
fn a_device_in_use_is_not_taken_out_of_the_kernel_by_its_name() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", MIB);
    let name = name_of(ImageKey::of(&image).unwrap());
    let device = loop_device::attach(&image, &name, false).unwrap().device;
    loop_device::remove_unused(&name).unwrap();
    assert_eq!(find(device.image).unwrap(), [device]);
}

#[test]
fn a_device_whose_number_the_kernel_chose_is_used_and_left_to_the_kernel() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", MIB);
    losetup(&["-f", scratch.path().join("a.img").to_str().unwrap()]);
    let attached = attach_image(&image, false).unwrap();
    assert!(!attached.fresh);
    detach(&attached.device).unwrap();
    assert!(find(attached.device.image).unwrap().is_empty());
    assert!(is_known(attached.device.number));
}

fn is_known(number: u32) -> bool {
    Path::new(&format!("/sys/block/loop{number}")).exists()
}

#[test]
fn a_volume_whose_number_is_taken_gets_another() {
    let scratch = Scratch::new();
    let (first, second) = (scratch.image("a.img", MIB), scratch.image("b.img", MIB));
    let name = name_of(ImageKey::of(&first).unwrap());
    let attach = |image| loop_device::attach(image, &name, false).unwrap().device;
    assert_ne!(attach(&first).number, attach(&second).number);
}

#[test]
fn a_foreign_device_over_a_part_of_the_image_is_refused() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", MIB);
    let path = scratch.path().join("a.img");
    losetup(&["-f", "-o", "4096", path.to_str().unwrap()]);
    let error = attach_image(&image, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.to_string().contains("losetup -d"), "{error}");
}

#[test]
fn a_missing_node_is_made_again() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", MIB);
    let device = attach_image(&image, false).unwrap().device;
    fs::remove_file(device.path()).unwrap();
    assert_eq!(device.bytes().unwrap(), MIB);
    assert!(device.path().exists());
}

/// As on a machine where the disk below another program's loop device died.
#[test]
fn a_loop_device_that_cannot_answer_does_not_hide_the_others() {
    let scratch = Scratch::new();
    let dying = scratch.formatted("dying.img", FsType::Xfs, 300 * MIB);
    let (_device, target) = scratch.mounted(&dying, FsType::Xfs, "m");
    let inner = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(target.path().join("inner.img"))
        .unwrap();
    inner.set_len(MIB).unwrap();
    let broken = attach_image(&inner, false).unwrap().device;
    let root = target.open_folder().unwrap();
    pool::sys::shutdown_xfs(&root).unwrap();
    drop((root, inner));
    let image = scratch.image("a.img", MIB);
    let attached = attach_image(&image, false);
    let found = find(ImageKey::of(&image).unwrap());
    let node = OpenOptions::new().read(true).open(broken.path()).unwrap();
    pool::sys::loop_clear(&node).unwrap();
    drop(node);
    loop_device::remove_unused(&name_of(broken.image)).unwrap();
    assert_eq!(found.unwrap(), [attached.unwrap().device]);
}

/// losetup itself loses against others that take or release devices at the same moment.
fn losetup(arguments: &[&str]) {
    for _attempt in 0..100 {
        let output = Command::new("losetup").args(arguments).output().unwrap();
        if output.status.success() {
            return;
        }
    }
    panic!("losetup never got a device");
}
