//! What lies at a target.

use std::fmt::{self, Display};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};

use super::Target;
use crate::attach::mountinfo::{Mount, MountTable};
use crate::error::{Context, Error, ErrorKind, Result};

/// What lies at a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A folder on which nothing is mounted.
    Folder {
        /// It has no entries.
        empty: bool,
    },
    /// A regular file on which nothing is mounted.
    File {
        /// It has no bytes.
        empty: bool,
    },
    /// A symbolic link, a socket, a device node, ...
    Other(Content),
    /// One or more mounts, the visible one first.
    Mounted(Vec<Mount>),
}

/// What a file is that is neither a regular file nor a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A symbolic link.
    Link,
    /// A device node, a socket or a pipe.
    Special,
}

impl Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => out.write_str("nothing is there"),
            Self::Folder { empty: true } => out.write_str("it is an empty folder"),
            Self::Folder { empty: false } => out.write_str("it is a folder with files in it"),
            Self::File { empty: true } => out.write_str("it is an empty file"),
            Self::File { empty: false } => out.write_str("it is a file with content"),
            Self::Other(Content::Link) => out.write_str("it is a symbolic link"),
            Self::Other(Content::Special) => out.write_str("it is a device node, socket or pipe"),
            Self::Mounted(mounts) => match mounts.first() {
                Some(mount) => write!(
                    out,
                    "a {} filesystem (device {}) is mounted there",
                    mount.fs_type, mount.device
                ),
                None => out.write_str("something is mounted there"),
            },
        }
    }
}

/// A place is a mount point when its mount is another one than that of the folder around it. This needs no comparison
/// of paths, so it is right behind symbolic links and for mounts that hide others.
pub(super) fn inspect(target: &Target) -> Result<Found> {
    let reference = match target.open_self(OFlag::O_PATH) {
        Ok(reference) => reference,
        Err(Errno::ENOENT) => return Ok(Found::Nothing),
        Err(errno) => return Err(target.failed("examine", errno)),
    };
    let own = mount_id(&reference)?;
    if own != mount_id(target.parent())? {
        return mounted(target, own);
    }
    let metadata = fstat(&reference).map_err(|errno| target.failed("examine", errno))?;
    Ok(
        match SFlag::from_bits_truncate(metadata.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => Found::Folder {
                empty: is_empty(target)?,
            },
            SFlag::S_IFREG => Found::File {
                empty: metadata.st_size == 0,
            },
            SFlag::S_IFLNK => Found::Other(Content::Link),
            _ => Found::Other(Content::Special),
        },
    )
}

fn mounted(target: &Target, top: u64) -> Result<Found> {
    let table = MountTable::read()?;
    let stack: Vec<Mount> = table.stack(top).into_iter().cloned().collect();
    if stack.is_empty() {
        return Err(Error::new(
            ErrorKind::Busy,
            format!(
                "the mounts at {} change at this moment: try again",
                target.path().display()
            ),
        ));
    }
    Ok(Found::Mounted(stack))
}

/// The id of the mount that an open file lies on, as in mountinfo.
pub(super) fn mount_id(file: &OwnedFd) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
    let text = fs::read_to_string(&path).context_with(|| format!("read {path}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))
        .and_then(|id| id.trim().parse().ok())
        .ok_or_else(|| Error::new(ErrorKind::Internal, format!("{path} has no mount id")))
}

fn is_empty(target: &Target) -> Result<bool> {
    let folder = target
        .open_self(OFlag::O_RDONLY | OFlag::O_DIRECTORY)
        .map_err(|errno| target.failed("examine", errno))?;
    let mut folder = Dir::from_fd(folder).map_err(|errno| target.failed("examine", errno))?;
    for entry in folder.iter() {
        let entry = entry.map_err(|errno| target.failed("examine", errno))?;
        let dots = matches!(entry.file_name().to_bytes(), b"." | b"..");
        if !(dots && matches!(entry.file_type(), Some(Type::Directory) | None)) {
            return Ok(false);
        }
    }
    Ok(true)
}
