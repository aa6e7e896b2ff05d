//! Which number a loop device has.
//!
//! A container knows a device by its number, and keeps that when the volume is taken away from under it: kubelet does so when it
//! starts while the API server does not answer it. Where the kernel chooses the number, the lowest free one, the same container
//! then reads and writes the volume that is attached next. So a volume has a number of its own, the same each time: until it is
//! attached again the container gets errors, and afterwards its own data.
//!
//! A container that opens such a device makes the kernel add it again, unbound, and kubelet asks the kernel for a free device for each
//! Block volume that a pod uses, to lay it over that. So there are always lower ones for it to give ([`keep_spare`]).

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::thread;
use std::time::{Duration, Instant};

use super::node;
use crate::error::{Context, Error, Result};
use crate::sys;

/// Numbers below are left to the kernel and to whoever asks it for a free device.
const FIRST: u32 = 4096;
/// Minor numbers of one driver, of which a device takes as many as it may have partitions (`MINORBITS` of the kernel).
const MINORS: u32 = 1 << 20;
/// How many unbound devices there are below for others to take.
const SPARE: u32 = 8;
/// How long somebody who looks at all devices may have one open.
const PASSING: Duration = Duration::from_millis(100);

/// The numbers that devices of ours have on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    end: u32,
}

impl Range {
    /// With the kernel's `max_part` as it is shown: one less than a power of two.
    fn with(max_part: u32) -> Self {
        let end = MINORS / max_part.saturating_add(1).next_power_of_two();
        Self {
            first: FIRST.min(end / 4),
            end,
        }
    }

    fn present() -> Self {
        let shown = fs::read_to_string("/sys/module/loop/parameters/max_part");
        let shown = shown.ok().and_then(|text| text.trim().parse().ok());
        Self::with(shown.unwrap_or(0))
    }

    /// All of them, that of `name` first.
    fn starting_at(self, name: &str, read_only: bool) -> impl Iterator<Item = u32> {
        let mut hash = blake3::Hasher::new();
        hash.update(name.as_bytes());
        hash.update(&[0, u8::from(read_only)]);
        let hash = hash.finalize();
        let [a, b, c, d, ..] = *hash.as_bytes();
        let (count, start) = (self.end - self.first, u32::from_le_bytes([a, b, c, d]));
        (0..count).map(move |place| self.first + (start % count + place) % count)
    }
}

/// The numbers that the device of volume `name` may have, the one that it should have first.
pub(super) fn of(name: &str, read_only: bool) -> impl Iterator<Item = u32> {
    Range::present().starting_at(name, read_only)
}

pub(super) fn control() -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options
        .open("/dev/loop-control")
        .during("open /dev/loop-control")
}

/// Makes the device with this number; one that is there already may be somebody's.
pub(super) fn add(control: &File, number: u32) -> Result<()> {
    match sys::loop_add(control, number) {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => {
            Err(error).context_with(|| format!("make {}", node::path(number).display()))
        }
        _there => Ok(()),
    }
}

/// Makes sure that whoever asks the kernel for a free device, which gives the lowest, gets none of a volume's. Each publish asks for
/// that, and kubelet takes one after each.
pub(super) fn keep_spare(control: &File) -> Result<()> {
    let mut spare = 0;
    for number in 0..Range::present().first {
        if node::is_bound(number) {
            continue;
        }
        add(control, number)?;
        spare += 1;
        if spare == SPARE {
            break;
        }
    }
    Ok(())
}

/// Takes an unbound device of ours out of the kernel, so that nobody who asks for a free one gets its number. One that is bound
/// or stays open is left.
pub(super) fn remove(number: u32) -> Result<()> {
    if number < Range::present().first {
        return Ok(());
    }
    let rdev = node::rdev(number)?;
    let control = control()?;
    let end = Instant::now() + PASSING;
    loop {
        match sys::loop_remove(&control, number) {
            Ok(()) => break,
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => break,
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                if node::is_bound(number) || Instant::now() >= end {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(Error::io(format!("remove loop device {number}"), error)),
        }
    }
    remove_node(number, rdev)
}

/// The kernel removes the nodes that it has made, and not those that we made in a container's own `/dev`.
fn remove_node(number: u32, rdev: Option<u64>) -> Result<()> {
    let path = node::path(number);
    let Ok(found) = fs::symlink_metadata(&path) else {
        return Ok(());
    };
    if !found.file_type().is_block_device() || Some(found.rdev()) != rdev {
        return Ok(());
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context_with(|| format!("remove {}", path.display()))
        }
        _gone => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_volume_has_the_same_number_each_time_and_another_one_for_readers() {
        let range = Range::with(0);
        let first = |name, read_only| range.starting_at(name, read_only).next().unwrap();
        assert_eq!(first("pvc-1", false), first("pvc-1", false));
        assert_ne!(first("pvc-1", false), first("pvc-1", true));
        assert_ne!(first("pvc-1", false), first("pvc-2", false));
        // What another version of this program chose is found again after an update.
        assert_eq!(first("pvc-1", false), 660_425);
    }

    #[test]
    fn every_number_of_ours_comes_once_and_none_of_the_kernel_s() {
        for max_part in [0, 15, 255] {
            let range = Range::with(max_part);
            let all: HashSet<u32> = range.starting_at("pvc-1", false).collect();
            assert_eq!(all.len(), (range.end - range.first) as usize);
            assert!(
                all.iter()
                    .all(|number| (range.first..range.end).contains(number))
            );
        }
    }

    #[test]
    fn a_device_with_partitions_takes_more_of_the_minor_numbers() {
        let range = |first, end| Range { first, end };
        assert_eq!(Range::with(0), range(4096, 1 << 20));
        assert_eq!(Range::with(15), range(4096, 1 << 16));
        assert_eq!(Range::with(255), range(1024, 1 << 12));
    }
}
