//! The staging and target paths that kubelet names: opened so that nobody can redirect us.
//!
//! A pod can own folders next to its target path, and swap them for symbolic links at any moment. So the folder that
//! holds a target is opened once, beneath a base that is trusted and with no link followed, and everything after that
//! goes by this descriptor and one plain name. Only an empty folder or an empty file is ever removed.

mod inspect;
mod path;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

pub use inspect::{Content, Found};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::attach::mountinfo::DeviceNumber;
use crate::error::{Context, Error, ErrorKind, Result};

/// Where targets may lie.
#[derive(Clone, Debug)]
pub struct TargetBase {
    kubelet_dir: Option<PathBuf>,
}

/// A place for a mount: an open folder and a name in it. The name need not exist.
#[derive(Debug)]
pub struct Target {
    parent: OwnedFd,
    name: OsString,
    path: PathBuf,
}

impl TargetBase {
    /// Targets lie below kubelet's folder, which may itself be a symbolic link.
    #[must_use]
    pub fn kubelet(dir: PathBuf) -> Self {
        Self {
            kubelet_dir: Some(dir),
        }
    }

    /// Targets lie anywhere; the folder that holds one is trusted to be what its path says now.
    #[must_use]
    pub fn anywhere() -> Self {
        Self { kubelet_dir: None }
    }

    /// Opens the folder that holds `path`; `None` when there is no such folder, so that nothing can be mounted there.
    ///
    /// # Errors
    /// `InvalidInput` for a path that is relative, too long, has `..` or a NUL, or leads outside the base or through a
    /// symbolic link below it; `Io`.
    pub fn open(&self, path: &str) -> Result<Option<Target>> {
        let path = path::check(path)?;
        let Some((folder, name)) = path.parent().zip(path.file_name()) else {
            return Err(path::refused(&path, "names no file or folder"));
        };
        let parent = match &self.kubelet_dir {
            None => open_folder(folder)?,
            Some(base) => {
                let inside = folder.strip_prefix(base).map_err(|_not_below| {
                    path::refused(&path, &format!("does not lie below {}", base.display()))
                })?;
                match open_folder(base)? {
                    None => None,
                    Some(base) => {
                        open_beneath(&base, inside).map_err(|errno| through_link(errno, &path))?
                    }
                }
            }
        };
        Ok(parent.map(|parent| Target {
            parent,
            name: name.to_owned(),
            path: path.clone(),
        }))
    }
}

impl Target {
    /// The path as it was given, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is there now.
    ///
    /// # Errors
    /// `Io`.
    pub fn inspect(&self) -> Result<Found> {
        inspect::inspect(self)
    }

    /// Makes the folder to mount on; an empty one that is there serves as well. Answers whether it was made.
    ///
    /// # Errors
    /// `Conflict` when something else is there.
    pub fn make_folder(&self) -> Result<bool> {
        match mkdirat(
            &self.parent,
            self.name.as_os_str(),
            Mode::from_bits_truncate(0o750),
        ) {
            Ok(()) => Ok(true),
            Err(Errno::EEXIST) => match self.inspect()? {
                Found::Folder { empty: true } => Ok(false),
                other => Err(self.occupied(&other)),
            },
            Err(errno) => Err(self.failed("make the folder", errno)),
        }
    }

    /// Makes the empty file to bind a device onto; an empty one that is there serves as well. An empty folder in its
    /// place is replaced. Answers whether something was made.
    ///
    /// # Errors
    /// `Conflict` when something else is there.
    pub fn make_file(&self) -> Result<bool> {
        match self.create_file() {
            Ok(()) => return Ok(true),
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(self.failed("make the file", errno)),
        }
        match self.inspect()? {
            Found::File { empty: true } => Ok(false),
            Found::Folder { empty: true } => {
                self.remove_folder()?;
                self.create_file()
                    .map_err(|errno| self.failed("make the file", errno))?;
                Ok(true)
            }
            other => Err(self.occupied(&other)),
        }
    }

    /// Removes an empty folder or an empty file; anything else, and what is not there, is left alone. Answers whether
    /// the place is free.
    ///
    /// # Errors
    /// `InUse` when something is mounted there, `Io`.
    pub fn remove(&self) -> Result<bool> {
        match self.inspect()? {
            Found::Nothing => Ok(true),
            Found::Folder { empty: true } => self.remove_folder().map(|()| true),
            Found::File { empty: true } => self.remove_file().map(|()| true),
            Found::Folder { empty: false } | Found::File { empty: false } | Found::Other(_) => {
                Ok(false)
            }
            Found::Mounted(_) => Err(Error::new(
                ErrorKind::InUse,
                format!("something is mounted at {}", self.path.display()),
            )),
        }
    }

