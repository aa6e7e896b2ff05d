//! Filesystems in images, made, mounted, grown and damaged for real.

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

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use attach::{MIB, Scratch, allocated, attach_image, record, unformatted, write_file};
use pool::ErrorKind;
use pool::attach::filesystem::{Grown, check, ensure_made, grow, grow_before_mount, usage};
use pool::attach::loop_device::{detach, set_capacity};
use pool::attach::mount::{mount_filesystem, unmount_top};
use pool::attach::mount_options::MountOptions;
use pool::record::{Format, FormatState, FsType, Provisioning};

const GIB: u64 = 1024 * MIB;

/// What CDI asks for: a volume of 1.06 times the disk image, rounded up to 1 MiB, holds the image.
#[test]
fn a_volume_with_six_percent_more_holds_the_image() {
    let table = [
        (FsType::Ext4, 256 * MIB),
        (FsType::Ext4, 512 * MIB),
        (FsType::Ext4, GIB),
        (FsType::Ext4, 5 * GIB),
        (FsType::Ext4, 10 * GIB),
        (FsType::Ext4, 100 * GIB),
        (FsType::Xfs, 2 * GIB),
        (FsType::Xfs, 5 * GIB),
        (FsType::Xfs, 10 * GIB),
        (FsType::Xfs, 100 * GIB),
    ];
    let scratch = Scratch::new();
    for (fs, size) in table {
        let name = format!("{fs}-{size}");
        let volume = (size * 106).div_ceil(100).next_multiple_of(MIB);
        let image = scratch.formatted(&format!("{name}.img"), fs, volume);
        let (device, target) = scratch.mounted(&image, fs, &name);
        let found = usage(target.open_folder().unwrap()).unwrap();
        assert!(
            found.available_bytes >= size,
            "{name}: {} of {size} available",
            found.available_bytes
        );
        let inodes = u64::from(found.free_inodes > 1000);
        assert_eq!(inodes, 1, "{name}: {} inodes", found.free_inodes);
        unmount_top(&target).unwrap();
        detach(&device).unwrap();
        println!(
            "{name}: {:.2} % spare, {} KiB allocated",
            (found.available_bytes - size) as f64 * 100.0 / size as f64,
            allocated(&image) / 1024
        );
        drop(image);
        fs::remove_file(scratch.path().join(format!("{name}.img"))).unwrap();
    }
}

#[test]
fn the_smallest_volumes_work() {
    let scratch = Scratch::new();
    for (fs, bytes) in [(FsType::Ext4, 10 * MIB), (FsType::Xfs, 300 * MIB)] {
        let image = scratch.formatted(fs.as_str(), fs, bytes);
        let (_device, target) = scratch.mounted(&image, fs, &format!("m-{fs}"));
        write_file(&target.path().join("file"), &[7; 4 << 20]);
        let found = usage(target.open_folder().unwrap()).unwrap();
        assert!(found.total_inodes >= 100, "{found:?}");
        unmount_top(&target).unwrap();
    }
}

#[test]
fn a_volume_that_is_too_small_for_its_filesystem_is_refused_and_stays_blank() {
    let scratch = Scratch::new();
    let sizes = [1, 7, 8, 9].map(|mib| (FsType::Ext4, mib));
    for (fs, mib) in sizes.into_iter().chain([(FsType::Xfs, 299)]) {
        let image = scratch.image(&format!("{fs}-{mib}"), mib * MIB);
        let record = record(fs, mib * MIB, Provisioning::Thin);
        let state = |state| panic!("{fs} of {mib} MiB became {state:?}");
        let error = ensure_made(&image, &record, unformatted(fs), state).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
        assert!(error.to_string().contains("expand it"), "{error}");
        assert_eq!(allocated(&image), 0);
    }
}

#[test]
fn a_new_filesystem_leaves_the_image_sparse_also_after_it_was_mounted() {
    let scratch = Scratch::new();
    for fs in [FsType::Ext4, FsType::Xfs] {
        let image = scratch.formatted(fs.as_str(), fs, 10 * GIB);
        let made = allocated(&image);
        assert!(made < 8 * MIB, "{fs}: {made}");
        let (_device, target) = scratch.mounted(&image, fs, &format!("m-{fs}"));
        let root = target.open_folder().unwrap();
        nix::unistd::syncfs(&root).unwrap();
        drop(root);
        unmount_top(&target).unwrap();
        let mounted = allocated(&image);
        assert!(mounted < made + 4 * MIB, "{fs}: {made} became {mounted}");
    }
}

