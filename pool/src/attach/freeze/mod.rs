//! Freezing a mounted filesystem for a moment, so that a cut of its image is a clean one.
//!
//! A frozen filesystem stops every program that writes to it, so it must be thawed whatever happens to us. A second
//! process does both: it freezes, waits for our word, and thaws when the word comes, when we die (the socket between us
//! ends) or when [`LONGEST`] has passed. It is this very program, started with [`GUARD_ARGUMENT`].
//!
//! ```text
//! us                                guard
//!  |---- start, with the mount ------>|
//!  |                                  | syncfs, FIFREEZE
//!  |<------------ "frozen" -----------|
//!  |   ... one ioctl ...              | waits: word, end of socket, or 5 s
//!  |------------- "thaw" ------------>|
//!  |                                  | FITHAW
//!  |<---- "thawed" or "expired" ------|
//! ```
//! When the guard dies as well (the whole container was killed), the next start thaws: [`thaw_all`].

mod guard;
mod recovery;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub use guard::guard_main;
pub use recovery::thaw_all;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys;

/// The first argument that makes a binary of ours act as the guard: its `main` calls [`guard_main`] then.
pub const GUARD_ARGUMENT: &str = "freeze-guard";
/// The longest time that a filesystem stays frozen.
pub const LONGEST: Duration = Duration::from_secs(5);
/// The longest time that writing everything out may take before the freeze.
const LONGEST_SYNC: Duration = Duration::from_secs(60);
/// How long we wait for the guard to end after its last word.
const LONGEST_END: Duration = Duration::from_secs(1);

/// A filesystem that is frozen now. Dropping it thaws.
#[derive(Debug)]
pub struct FreezeGuard {
    mount_point: File,
    guard: Option<Guard>,
}

#[derive(Debug)]
struct Guard {
    child: Child,
    socket: BufReader<UnixStream>,
}

impl FreezeGuard {
    /// Writes everything out and freezes the filesystem that is mounted at `mount_point`, which is open for reading.
    ///
    /// # Errors
    /// `Busy` when it is frozen already or takes too long, `Io`. It is not frozen then, or thaws as soon as the kernel
    /// lets go of it.
    pub fn freeze(mount_point: &File) -> Result<Self> {
        let mut guard = Guard::start(mount_point)?;
        let mount_point = mount_point.try_clone().during("keep the mount point")?;
        let refused = match guard.hear(LONGEST_SYNC) {
            Ok(answer) if answer == "frozen" => {
                return Ok(Self {
                    mount_point,
                    guard: Some(guard),
                });
            }
            Ok(answer) => refusal(&answer),
            Err(error) => error,
        };
        guard.forget();
        Err(refused)
    }

    /// Thaws. Answers whether the filesystem was frozen all the time until now: if not, what was cut is not clean and
    /// has to be thrown away. When this returns, it is thawed.
    ///
    /// # Errors
    /// `Io` when it cannot be thawed.
    pub fn thaw(mut self) -> Result<bool> {
        self.release()
    }

    fn release(&mut self) -> Result<bool> {
        let Some(mut guard) = self.guard.take() else {
            return Ok(false);
        };
        let answer = guard.ask_to_thaw();
        guard.forget();
        match answer.as_deref() {
            Ok("thawed") => Ok(true),
            Ok("expired") => Ok(false),
            // The guard was killed. We are the last who can thaw.
            _ => thaw(&self.mount_point).map(|_was_frozen| false),
        }
    }
}

impl Drop for FreezeGuard {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            tracing::error!(%error, "a filesystem may still be frozen");
        }
    }
}

impl Guard {
    fn start(mount_point: &File) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().during("make a socket for the freeze guard")?;
        // The mount is its standard input, the socket its standard output: nothing has to be inherited by number, and
        // everything else we have open is closed by the kernel (close-on-exec).
        let child = Command::new("/proc/self/exe")
            .arg(GUARD_ARGUMENT)
            .stdin(Stdio::from(
                mount_point.try_clone().during("keep the mount point")?,
            ))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::null())
            // Signals for our group, such as an interrupt at a terminal, must not reach it.
            .process_group(0)
            .spawn()
            .during("start the freeze guard")?;
        Ok(Self {
            child,
            socket: BufReader::new(ours),
        })
    }

    /// The guard's next word; an empty one when it is gone.
    fn hear(&mut self, limit: Duration) -> Result<String> {
        self.socket
            .get_ref()
            .set_read_timeout(Some(limit))
            .during("wait for the freeze guard")?;
        let mut line = String::new();
        match self.socket.read_line(&mut line) {
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "writing out and freezing the filesystem took longer than {} s",
                    limit.as_secs()
                ),
            )),
            Err(error) => Err(Error::io("listen to the freeze guard", error)),
        }
    }

    fn ask_to_thaw(&mut self) -> Result<String> {
        // A guard that is gone already does not hear; what it last said is still there.
        self.socket.get_mut().write_all(b"thaw\n").ok();
        self.hear(LONGEST)
    }

    /// Closes the socket, upon which a living guard thaws and ends, and waits for that: as long as it lives it holds the
    /// mount. One that hangs in the kernel with its disk is reaped whenever it ends.
    fn forget(self) {
        let mut child = self.child;
        drop(self.socket);
        let end = Instant::now() + LONGEST_END;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() >= end {
                thread::spawn(move || child.wait());
                return;
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
}

fn refusal(answer: &str) -> Error {
    let errno = answer
        .strip_prefix("error ")
        .and_then(|number| number.parse::<i32>().ok());
    match errno {
        Some(libc::EBUSY) => {
            Error::new(ErrorKind::Busy, "the filesystem is frozen by somebody else")
        }
        Some(errno) => Error::io(
            "freeze the filesystem",
            std::io::Error::from_raw_os_error(errno),
        ),
        None => Error::new(
            ErrorKind::Io,
            format!("the freeze guard ended without freezing: {answer:?}"),
        ),
    }
}

/// Thaws, and answers whether there was something to thaw.
fn thaw(mount_point: &File) -> Result<bool> {
    loop {
        match sys::thaw(mount_point) {
            Ok(()) => return Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(false),
            Err(error) => return Err(Error::io("thaw the filesystem", error)),
        }
    }
}
