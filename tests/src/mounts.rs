//! The kernel's list of mounts.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Device number of the filesystem, `major:minor`.
    pub device: String,
    /// The folder or file of that filesystem that is mounted.
    pub root: PathBuf,
    /// Where.
    pub target: PathBuf,
    /// Options of this mount.
    pub options: Vec<String>,
    /// The filesystem's type.
    pub fs_type: String,
    /// The device it was mounted from.
    pub source: String,
    /// Options of the filesystem.
    pub fs_options: Vec<String>,
}

impl Mount {
    /// Whether the mount or its filesystem has `option`.
    #[must_use]
    pub fn has(&self, option: &str) -> bool {
        self.options
            .iter()
            .chain(&self.fs_options)
            .any(|one| one == option)
    }
}

/// Every mount, in the order they were made.
#[must_use]
pub fn all() -> Vec<Mount> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").expect("read mountinfo");
    text.lines().filter_map(parse).collect()
}

/// The mounts at exactly `target`: more than one when they are stacked.
#[must_use]
pub fn at(target: &Path) -> Vec<Mount> {
    all()
        .into_iter()
        .filter(|mount| mount.target == target)
        .collect()
}

/// The mounts at and below `folder`.
#[must_use]
pub fn below(folder: &Path) -> Vec<Mount> {
    all()
        .into_iter()
        .filter(|mount| mount.target.starts_with(folder))
        .collect()
}

/// Unmounts everything at and below `folder`, newest first; what is busy stays.
pub fn unmount_below(folder: &Path) {
    for mount in below(folder).into_iter().rev() {
        if let Err(error) = umount2(&mount.target, MntFlags::empty()) {
            eprintln!("unmount {}: {error}", mount.target.display());
        }
    }
}

fn parse(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    Some(Mount {
        device: (*left.get(2)?).to_owned(),
        root: unescape(left.get(3)?),
        target: unescape(left.get(4)?),
        options: split(left.get(5)?),
        fs_type: (*right.first()?).to_owned(),
        source: unescape(right.get(1)?).to_string_lossy().into_owned(),
        fs_options: split(right.get(2)?),
    })
}

fn split(options: &str) -> Vec<String> {
    options.split(',').map(str::to_owned).collect()
}

/// Blank, tab, newline and backslash are written as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = octal {
            bytes.push(byte);
            rest = &tail[3..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_taken_apart() {
        let line =
            r"36 35 98:0 /mnt1 /mnt\040two rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let mount = parse(line).unwrap();
        assert_eq!(mount.target, Path::new("/mnt two"));
        assert_eq!(mount.device, "98:0");
        assert!(mount.has("noatime") && mount.has("errors=continue") && !mount.has("ro"));
    }
}
