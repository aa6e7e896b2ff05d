//! Changes of the disk that are on the disk when they return.
//!
//! Everything is relative to an open folder, so no path is resolved twice and an unmounted pool cannot turn into writes
//! on the root filesystem. A failed `fsync` is never repeated: the kernel has marked the pages clean, so a second
//! success would mean nothing. What it was for is thrown away, or the caller stops trusting the pool.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, OFlag, PosixFadviseAdvice, RenameFlags, openat, posix_fadvise, renameat2,
};
use nix::sys::stat::{FileStat, Mode, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Context, Error, ErrorKind, Result};
use crate::fault::{Step, reached};

/// A record is a few hundred bytes; a larger file is not ours.
const MAX_RECORD_BYTES: u64 = 64 << 10;
const RECORD: &str = "record";
const RECORD_TEMPORARY: &str = "record.tmp";

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder(File);

impl Folder {
    /// Opens a folder by path. Symlinks in the path are followed: it is the administrator's.
    ///
    /// # Errors
    /// `NotFound` when it is not there, else the kernel's.
    pub(crate) fn open_path(path: &std::path::Path) -> Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        openat(AT_FDCWD, path, flags, Mode::empty())
            .map(|fd| Self(File::from(fd)))
            .context_with(|| format!("open the folder {}", path.display()))
            .map_err(not_found)
    }

    /// Opens a folder in this one; never through a symlink.
    ///
    /// # Errors
    /// `NotFound` when it is not there, else the kernel's.
    pub(crate) fn folder(&self, name: &str) -> Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        openat(&self.0, name, flags, Mode::empty())
            .map(|fd| Self(File::from(fd)))
            .context_with(|| format!("open the folder {name}"))
            .map_err(not_found)
    }

    /// Makes a folder, mode 0700, that must not exist. Durable only once this folder is synced.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn make_folder(&self, name: &str) -> Result<Self> {
        mkdirat(&self.0, name, Mode::S_IRWXU).context_with(|| format!("make the folder {name}"))?;
        self.folder(name)
    }

    /// Makes a file, mode 0600, that must not exist, open for reading and writing.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn make_file(&self, name: &str) -> Result<File> {
        let flags =
            OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        openat(&self.0, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map(File::from)
            .context_with(|| format!("make the file {name}"))
    }

    /// Opens a file; never through a symlink, never waiting for the other end of a pipe.
    ///
    /// # Errors
    /// `NotFound` when it is not there, `Corrupt` when it is no regular file, else the kernel's.
    pub(crate) fn file(&self, name: &str, write: bool) -> Result<File> {
        let access = if write {
            OFlag::O_RDWR
        } else {
            OFlag::O_RDONLY
        };
        let flags = access | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(&self.0, name, flags, Mode::empty())
            .map(File::from)
            .context_with(|| format!("open the file {name}"))
            .map_err(not_found)?;
        let kind = file
            .metadata()
            .context_with(|| format!("look at the file {name}"))?;
        if kind.is_file() {
            Ok(file)
        } else {
            Err(Error::new(
                ErrorKind::Corrupt,
                format!("{name} is not a regular file"),
            ))
        }
    }

    /// What is at `name`, without following a symlink; `None` when nothing is.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn stat(&self, name: &str) -> Result<Option<FileStat>> {
        match fstatat(&self.0, name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(Error::io(format!("look at {name}"), errno.into())),
        }
    }

    /// The names in this folder, sorted.
    ///
    /// # Errors
    /// The kernel's; `Corrupt` for a name that is not UTF-8, which none of ours is.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let again = openat(
            &self.0,
            ".",
            OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .during("open a folder for listing")?;
        let mut listing = nix::dir::Dir::from_fd(again).during("list a folder")?;
        let mut names = Vec::new();
        for entry in listing.iter() {
            let entry = entry.during("list a folder")?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes a file; one that is not there is fine.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn remove_file(&self, name: &str) -> Result<()> {
        gone(unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir), name)
    }

    /// Removes an empty folder; one that is not there is fine.
    ///
    /// # Errors
    /// The kernel's; `ENOTEMPTY` when something is in it.
    pub(crate) fn remove_folder(&self, name: &str) -> Result<()> {
        gone(unlinkat(&self.0, name, UnlinkatFlags::RemoveDir), name)
    }

    /// Makes the names in this folder durable.
    ///
    /// # Errors
    /// The kernel's. What was not durable before is then unknown.
    pub(crate) fn sync(&self) -> Result<()> {
        self.0.sync_all().during("make a folder durable")
    }

    /// The folder as a file, for calls that take one.
    #[must_use]
    pub(crate) fn as_file(&self) -> &File {
        &self.0
    }
}

