//! Nodes of loop devices in `/dev`, and what sysfs lists.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, mknod};

use crate::attach::mountinfo::DeviceNumber;
use crate::error::{Context, Error, ErrorKind, Result};

/// The driver number of loop devices.
pub(super) const MAJOR: u64 = 7;

pub(super) fn path(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/loop{number}"))
}

/// A loop device that is bound to something, by its number N and the number of its node (`st_rdev`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) number: u32,
    pub(super) rdev: u64,
}

/// All loop devices that are bound to something, lowest number first. The kernel lists the disks that have a size, which is
/// one short text also where a hundred unbound devices lie in sysfs; every snapshot and every call of kubelet asks for it.
///
/// It gives that text a page at a time, and counts disks to find where the next page begins: one that goes away in between hides
/// another. So where there is more than a page, sysfs is asked for what is not listed.
pub(super) fn bound() -> Result<Vec<Node>> {
    let (text, pages) = read_pages("/proc/partitions")?;
    let mut found = parse_partitions(&text);
    if pages > 1 {
        let hidden = unlisted(&found)?;
        found.extend(hidden);
        found.sort_unstable_by_key(|node| node.number);
    }
    Ok(found)
}

/// The text of a file in `/proc`, and in how many pieces the kernel gave it.
fn read_pages(path: &str) -> Result<(String, usize)> {
    let mut file = File::open(path).context_with(|| format!("open {path}"))?;
    let mut bytes = Vec::new();
    let mut pages = 0;
    // More than a page of any machine.
    let mut room = vec![0; 1 << 17];
    loop {
        let read = file
            .read(&mut room)
            .context_with(|| format!("read {path}"))?;
        if read == 0 {
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), pages));
        }
        bytes.extend_from_slice(&room[..read]);
        pages += 1;
    }
}

/// The bound devices in sysfs that are not in `listed`, which is sorted.
fn unlisted(listed: &[Node]) -> Result<Vec<Node>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block").during("list /sys/block")? {
        let name = entry.during("list /sys/block")?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("loop"));
        let Some(number) = number.and_then(|number| number.parse().ok()) else {
            continue;
        };
        let is_listed = listed.binary_search_by_key(&number, |node| node.number);
        if is_listed.is_ok() || !is_bound(number) {
            continue;
        }
        if let Some(rdev) = rdev(number)? {
            found.push(Node { number, rdev });
        }
    }
    Ok(found)
}

/// Columns: major, minor, size in KiB, name. Partitions of a loop device (`loop0p1`) are none.
fn parse_partitions(text: &str) -> Vec<Node> {
    let mut found: Vec<Node> = text
        .lines()
        .filter_map(|line| {
            let mut columns = line.split_ascii_whitespace();
            let device = DeviceNumber {
                major: columns.next()?.parse().ok()?,
                minor: columns.next()?.parse().ok()?,
            };
            let number = columns.nth(1)?.strip_prefix("loop")?.parse().ok()?;
            (device.major == MAJOR).then_some(Node {
                number,
                rdev: device.raw(),
            })
        })
        .collect();
    found.sort_unstable_by_key(|node| node.number);
    found
}

/// Only a bound device has this folder.
pub(super) fn is_bound(number: u32) -> bool {
    Path::new(&format!("/sys/block/loop{number}/loop")).exists()
}

/// The device's own number by sysfs; `None` when there is no such device.
pub(super) fn rdev(number: u32) -> Result<Option<u64>> {
    let file = format!("/sys/block/loop{number}/dev");
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(format!("read {file}"), error)),
    };
    let device = text.trim().split_once(':').and_then(|(major, minor)| {
        Some(DeviceNumber {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    });
    let device = device.ok_or_else(|| {
        Error::new(
            ErrorKind::Internal,
            format!("{file} holds no device number: {text:?}"),
        )
    })?;
    Ok(Some(device.raw()))
}

pub(super) fn rdev_of(device: &File) -> Result<u64> {
    Ok(device.metadata().during("examine a loop device")?.rdev())
}

impl Node {
    /// Opens it for reading, as [`open`].
    pub(super) fn open(self) -> Result<File> {
        open_as(self.number, self.rdev, &OpenOptions::new(), false)
    }
}

/// Opens `/dev/loopN`. A container's `/dev` was filled when the container started and lacks younger devices, so a
/// missing node is made.
pub(super) fn open(number: u32, exclusive: bool) -> Result<File> {
    open_with(number, &OpenOptions::new(), exclusive)
}

/// As [`open`], for writing, which `LOOP_CONFIGURE` needs to make a writable device.
pub(super) fn open_for_writing(number: u32) -> Result<File> {
    open_with(number, OpenOptions::new().write(true), false)
}

fn open_with(number: u32, options: &OpenOptions, exclusive: bool) -> Result<File> {
    let wanted = rdev(number)?.ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!("there is no {}", path(number).display()),
        )
    })?;
    open_as(number, wanted, options, exclusive)
}

fn open_as(number: u32, wanted: u64, options: &OpenOptions, exclusive: bool) -> Result<File> {
    let path = path(number);
    let mut options = options.clone();
    let flags = libc::O_NOFOLLOW | if exclusive { libc::O_EXCL } else { 0 };
    options.read(true).custom_flags(flags);
    let device = match options.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(&path, wanted)?;
            options.open(&path)
        }
        other => other,
    }
    .context_with(|| format!("open {}", path.display()))?;
    let metadata = device.metadata().during("examine a loop device")?;
    if metadata.file_type().is_block_device() && metadata.rdev() == wanted {
        Ok(device)
    } else {
        Err(Error::new(
            ErrorKind::Precondition,
            format!(
                "{} is not loop device {number}: remove that file, the kernel or this program makes the right one",
                path.display()
            ),
        ))
    }
}

fn make(path: &Path, rdev: u64) -> Result<()> {
    match mknod(path, SFlag::S_IFBLK, Mode::from_bits_truncate(0o660), rdev) {
        // The kernel or another thread made it meanwhile.
        Ok(()) | Err(nix::Error::EEXIST) => Ok(()),
        Err(errno) => Err(Error::io(
            format!("make the device node {}", path.display()),
            errno.into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loop_devices_are_told_from_partitions_and_other_disks() {
        let text = "major minor  #blocks  name\n\n 254        0  264241152 vda\n   7       12     512000 loop12\n   \
                    7        3    1048576 loop3\n 259        0       1024 loop3p1\n   7        x       1024 loop9\n";
        let numbers: Vec<u32> = parse_partitions(text)
            .iter()
            .map(|node| node.number)
            .collect();
        assert_eq!(numbers, [3, 12]);
    }

    #[test]
    fn a_bound_device_that_is_not_listed_is_found_in_sysfs() {
        let image = tempfile::tempfile().unwrap();
        image.set_len(1 << 20).unwrap();
        let device = crate::attach::loop_device::attach(&image, "listed", false)
            .unwrap()
            .device;
        let node = Node {
            number: device.number,
            rdev: device.rdev,
        };
        let (listed, hidden) = (unlisted(&[node]), unlisted(&[]));
        crate::attach::loop_device::detach(&device).unwrap();
        assert!(hidden.unwrap().contains(&node));
        assert!(!listed.unwrap().contains(&node));
    }

    #[test]
    fn a_short_list_comes_in_one_page() {
        let (text, pages) = read_pages("/proc/partitions").unwrap();
        assert!(text.starts_with("major minor"), "{text}");
        assert!(pages == 1 || text.len() > 4096, "{pages} pages: {text}");
    }
}
