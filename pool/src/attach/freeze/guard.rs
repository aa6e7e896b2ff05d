//! The process that freezes and thaws.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{close, syncfs};

use super::{LONGEST, thaw};
use crate::sys;

const STANDARD_INPUT: i32 = 0;

/// How a freeze ended.
enum End {
    /// We were told to thaw, or the one who would tell us is gone.
    Asked,
    /// It took too long.
    Expired,
}

/// What a binary of ours does when its first argument is [`super::GUARD_ARGUMENT`]. Standard input is the mount point,
/// standard output the socket to the process that started us. Threads must not be running yet.
#[must_use]
pub fn guard_main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_unheard) => ExitCode::FAILURE,
    }
}

fn run() -> io::Result<()> {
    stand_alone()?;
    let mount_point = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut socket = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    // Before the freeze, so that the freeze itself has little left to write while it holds writers back.
    let begun = syncfs(&mount_point)
        .map_err(io::Error::from)
        .and_then(|()| {
            let start = Instant::now();
            sys::freeze(&mount_point).map(|()| start)
        });
    let start = match begun {
        Ok(start) => start,
        Err(error) => {
            return writeln!(socket, "error {}", error.raw_os_error().unwrap_or(0));
        }
    };
    // From here on there is no way out but through the thaw.
    let end = match writeln!(socket, "frozen") {
        Ok(()) => wait(&mut socket, start + LONGEST),
        Err(_nobody_listens) => End::Asked,
    };
    let was_frozen = thaw(&mount_point);
    let held = matches!(end, End::Asked) && matches!(was_frozen, Ok(true));
    // Who hears the last word may unmount at once, which our descriptors of the mount would forbid.
    drop(mount_point);
    close(STANDARD_INPUT)?;
    writeln!(socket, "{}", if held { "thawed" } else { "expired" })
}

/// Out of reach of signals that are meant for the agent, and holding nothing of it.
fn stand_alone() -> io::Result<()> {
    let mut deaf = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGPIPE,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        deaf.add(signal);
    }
    deaf.thread_block()?;
    // Whoever started the agent may have left descriptors open for it: a lock, a pipe that somebody waits for.
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in open {
        // One of them is the folder that was just read and closed.
        close(number).ok();
    }
    Ok(())
}

/// Waits for a word, for the end of the socket, or until `end`.
fn wait(socket: &mut UnixStream, end: Instant) -> End {
    let mut word = [0; 16];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return End::Expired;
        }
        // A timeout below a microsecond would mean none at all.
        let limit = left.max(Duration::from_millis(1));
        if socket.set_read_timeout(Some(limit)).is_err() {
            return End::Asked;
        }
        match socket.read(&mut word) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) => {}
            // A word, the end, or an error: nobody needs the freeze any more.
            _ => return End::Asked,
        }
    }
}
