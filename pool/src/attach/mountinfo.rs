//! The kernel's table of mounts, `/proc/self/mountinfo` (`proc(5)`): the only truth about what is mounted.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};

/// A device's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceNumber {
    /// The driver's number.
    pub major: u64,
    /// The device's number with its driver.
    pub minor: u64,
}

impl DeviceNumber {
    /// From the one number that `stat(2)` gives.
    #[must_use]
    pub fn from_raw(raw: u64) -> Self {
        Self {
            major: nix::sys::stat::major(raw),
            minor: nix::sys::stat::minor(raw),
        }
    }

    /// The one number that `stat(2)` gives.
    #[must_use]
    pub fn raw(self) -> u64 {
        nix::sys::stat::makedev(self.major, self.minor)
    }
}

impl Display for DeviceNumber {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.major, self.minor)
    }
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The mount's id, unique while it exists.
    pub id: u64,
    /// The id of the mount it lies on.
    pub parent: u64,
    /// The filesystem, as `st_dev` of the files in it.
    pub device: DeviceNumber,
    /// Which folder or file of the filesystem is seen there: `/`, or what was bind-mounted.
    pub root: PathBuf,
    /// Where it is mounted, without symbolic links.
    pub mount_point: PathBuf,
    /// This mount refuses writes.
    pub read_only: bool,
    /// What else belongs to this mount and not to its filesystem, as `mount -o` calls it.
    pub options: Vec<String>,
    /// The filesystem's type.
    pub fs_type: String,
    /// The filesystem as a whole refuses writes.
    pub super_read_only: bool,
}

/// All mounts of this mount namespace, in the kernel's order.
#[derive(Clone, Debug, Default)]
pub struct MountTable {
    mounts: Vec<Mount>,
    by_id: HashMap<u64, usize>,
}

impl MountTable {
    /// Reads the table as it is now.
    ///
    /// # Errors
    /// `Io` when `/proc` cannot be read.
    pub fn read() -> Result<Self> {
        /// The kernel makes the text anew for each read, and says nothing of its length: seldom more than one.
        const USUAL: usize = 64 << 10;
        let mut bytes = Vec::with_capacity(USUAL);
        fs::File::open("/proc/self/mountinfo")
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .during("read /proc/self/mountinfo")?;
        Ok(Self::parse(&bytes))
    }

    /// Reads a table from its text. A line that does not follow `proc(5)` is left out.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mounts: Vec<Mount> = text
            .split(|byte| *byte == b'\n')
            .filter_map(parse_line)
            .collect();
        let by_id = mounts
            .iter()
            .enumerate()
            .map(|(at, mount)| (mount.id, at))
            .collect();
        Self { mounts, by_id }
    }

    /// All mounts.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.mounts.iter()
    }

    /// The mount of this id.
    #[must_use]
    pub fn by_id(&self, id: u64) -> Option<&Mount> {
        self.mounts.get(*self.by_id.get(&id)?)
    }

    /// The mount of this id and those it covers at the very same place, the visible one first.
    #[must_use]
    pub fn stack(&self, top: u64) -> Vec<&Mount> {
        let mut found: Vec<&Mount> = Vec::new();
        let mut next = self.by_id(top);
        while let Some(mount) = next {
            let same_place = found
                .last()
                .is_none_or(|above| above.mount_point == mount.mount_point);
            // A table read while it changed could name itself as a parent.
            if !same_place || found.iter().any(|seen| seen.id == mount.id) {
                break;
            }
            found.push(mount);
            next = self.by_id(mount.parent);
        }
        found
    }

    /// The mounts at `path`, which must have no symbolic links, in the kernel's order.
    pub fn at<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Mount> {
        self.iter().filter(move |mount| mount.mount_point == path)
    }

    /// The mounts of the filesystem on `device`, bind mounts of parts of it included.
    pub fn of_filesystem(&self, device: DeviceNumber) -> impl Iterator<Item = &Mount> {
        self.iter().filter(move |mount| mount.device == device)
    }

    /// The places where the device node `/dev/loop<number>` itself is bind-mounted onto a file.
    pub fn of_loop_node(&self, number: u32) -> impl Iterator<Item = &Mount> {
        let root = PathBuf::from(format!("/loop{number}"));
        self.iter().filter(move |mount| {
            mount.root == root && matches!(mount.fs_type.as_str(), "devtmpfs" | "tmpfs")
        })
    }
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ');
    let id = number(words.next()?)?;
    let parent = number(words.next()?)?;
    let device = parse_device(words.next()?)?;
    let root = parse_path(words.next()?);
    let mount_point = parse_path(words.next()?);
    let options = words.next()?;
    // Optional fields, as many as the kernel likes, end with a single dash.
    words.find(|word| *word == b"-")?;
    let fs_type = String::from_utf8_lossy(&unescape(words.next()?)).into_owned();
    let _source = words.next()?;
    let super_options = words.next().unwrap_or_default();
    Some(Mount {
        id,
        parent,
        device,
        root,
        mount_point,
        read_only: has_option(options, b"ro"),
        options: parse_options(options),
        fs_type,
        super_read_only: has_option(super_options, b"ro"),
    })
}