/// Renames `from/name` to `to/new_name`, which must not exist. Not yet durable: sync both folders.
///
/// # Errors
/// `Conflict` when the name is taken, else the kernel's.
pub(crate) fn rename(from: &Folder, name: &str, to: &Folder, new_name: &str) -> Result<()> {
    match renameat2(
        &from.0,
        name,
        &to.0,
        new_name,
        RenameFlags::RENAME_NOREPLACE,
    ) {
        Ok(()) => Ok(()),
        Err(Errno::EEXIST) => Err(Error::new(
            ErrorKind::Conflict,
            format!("{new_name} exists already"),
        )),
        Err(errno) => Err(Error::io(
            format!("rename {name} to {new_name}"),
            errno.into(),
        )),
    }
}

/// Lets `from/name` and `to/new_name`, both of which must exist, change places. Not yet durable: sync both folders.
///
/// # Errors
/// `NotFound` when one of them is not there, else the kernel's.
pub(crate) fn exchange(from: &Folder, name: &str, to: &Folder, new_name: &str) -> Result<()> {
    renameat2(&from.0, name, &to.0, new_name, RenameFlags::RENAME_EXCHANGE)
        .context_with(|| format!("exchange {name} and {new_name}"))
        .map_err(not_found)
}

/// Writes the first record of an object's folder. Durable, but for the folder's own name.
///
/// One sync after the other: the first makes a journaling filesystem write its log, in which the next finds most of what it
/// waits for. At once, from two threads, each would write a log of its own.
///
/// # Errors
/// The kernel's.
pub(crate) fn write_record(folder: &Folder, bytes: &[u8]) -> Result<()> {
    begin_record(folder, bytes)?.sync(folder)
}

/// A record that is being written to the disk.
#[must_use = "it is not durable before it is synced"]
pub(crate) struct BegunRecord(File);

/// Writes the first record of an object's folder and does not wait for the disk, so that something else can be synced meanwhile.
///
/// # Errors
/// The kernel's.
pub(crate) fn begin_record(folder: &Folder, bytes: &[u8]) -> Result<BegunRecord> {
    let file = write_new(folder, RECORD, bytes)?;
    begin_write_out(&file, bytes.len() as u64);
    Ok(BegunRecord(file))
}

impl BegunRecord {
    /// Replaces what it says, which nobody has seen yet.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn rewrite(&self, bytes: &[u8]) -> Result<()> {
        self.0
            .write_all_at(bytes, 0)
            .and_then(|()| self.0.set_len(bytes.len() as u64))
            .during("write a record anew")
    }

    /// Makes it durable, but for the folder's own name.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn sync(self, folder: &Folder) -> Result<()> {
        self.0.sync_all().during("make a record durable")?;
        folder.sync()
    }
}

/// Lets the disk begin with the first `bytes` bytes of a file. Advice only: whether it was taken, and what came of it, is in the
/// answer of the file's sync.
pub(crate) fn begin_write_out(file: &File, bytes: u64) {
    if let Err(error) = crate::sys::begin_write_out(file, 0, bytes) {
        tracing::debug!(%error, "writing out was not begun early");
    }
}

