//! The marker: which pool this is, whose, and that one process alone works on it.

use std::fs::File;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::stat::Mode;
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, fstatfs};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::durable::{self, Folder};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::layout::{FOLDERS, MARKER};
use crate::record::{self, Kind, Timestamp};
use crate::sys;

/// The content of `.vd-pool`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    /// Made once, at init.
    pub uuid: String,
    /// The node the pool belongs to, as given by `--node`.
    pub node: String,
    /// When it was made.
    pub created: Timestamp,
    /// Images are NOCOW (Btrfs): decided once, because NOCOW files can only be cloned to NOCOW files.
    pub nocow: bool,
}

/// Makes `path` a pool of `node`.
///
/// 1. The four folders are made (empty ones of an interrupted init are taken over).
/// 2. They and `path` are synced.
/// 3. The marker is written aside, synced, renamed into place and `path` synced: from here on it is a pool.
///
/// Files that are not ours are left alone.
///
/// # Errors
/// `Conflict` when it is a pool already or one of our folders holds something; else the kernel's.
pub fn init(path: &Path, node: &str) -> Result<Marker> {
    check_node(node)?;
    let root = Folder::open_path(path)
        .during("make a pool: the folder must exist (mount the disk there first)")?;
    if root.stat(MARKER)?.is_some() {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "{} is a pool already; see `vdctl pool status`",
                path.display()
            ),
        ));
    }
    let nocow = fstatfs(root.as_file())
        .during("look at the filesystem")?
        .filesystem_type()
        == BTRFS_SUPER_MAGIC;
    for name in FOLDERS {
        let folder = empty_folder(&root, name)?;
        if nocow && name != "trash" {
            sys::set_nocow(folder.as_file())
                .context_with(|| format!("mark the folder {name} as NOCOW"))?;
        }
        folder.sync()?;
    }
    root.sync()?;
    let marker = Marker {
        uuid: Uuid::new_v4().to_string(),
        node: node.to_owned(),
        created: Timestamp::now(),
        nocow,
    };
    let aside = format!("{MARKER}.tmp");
    root.remove_file(&aside)?;
    durable::write_synced(&root, &aside, &record::encode(Kind::Pool, &marker)?)?;
    durable::rename(&root, &aside, &root, MARKER)?;
    root.sync()?;
    Ok(marker)
}

/// What is at the path of a pool, whoever owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A pool, with its marker.
    Pool(Marker),
    /// Neither a marker nor one of our folders: a pool can be made here.
    Nothing,
    /// No marker, but folders of ours, by name: what is left of a pool, or of an interrupted [`init`].
    Remains(Vec<&'static str>),
}

/// Looks at `path` without opening the pool.
///
/// # Errors
/// `NotFound` when there is no such folder, `Corrupt` when there is a marker that cannot be trusted, else the kernel's.
pub fn look(path: &Path) -> Result<Found> {
    let root = Folder::open_path(path)?;
    if root.stat(MARKER)?.is_some() {
        return read(&root, path).map(Found::Pool);
    }
    let mut remains = Vec::new();
    for name in FOLDERS {
        if root.stat(name)?.is_some() {
            remains.push(name);
        }
    }
    if remains.is_empty() {
        return Ok(Found::Nothing);
    }
    Ok(Found::Remains(remains))
}

/// Reads the marker of a pool.
///
/// # Errors
/// `Unavailable` when there is none, `Corrupt` when it is damaged or of a version not known here.
pub(crate) fn read(root: &Folder, path: &Path) -> Result<Marker> {
    let bytes = durable::read_small(root, MARKER).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::new(
            ErrorKind::Unavailable,
            format!(
                "{} is not a pool: mount its disk there, or make one with `vdctl pool init {}`",
                path.display(),
                path.display()
            ),
        ),
        _ => error.context(format!("read the marker of the pool {}", path.display())),
    })?;
    record::decode(Kind::Pool, &bytes)
        .context_with(|| format!("the marker {} cannot be read", path.join(MARKER).display()))
}

/// The right to change a pool. The kernel takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Ownership(#[allow(dead_code, reason = "held, not read")] Flock<File>);

/// Takes the ownership of a pool.
///
/// # Errors
/// `InUse` when another opening of the pool has it, mostly that of another process.
pub(crate) fn own(root: &Folder, path: &Path) -> Result<Ownership> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let marker = nix::fcntl::openat(root.as_file(), MARKER, flags, Mode::empty())
        .map(File::from)
        .during("open the pool's marker")?;
    match Flock::lock(marker, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Ownership(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Err(Error::new(
            ErrorKind::InUse,
            format!(
                "the pool {} is owned by another running process; only one may change it",
                path.display()
            ),
        )),
        Err((_, errno)) => Err(Error::io("lock the pool's marker", errno.into())),
    }
}

fn empty_folder(root: &Folder, name: &str) -> Result<Folder> {
    if root.stat(name)?.is_none() {
        return root.make_folder(name);
    }
    let folder = root.folder(name)?;
    if folder.names()?.is_empty() {
        return Ok(folder);
    }
    Err(Error::new(
        ErrorKind::Conflict,
        format!(
            "the folder {name} exists and is not empty, but there is no marker {MARKER}: this may be a damaged pool. Nothing was changed"
        ),
    ))
}

fn check_node(node: &str) -> Result<()> {
    let fits = (1..=253).contains(&node.len())
        && node
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if fits {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("{node:?} is not a node name: 1 to 253 letters, digits, '-', '.' or '_'"),
    ))
}
