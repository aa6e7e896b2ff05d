//! What can go wrong on a node's disk, in terms a caller can act on.

use std::fmt::{self, Display};
use std::io;

/// What a caller can do about an error; the text says the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself is wrong and will never work unchanged.
    InvalidInput,
    /// There is no such object.
    NotFound,
    /// An object of that name exists and differs.
    Conflict,
    /// Another operation on the object runs.
    Busy,
    /// The object is attached, mounted or held by somebody.
    InUse,
    /// There is no room, and nothing was left behind.
    NoSpace,
    /// The size cannot be had.
    OutOfRange,
    /// A person has to do something first; the text says what.
    Precondition,
    /// The pool cannot be used now: not mounted, another one, read-only. It heals by itself.
    Unavailable,
    /// A record or an image is damaged. It is kept and reported.
    Corrupt,
    /// It failed, and nothing was left behind.
    Io,
    /// It failed, and whether it took effect is known only after calling again.
    Uncertain,
    /// A fault of this program.
    Internal,
}

/// An error: what kind, what was being done, and why it failed.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    text: String,
    source: Option<io::Error>,
}

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of our own finding. `text` tells the reader what is wrong and what to do.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            source: None,
        }
    }

    /// An error of the kernel while doing `operation` ("write the record of pvc-1").
    pub fn io(operation: impl Display, source: io::Error) -> Self {
        Self {
            kind: kind_of(&source),
            text: operation.to_string(),
            source: Some(source),
        }
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The kernel's error number, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.source.as_ref().and_then(io::Error::raw_os_error)
    }

    /// The same error, with what was being done in front.
    #[must_use]
    pub fn context(mut self, operation: impl Display) -> Self {
        self.text = format!("{operation}: {}", self.text);
        self
    }

    /// The same error as another kind, where the caller knows better what it means.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }
}

impl Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(out, "{}: {source}", self.text),
            None => out.write_str(&self.text),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// Turns a result of the kernel into ours, with what was being done.
pub trait Context<T> {
    /// Adds what was being done; the text is only made when it is needed.
    ///
    /// # Errors
    /// The error of `self`, described.
    fn context_with<D: Display>(self, operation: impl FnOnce() -> D) -> Result<T>;

    /// As [`Context::context_with`] for a fixed text.
    ///
    /// # Errors
    /// The error of `self`, described.
    fn during(self, operation: &'static str) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context_with<D: Display>(self, operation: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|source| Error::io(operation(), source))
    }

    fn during(self, operation: &'static str) -> Result<T> {
        self.map_err(|source| Error::io(operation, source))
    }
}

impl<T> Context<T> for nix::Result<T> {
    fn context_with<D: Display>(self, operation: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|errno| Error::io(operation(), errno.into()))
    }

    fn during(self, operation: &'static str) -> Result<T> {
        self.map_err(|errno| Error::io(operation, errno.into()))
    }
}

impl<T> Context<T> for Result<T> {
    fn context_with<D: Display>(self, operation: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| error.context(operation()))
    }

    fn during(self, operation: &'static str) -> Result<T> {
        self.map_err(|error| error.context(operation))
    }
}

fn kind_of(source: &io::Error) -> ErrorKind {
    match source.raw_os_error() {
        // A quota is a smaller disk.
        Some(libc::ENOSPC | libc::EDQUOT) => ErrorKind::NoSpace,
        // A filesystem that met an error turns read-only; somebody repairs it, nothing here has to restart.
        Some(libc::EROFS) => ErrorKind::Unavailable,
        // What XFS and Btrfs answer for metadata whose checksum is wrong.
        Some(libc::EUCLEAN | libc::EBADMSG) => ErrorKind::Corrupt,
        _ => ErrorKind::Io,
    }
}