/// Drops the first `bytes` bytes of a file, which were synced, from the page cache, and begins to read them from the disk. Advice
/// only.
pub(crate) fn read_again(file: &File, bytes: u64) {
    /// What is read ahead. The tables of disks up to 25 GiB are fetched at once: the few that there are lie apart from each other, and
    /// waiting for one after the other takes longer than writing them. Beyond that it would fill memory with holes.
    const AT_ONCE: i64 = 4 << 20;
    let length = i64::try_from(bytes).unwrap_or(i64::MAX);
    let advise = |advice| {
        // A length of 0 would be the whole file.
        let advised = match length {
            0 => Ok(()),
            length => posix_fadvise(file, 0, length, advice),
        };
        if let Err(errno) = advised {
            tracing::debug!(%errno, "advice on what is cached of a file was refused");
        }
    };
    advise(PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    if length <= AT_ONCE {
        advise(PosixFadviseAdvice::POSIX_FADV_WILLNEED);
    }
}

/// Replaces the record of an object's folder: write the new one aside, sync it, rename it over, sync the folder.
///
/// 1. `record.tmp` is written and synced. A crash before 2 leaves the old record; recovery removes `record.tmp`.
/// 2. It is renamed to `record`. A crash before 3 leaves either one, whole.
/// 3. The folder is synced: the new record is there for good.
///
/// # Errors
/// The kernel's. After one in step 1 the old record is in place as before, and nothing is left. One from step 2 on is
/// `Uncertain`: either record may be on the disk, and the caller stops trusting the pool.
pub(crate) fn replace_record(folder: &Folder, bytes: &[u8]) -> Result<()> {
    folder.remove_file(RECORD_TEMPORARY)?;
    let written = write_synced(folder, RECORD_TEMPORARY, bytes)
        .and_then(|()| reached(Step::RecordTemporaryWritten));
    if let Err(error) = written {
        if let Err(left) = folder.remove_file(RECORD_TEMPORARY) {
            // The next replacement removes it, or the next start.
            tracing::debug!(%left, "a record that was not put in place stays for now");
        }
        return Err(error);
    }
    put_in_place(folder).map_err(|error| error.with_kind(ErrorKind::Uncertain))
}

fn put_in_place(folder: &Folder) -> Result<()> {
    renameat2(
        &folder.0,
        RECORD_TEMPORARY,
        &folder.0,
        RECORD,
        RenameFlags::empty(),
    )
    .during("put the new record in place")?;
    reached(Step::RecordReplaced)?;
    folder.sync()?;
    reached(Step::RecordFolderSynced)
}

/// The bytes of an object's record.
///
/// # Errors
/// `NotFound` when there is none, `Corrupt` when it is not a regular file of a record's size, else the kernel's.
pub(crate) fn read_record(folder: &Folder) -> Result<Vec<u8>> {
    read_small(folder, RECORD)
}

/// The bytes of a small file.
///
/// # Errors
/// As [`read_record`].
pub(crate) fn read_small(folder: &Folder, name: &str) -> Result<Vec<u8>> {
    /// Most records fit, and are then read in one go.
    const USUAL: usize = 4096;
    let file = folder.file(name, false)?;
    let mut bytes = Vec::with_capacity(USUAL);
    file.take(MAX_RECORD_BYTES + 1)
        .read_to_end(&mut bytes)
        .context_with(|| format!("read {name}"))?;
    if bytes.len() as u64 > MAX_RECORD_BYTES {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("{name} is larger than any record"),
        ));
    }
    Ok(bytes)
}

/// Writes a new file and makes its content durable, not yet its name.
///
/// # Errors
/// The kernel's.
pub(crate) fn write_synced(folder: &Folder, name: &str, bytes: &[u8]) -> Result<()> {
    write_new(folder, name, bytes)?
        .sync_all()
        .context_with(|| format!("make {name} durable"))
}

fn write_new(folder: &Folder, name: &str, bytes: &[u8]) -> Result<File> {
    let mut file = folder.make_file(name)?;
    file.write_all(bytes)
        .context_with(|| format!("write {name}"))?;
    Ok(file)
}

/// Waits until everything written to the filesystem of `folder` is on the disk.
///
/// # Errors
/// The kernel's.
pub(crate) fn sync_filesystem(folder: &Folder) -> Result<()> {
    nix::unistd::syncfs(folder.0.as_fd()).during("make the pool's filesystem durable")
}

/// The name of the temporary record that an interrupted [`replace_record`] leaves.
pub(crate) fn temporary_record() -> &'static str {
    RECORD_TEMPORARY
}

/// The name of an object's record.
pub(crate) fn record_name() -> &'static str {
    RECORD
}

fn gone(result: nix::Result<()>, name: &str) -> Result<()> {
    match result {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(Error::io(format!("remove {name}"), errno.into())),
    }
}

fn not_found(error: Error) -> Error {
    match error.errno() {
        Some(libc::ENOENT) => error.with_kind(ErrorKind::NotFound),
        // A symlink or a file where a folder of ours should be.
        Some(libc::ELOOP | libc::ENOTDIR) => error.with_kind(ErrorKind::Corrupt),
        _ => error,
    }
}