fn number(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn parse_device(word: &[u8]) -> Option<DeviceNumber> {
    let (major, minor) = std::str::from_utf8(word).ok()?.split_once(':')?;
    Some(DeviceNumber {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

fn parse_path(word: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(word)))
}

fn parse_options(options: &[u8]) -> Vec<String> {
    let words = options.split(|byte| *byte == b',');
    let others = words.filter(|word| !matches!(*word, b"ro" | b"rw"));
    others
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

fn has_option(options: &[u8], wanted: &[u8]) -> bool {
    options.split(|byte| *byte == b',').any(|o| o == wanted)
}

/// The kernel writes space, tab, newline and backslash as three octal digits behind a backslash.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, tail @ ..] = rest {
        let escaped = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        plain.push(escaped.unwrap_or(*first));
        rest = match escaped {
            Some(_) => tail.get(3..).unwrap_or_default(),
            None => tail,
        };
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
40 27 7:3 / /mnt/a\\040b\\134c ro,nosuid shared:7 master:1 propagate_from:2 - ext4 /dev/loop3 rw
41 40 7:4 /sub /mnt/a\\040b\\134c rw - xfs /dev/loop4 rw,nouuid
42 27 0:6 /loop3 /pods/vol rw,nosuid - devtmpfs devtmpfs rw,size=4k
43 27 0:6 /loop30 /pods/vol2 rw,nosuid - devtmpfs devtmpfs rw
44 27 0:99 / /empty ro - proc
";

    #[test]
    fn fields_are_read_through_escapes_and_optional_fields() {
        let table = MountTable::parse(TABLE.as_bytes());
        let mount = table.by_id(40).unwrap();
        assert_eq!(mount.mount_point, Path::new("/mnt/a b\\c"));
        assert_eq!(mount.device, DeviceNumber { major: 7, minor: 3 });
        assert!(mount.read_only && !mount.super_read_only);
        assert_eq!(mount.fs_type, "ext4");
        assert_eq!(table.by_id(41).unwrap().root, Path::new("/sub"));
    }

    #[test]
    fn a_stack_goes_from_the_visible_mount_down() {
        let table = MountTable::parse(TABLE.as_bytes());
        let ids: Vec<u64> = table.stack(41).iter().map(|mount| mount.id).collect();
        assert_eq!(ids, [41, 40]);
        assert_eq!(table.at(Path::new("/mnt/a b\\c")).count(), 2);
    }

    #[test]
    fn a_bound_device_node_is_found_by_its_exact_number() {
        let table = MountTable::parse(TABLE.as_bytes());
        let found: Vec<u64> = table.of_loop_node(3).map(|mount| mount.id).collect();
        assert_eq!(found, [42]);
    }

    #[test]
    fn a_line_that_is_cut_short_is_left_out() {
        let table = MountTable::parse(TABLE.as_bytes());
        assert!(table.by_id(44).is_none());
        assert_eq!(table.iter().count(), 5);
    }

    #[test]
    fn a_table_with_a_circle_ends() {
        let table = MountTable::parse(b"1 2 0:1 / /a rw - t s rw\n2 1 0:1 / /a rw - t s rw\n");
        assert_eq!(table.stack(1).len(), 2);
    }

    #[test]
    fn the_own_table_is_read_whole() {
        let lines = fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .count();
        assert_eq!(MountTable::read().unwrap().iter().count(), lines);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let table = MountTable::parse(&text);
            for mount in table.iter() {
                let _stack = table.stack(mount.id);
            }
        }

        #[test]
        fn lines_that_nearly_fit_do_not_panic(line in "[0-9:/ \\\\a-z-]{0,120}") {
            let _table = MountTable::parse(line.as_bytes());
        }

        #[test]
        fn every_path_survives_the_kernels_escapes(path in proptest::collection::vec(1u8.., 1..60)) {
            let mut escaped = Vec::new();
            for byte in &path {
                match byte {
                    b' ' | b'\t' | b'\n' | b'\\' => escaped.extend(format!("\\{byte:03o}").bytes()),
                    other => escaped.push(*other),
                }
            }
            prop_assert_eq!(unescape(&escaped), path);
        }
    }
}
