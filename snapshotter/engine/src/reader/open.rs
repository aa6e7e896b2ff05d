//! Opening a file that somebody else made.

use std::fs::File;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use pool::Context;

use super::refusal::{Failure, Reason, Refusal};

/// Opens `path` for reading if it is a regular file. A link in the last place of the path is not followed, and nothing
/// that is not a regular file makes the caller wait.
///
/// # Errors
/// [`Failure::Refused`] for what is not a regular file; [`Failure::Unreadable`] for what is not there or not allowed.
pub fn open(path: &Path) -> Result<File, Failure> {
    let file = OpenOptions::new()
        .read(true)
        // Without O_NONBLOCK a pipe would wait for its writer.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    let file = match file {
        Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => {
            return Err(irregular(
                "a link, which is not followed: name the file itself",
            ));
        }
        // What a socket, and a device without a driver, answer.
        Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => {
            return Err(irregular("no regular file"));
        }
        opened => opened.context_with(|| format!("open {}", path.display()))?,
    };
    let metadata = file
        .metadata()
        .context_with(|| format!("look at {}", path.display()))?;
    if metadata.is_file() {
        return Ok(file);
    }
    Err(irregular("no regular file"))
}

fn irregular(what: &str) -> Failure {
    Refusal::new(Reason::NotARegularFile, format!("this is {what}")).into()
}
