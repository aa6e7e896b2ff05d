//! Copies where blocks cannot be shared.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use pool::ErrorKind;
use snapshot_engine::{Cut, Watch, copy_raw, restore};

use crate::content::{assert_same, fill, noise};
use crate::scratch::{Kind, LoopDevice, Scratch};
use crate::snapshot::{How, assert_qemu_agrees, assert_restores, cut, finish, record};

const MIB: u64 = 1 << 20;

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
fn copy_that_is_not_wanted_any_more_ends_before_the_next_look() {
    for looks in [0, 1] {
        let asked = Cell::new(0);
        let error = copy_under(&Watch {
            keep_going: &|| asked.replace(asked.get() + 1) < looks,
            ..Watch::UNWATCHED
        })
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Uncertain);
        // Who is told to stop is not asked once more, as those are who are done.
        assert!(asked.get() <= looks + 2, "{}", asked.get());
    }
}

#[test]
fn copy_that_loses_its_hold_with_the_last_chunk_is_not_a_snapshot() {
    let done = Cell::new(0);
    let error = copy_under(&Watch {
        deadline: None,
        keep_going: &|| done.get() < 21 * MIB,
        progress: &|copied, _total| done.set(copied),
    })
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Uncertain);
    assert_eq!(done.get(), 21 * MIB);
}

#[test]
fn progress_ascends_to_what_has_data() {
    let heard = RefCell::new(Vec::new());
    copy_under(&Watch {
        deadline: None,
        keep_going: &|| true,
        progress: &|copied, total| heard.borrow_mut().push((copied, total)),
    })
    .unwrap();
    let heard = heard.into_inner();
    assert!(heard.is_sorted(), "{heard:?}");
    assert_eq!(heard.last(), Some(&(21 * MIB, 21 * MIB)));
}

#[test]
fn copies_are_exact_whatever_lies_where_and_however_long_it_is() {
    // More short runs than are written out of the page cache at once, and long ones between them.
    let many: Vec<_> = (0..400)
        .map(|n| (n * 1_300_000 / 4096 * 4096, n % 17 * 20_480))
        .chain([(480 * MIB, 3 * MIB), (500 * MIB - 4096, 2 * MIB)])
        .collect();
    let shapes: [&[(u64, u64)]; 5] = [
        &[(0, 30 * MIB)],
        // Over every boundary: of blocks, of chunks, of what is allocated at once.
        &[
            (4096, 3 * MIB),
            (9 * MIB - 1, 2),
            (20 * MIB + 12_288, 5 * MIB),
        ],
        &[(1, 1), (300 * MIB - 4096, MIB), (511 * MIB, MIB)],
        &many,
        &[],
    ];
    for kind in [Kind::Host, Kind::Xfs] {
        for pieces in shapes {
            let scratch = Scratch::new(kind);
            let size = 512 * MIB;
            let source = scratch.file("disk.img", size);
            for (offset, length) in pieces {
                fill(&source, 7, *offset, *length);
            }
            let snapshot = cut(&scratch, "image", &source, How::Copy);
            assert_restores(&scratch, &snapshot, &source);
            let target = scratch.file("copy.img", size + MIB);
            copy_raw(&source, size, &target, &Watch::UNWATCHED).unwrap();
            assert_same((&source, 0), (&target, 0), size);
            // As many blocks as the source, or as it shares.
            let blocks = |file: &File| file.metadata().unwrap().blocks();
            assert!(blocks(&target) <= blocks(&source) + 64, "{pieces:?}");
        }
    }
}

#[test]
fn a_copy_is_whole_when_zeroes_become_data_meanwhile() {
    // As pages that others read of what is allocated and was never written do: the disk stays what it is, its map does not.
    let scratch = Scratch::new(Kind::Host);
    let source = source(&scratch);
    fill(&source, 1, 50 * MIB, MIB / 2);
    let target = scratch.file("copy.img", 64 * MIB);
    let (size, once) = (64 * MIB, Cell::new(Some(())));
    let progress = |copied, _total| {
        if copied >= 21 * MIB && once.take().is_some() {
            let zeroes = vec![0; 2 << 20];
            source.write_all_at(&zeroes, 50 * MIB + MIB / 2).unwrap();
            source.sync_all().unwrap();
        }
    };
    let watch = Watch {
        progress: &progress,
        ..Watch::UNWATCHED
    };
    copy_raw(&source, size, &target, &watch).unwrap();
    assert_same((&source, 0), (&target, 0), size);
}

#[test]
fn copy_to_where_nothing_goes_past_the_page_cache_is_exact_too() {
    let scratch = Scratch::new(Kind::Host);
    let source = source(&scratch);
    let memory = nix::sys::memfd::memfd_create("target", nix::sys::memfd::MFdFlags::empty());
    let target = File::from(memory.unwrap());
    target.set_len(64 * MIB).unwrap();
    copy_raw(&source, 64 * MIB, &target, &Watch::UNWATCHED).unwrap();
    assert_same((&source, 0), (&target, 0), 64 * MIB);
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
    let record = record("image", &finish(cutting, &image));
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
