//! Copies where blocks cannot be shared.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use pool::ErrorKind;
use snapshot_engine::{Cut, Watch, copy_raw, restore};

use crate::content::{assert_same, fill, noise};
use crate::scratch::{Kind, LoopDevice, Scratch};
use crate::snapshot::{How, assert_qemu_agrees, assert_restores, cut, record};

const MIB: u64 = 1 << 20;
const CHUNK: u64 = 8 * MIB;

fn source(scratch: &Scratch) -> File {
    let source = scratch.file("disk.img", 64 * MIB);
    fill(&source, 1, 0, 20 * MIB);
    fill(&source, 1, 40 * MIB, MIB);
    source
}

fn copy_under(watch: &Watch<'_>) -> pool::Result<()> {
    let scratch = Scratch::new(Kind::Host);
    let image = scratch.file("image", 0);
    Cut::prepare(&image, 64 * MIB)
        .unwrap()
        .copy(&source(&scratch), watch)
}

#[test]
fn copy_past_its_deadline_is_refused_and_says_what_to_do() {
    let error = copy_under(&Watch {
        deadline: Some(Instant::now()),
        ..Watch::UNWATCHED
    })
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Precondition);
    assert!(
        error.to_string().contains("Unpublish the volume"),
        "{error}"
    );
}

#[test]
fn copy_within_its_deadline_succeeds() {
    let deadline = Some(Instant::now() + Duration::from_secs(600));
    copy_under(&Watch {
        deadline,
        ..Watch::UNWATCHED
    })
    .unwrap();
}

#[test]
fn copy_that_is_not_wanted_any_more_stops_within_one_chunk() {
    let done = Cell::new(0);
    let error = copy_under(&Watch {
        deadline: None,
        keep_going: &|| done.get() < CHUNK,
        progress: &|copied, _total| done.set(copied),
    })
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Uncertain);
    assert_eq!(done.get(), CHUNK);
}

#[test]
fn copy_that_loses_its_hold_with_the_last_chunk_is_not_a_snapshot() {
    let done = Cell::new(0);
    let error = copy_under(&Watch {
        deadline: None,
        keep_going: &|| done.get() < 41 * MIB,
        progress: &|copied, _total| done.set(copied),
    })
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Uncertain);
    assert_eq!(done.get(), 41 * MIB);
}

#[test]
fn progress_ascends_to_the_size_of_the_disk_in_steps_of_a_chunk() {
    let heard = RefCell::new(Vec::new());
    copy_under(&Watch {
        deadline: None,
        keep_going: &|| true,
        progress: &|copied, total| heard.borrow_mut().push((copied, total)),
    })
    .unwrap();
    let expected = [8, 16, 20, 41, 64].map(|done| (done * MIB, 64 * MIB));
    assert_eq!(heard.into_inner(), expected);
}

#[test]
fn copy_sees_what_a_loop_device_with_direct_io_wrote() {
    let scratch = Scratch::new(Kind::Host);
    let disk = scratch.path("disk.img");
    let source = scratch.file("disk.img", 16 * MIB);
    fill(&source, 1, 0, 8 * MIB);
    let device = LoopDevice::over(&disk);
    let status = pool::sys::loop_status(&File::open(&device.0).unwrap()).unwrap();
    assert!(status.direct_io, "{status:?}");
    // The file's pages are in the cache, and older than what is written past it now: over data, and into the hole.
    let mut old = vec![0; 16 << 20];
    source.read_exact_at(&mut old, 0).unwrap();
    let mut writer = OpenOptions::new()
        .write(true)
        .custom_flags(nix::libc::O_SYNC)
        .open(&device.0)
        .unwrap();
    let new = noise(2, 0, 12 << 20);
    writer.write_all(&new).unwrap();
    writer.sync_all().unwrap();
    let snapshot = cut(&scratch, "image", &source, How::Copy);
    let target = scratch.file("copy.img", 16 * MIB);
    copy_raw(&source, 16 * MIB, &target, &Watch::UNWATCHED).unwrap();
    drop(writer);
    drop(device);

    let expected = scratch.file("expected.img", 16 * MIB);
    expected.write_all_at(&new, 0).unwrap();
    assert_restores(&scratch, &snapshot, &expected);
    assert_same((&expected, 0), (&target, 0), 16 * MIB);
}

#[test]
fn copy_between_two_filesystems_goes_through_memory() {
    let (here, there) = (Scratch::new(Kind::Xfs), Scratch::new(Kind::Host));
    let source = source(&here);
    let image = there.file("image", 0);
    let cutting = Cut::prepare(&image, 64 * MIB).unwrap();
    cutting.copy(&source, &Watch::UNWATCHED).unwrap();
    let record = record("image", &cutting.finish().unwrap());
    assert_qemu_agrees(&there.path("image"), &here.path("disk.img"), 64 * MIB);

    let target = here.file("target.img", 64 * MIB);
    restore(&image, &record, &target, &Watch::UNWATCHED).unwrap();
    assert_same((&source, 0), (&target, 0), 64 * MIB);
}

#[test]
fn full_filesystem_is_no_space() {
    let (here, there) = (Scratch::new(Kind::Host), Scratch::new(Kind::Xfs));
    let source = source(&here);
    let image = there.file("image", 0);
    let cutting = Cut::prepare(&image, 64 * MIB).unwrap();
    let filler = there.file("filler", 0);
    let mut room = 4u64 << 30;
    while room >= MIB {
        let size = i64::try_from(filler.metadata().unwrap().len()).unwrap();
        let mode = nix::fcntl::FallocateFlags::empty();
        match nix::fcntl::fallocate(&filler, mode, size, i64::try_from(room).unwrap()) {
            Ok(()) => {}
            Err(_full) => room /= 2,
        }
    }
    let error = cutting.copy(&source, &Watch::UNWATCHED).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
}