    /// Opens what is there without following a link, as a mere reference (`O_PATH`).
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn reference(&self) -> Result<OwnedFd> {
        self.open_self(OFlag::O_PATH)
            .map_err(|errno| self.failed("open", errno))
    }

    /// The number of the block device whose node is visible there; `None` for anything else, also for the root of a filesystem that
    /// has failed and cannot be examined any more.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn device_node(&self) -> Result<Option<DeviceNumber>> {
        let metadata = match File::from(self.reference()?).metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(None),
            Err(error) => {
                return Err(error).context_with(|| format!("examine {}", self.path.display()));
            }
        };
        let is_block = metadata.file_type().is_block_device();
        Ok(is_block.then(|| DeviceNumber::from_raw(metadata.rdev())))
    }

    /// Opens the folder that is there, or the root of the filesystem mounted on it, for reading.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn open_folder(&self) -> Result<File> {
        self.open_self(OFlag::O_RDONLY | OFlag::O_DIRECTORY)
            .map(File::from)
            .map_err(|errno| self.failed("open", errno))
    }

    /// A path through our descriptor of the parent, whose last part is not followed by callers that say so.
    pub(super) fn path_by_parent(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.parent.as_raw_fd())).join(&self.name)
    }

    pub(super) fn parent(&self) -> &OwnedFd {
        &self.parent
    }

    fn open_self(&self, flags: OFlag) -> nix::Result<OwnedFd> {
        openat2(
            &self.parent,
            self.name.as_os_str(),
            how(flags | OFlag::O_NOFOLLOW),
        )
    }

    fn create_file(&self) -> nix::Result<()> {
        let how = how(OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY)
            .mode(Mode::from_bits_truncate(0o640));
        openat2(&self.parent, self.name.as_os_str(), how).map(drop)
    }

    fn remove_folder(&self) -> Result<()> {
        unlinkat(
            &self.parent,
            self.name.as_os_str(),
            UnlinkatFlags::RemoveDir,
        )
        .or_else(unless_gone)
        .map_err(|errno| self.failed("remove the folder", errno))
    }

    fn remove_file(&self) -> Result<()> {
        unlinkat(
            &self.parent,
            self.name.as_os_str(),
            UnlinkatFlags::NoRemoveDir,
        )
        .or_else(unless_gone)
        .map_err(|errno| self.failed("remove the file", errno))
    }

    fn occupied(&self, found: &Found) -> Error {
        Error::new(
            ErrorKind::Conflict,
            format!(
                "{} is taken: {found}; it was left alone, remove it by hand",
                self.path.display()
            ),
        )
    }

    fn failed(&self, act: &str, errno: Errno) -> Error {
        let kind = match errno {
            Errno::ENOENT => Some(ErrorKind::NotFound),
            Errno::ELOOP | Errno::ENAMETOOLONG | Errno::ENOTDIR => Some(ErrorKind::InvalidInput),
            _ => None,
        };
        let error = Error::io(format!("{act} {}", self.path.display()), errno.into());
        match kind {
            Some(kind) => error.with_kind(kind),
            None => error,
        }
    }
}

fn how(flags: OFlag) -> OpenHow {
    OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS,
    )
}

fn open_folder(path: &Path) -> Result<Option<OwnedFd>> {
    use std::os::unix::fs::OpenOptionsExt;
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(path);
    match opened {
        Ok(folder) => Ok(Some(folder.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error)
            .context_with(|| format!("open the folder {}", path.display()))
            .map_err(as_input),
    }
}

/// `Ok(None)` when a part of the path is missing.
fn open_beneath(base: &OwnedFd, inside: &Path) -> nix::Result<Option<OwnedFd>> {
    let inside = if inside.as_os_str().is_empty() {
        Path::new(".")
    } else {
        inside
    };
    match openat2(base, inside, how(OFlag::O_PATH | OFlag::O_DIRECTORY)) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn through_link(errno: Errno, path: &Path) -> Error {
    match errno {
        Errno::ELOOP | Errno::EXDEV => path::refused(path, "leads through a symbolic link"),
        Errno::ENOTDIR | Errno::ENAMETOOLONG => {
            path::refused(path, &format!("is no usable path: {errno}"))
        }
        _ => Error::io(
            format!("open the folder of {}", path.display()),
            errno.into(),
        ),
    }
}

fn as_input(error: Error) -> Error {
    match error.errno() {
        Some(libc::ELOOP | libc::ENOTDIR | libc::ENAMETOOLONG) => {
            error.with_kind(ErrorKind::InvalidInput)
        }
        _ => error,
    }
}

fn unless_gone(errno: Errno) -> nix::Result<()> {
    match errno {
        Errno::ENOENT => Ok(()),
        other => Err(other),
    }
}