#[test]
fn no_kernel_thread_writes_zeroes_into_a_new_ext4() {
    let scratch = Scratch::new();
    scratch.formatted("a.img", FsType::Ext4, 10 * GIB);
    let path = scratch.path().join("a.img");
    let output = std::process::Command::new("dumpe2fs")
        .arg(&path)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let groups = text.lines().filter(|line| line.contains(": (Blocks "));
    let zeroed = text.lines().filter(|line| line.contains("ITABLE_ZEROED"));
    assert_eq!(zeroed.count(), groups.count());
}

#[test]
fn states_are_recorded_around_mkfs_and_a_made_filesystem_is_never_made_again() {
    let scratch = Scratch::new();
    for fs in [FsType::Ext4, FsType::Xfs] {
        let bytes = 512 * MIB;
        let image = scratch.image(fs.as_str(), bytes);
        let record = record(fs, bytes, Provisioning::Thin);
        let states = RefCell::new(Vec::new());
        let note = |state| {
            states.borrow_mut().push((state, allocated(&image) > 0));
            Ok(())
        };
        ensure_made(&image, &record, unformatted(fs), note).unwrap();
        assert_eq!(
            *states.borrow(),
            [
                (FormatState::Formatting, false),
                (FormatState::Formatted, true)
            ]
        );
        let before = checksum(&image);
        for state in [FormatState::Formatted, FormatState::Inherited] {
            ensure_made(&image, &record, Format { fs, state }, |_| {
                panic!("no change")
            })
            .unwrap();
        }
        assert_eq!(checksum(&image), before);
    }
}

#[test]
fn an_inherited_image_of_zeroes_is_not_formatted_and_does_not_mount() {
    let scratch = Scratch::new();
    for fs in [FsType::Ext4, FsType::Xfs] {
        let image = scratch.image(fs.as_str(), 300 * MIB);
        let format = Format {
            fs,
            state: FormatState::Inherited,
        };
        let record = record(fs, 300 * MIB, Provisioning::Thin);
        ensure_made(&image, &record, format, |_| panic!("no change")).unwrap();
        assert_eq!(allocated(&image), 0);
        let device = attach_image(&image, false).unwrap().device;
        let target = scratch.folder(&format!("m-{fs}"));
        let options = MountOptions::default();
        let error = check(&device.path(), fs)
            .and_then(|()| mount_filesystem(&device, fs, &options, &target))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("run by hand"), "{error}");
    }
}

#[test]
fn an_unformatted_image_with_content_is_refused_and_untouched() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", 64 * MIB);
    image.write_all_at(b"precious", 50 * MIB).unwrap();
    let before = checksum(&image);
    let record = record(FsType::Ext4, 64 * MIB, Provisioning::Thin);
    let refused = ensure_made(&image, &record, unformatted(FsType::Ext4), |_| {
        panic!("no change")
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(checksum(&image), before);
}

#[test]
fn an_unformatted_image_that_somebody_attached_is_refused() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", 64 * MIB);
    attach_image(&image, false).unwrap();
    let record = record(FsType::Ext4, 64 * MIB, Provisioning::Thin);
    for state in [FormatState::Unformatted, FormatState::Formatting] {
        let fs = FsType::Ext4;
        let refused = ensure_made(&image, &record, Format { fs, state }, |_| {
            panic!("no change")
        });
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InUse);
    }
}

#[test]
fn an_interrupted_mkfs_starts_from_zeroes_again() {
    let scratch = Scratch::new();
    for provisioning in [Provisioning::Thin, Provisioning::Thick] {
        let image = scratch.image(&provisioning.to_string(), 64 * MIB);
        image.write_all_at(&[0xff; 4096], 40 * MIB).unwrap();
        let format = Format {
            fs: FsType::Ext4,
            state: FormatState::Formatting,
        };
        let record = record(FsType::Ext4, 64 * MIB, provisioning);
        ensure_made(&image, &record, format, |_| Ok(())).unwrap();
        let mut seen = [1; 4096];
        image.read_exact_at(&mut seen, 40 * MIB).unwrap();
        assert!(seen.iter().all(|byte| *byte == 0));
        assert_eq!(image.metadata().unwrap().len(), 64 * MIB);
        let thick = allocated(&image) >= 64 * MIB;
        assert_eq!(thick, provisioning == Provisioning::Thick);
    }
}

#[test]
fn a_thick_volume_is_still_allocated_after_mkfs() {
    let scratch = Scratch::new();
    for fs in [FsType::Ext4, FsType::Xfs] {
        let bytes = 320 * MIB;
        let image = scratch.image(fs.as_str(), bytes);
        let record = record(fs, bytes, Provisioning::Thick);
        ensure_made(&image, &record, unformatted(fs), |_| Ok(())).unwrap();
        assert!(allocated(&image) >= bytes, "{fs}: {}", allocated(&image));
    }
}

#[test]
fn a_failed_record_stops_before_mkfs() {
    let scratch = Scratch::new();
    let image = scratch.image("a.img", 64 * MIB);
    let record = record(FsType::Ext4, 64 * MIB, Provisioning::Thin);
    let failed = ensure_made(&image, &record, unformatted(FsType::Ext4), |_| {
        Err(pool::Error::new(
            ErrorKind::NoSpace,
            "no room for the record",
        ))
    });
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(allocated(&image), 0);
}

/// ext4 grows while it is mounted only in a process with CAP_SYS_RESOURCE, which test machines may lack; it then grows
/// before the next mount.
#[test]
fn a_filesystem_grows_with_its_device() {
    let scratch = Scratch::new();
    for fs in [FsType::Ext4, FsType::Xfs] {
        let image = scratch.formatted(fs.as_str(), fs, 512 * MIB);
        let (device, target) = scratch.mounted(&image, fs, &format!("m-{fs}"));
        write_file(&target.path().join("kept"), b"kept");
        let root = target.open_folder().unwrap();
        assert_eq!(grow(&root, fs, &device).unwrap(), Grown::AlreadyThere);
        image.set_len(2 * GIB).unwrap();
        set_capacity(&device, &image).unwrap();
        let grown = grow(&root, fs, &device);
        drop(root);
        let refused = matches!(&grown, Err(error) if error.kind() == ErrorKind::Precondition);
        if fs == FsType::Ext4 && refused {
            unmount_top(&target).unwrap();
            assert_eq!(grow_before_mount(&device, fs).unwrap(), Grown::Grown);
            assert_eq!(grow_before_mount(&device, fs).unwrap(), Grown::AlreadyThere);
            let options = MountOptions::default();
            mount_filesystem(&device, fs, &options, &target).unwrap();
        } else {
            assert_eq!(grown.unwrap(), Grown::Grown);
        }
        let root = target.open_folder().unwrap();
        assert_eq!(grow(&root, fs, &device).unwrap(), Grown::AlreadyThere);
        let found = usage(&root).unwrap();
        assert!(found.total_bytes > 1800 * MIB, "{fs}: {found:?}");
        assert_eq!(attach::read_file(&target.path().join("kept")), b"kept");
        drop(root);
        unmount_top(&target).unwrap();
        check(&device.path(), fs).unwrap();
    }
}

#[test]
fn a_damaged_filesystem_is_corrupt_and_says_what_to_run() {
    let scratch = Scratch::new();
    for fs in [FsType::Ext4, FsType::Xfs] {
        let image = scratch.formatted(fs.as_str(), fs, 512 * MIB);
        // Both superblocks begin here, and both keep a checksum or a magic number in these bytes.
        image.write_all_at(&[0x5a; 4096], 0).unwrap();
        image.sync_all().unwrap();
        let device = attach_image(&image, false).unwrap().device;
        let target = scratch.folder(&format!("m-{fs}"));
        let options = MountOptions::default();
        let error = check(&device.path(), fs)
            .and_then(|()| mount_filesystem(&device, fs, &options, &target))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}

#[test]
fn an_image_copied_under_a_live_mount_mounts_beside_it_with_all_synced_files() {
    let scratch = Scratch::new();
    for fs in [FsType::Ext4, FsType::Xfs] {
        let image = scratch.formatted(fs.as_str(), fs, 512 * MIB);
        let (_device, target) = scratch.mounted(&image, fs, &format!("m-{fs}"));
        write_file(&target.path().join("synced"), b"synced");
        let root = target.open_folder().unwrap();
        nix::unistd::syncfs(&root).unwrap();
        // As after a power failure: the log is not empty, the UUID is the same.
        let path = scratch.path().join(format!("copy-{fs}"));
        fs::copy(scratch.path().join(fs.as_str()), &path).unwrap();
        let copy = File::options().read(true).write(true).open(&path).unwrap();
        scratch.watch(&copy);
        let device = attach_image(&copy, false).unwrap().device;
        check(&device.path(), fs).unwrap();
        let (_device, second) = scratch.mounted(&copy, fs, &format!("n-{fs}"));
        assert_eq!(attach::read_file(&second.path().join("synced")), b"synced");
    }
}

fn checksum(image: &File) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = vec![0; MIB as usize];
    let mut at = 0;
    loop {
        let read = image.read_at(&mut buffer, at).unwrap();
        if read == 0 {
            return all;
        }
        if buffer[..read].iter().any(|byte| *byte != 0) {
            all.extend(at.to_le_bytes());
            all.extend(&buffer[..read]);
        }
        at += read as u64;
    }
}
