//! Runs a command of the system, with a bound on its time.

use std::ffi::OsStr;
use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Seconds after which a command is taken for hung and killed.
const LIMIT_SECONDS: &str = "120";

/// What a command did.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The command line, for messages.
    pub line: String,
    /// The exit code; `None` when a signal ended it. 124 when it ran into the time limit.
    pub code: Option<i32>,
    /// What it printed.
    pub out: String,
    /// What it complained about.
    pub err: String,
}

impl Ran {
    /// The output of a command that must succeed.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> String {
        assert!(self.code == Some(0), "{self}");
        self.out
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{} ended with {:?}\n{}{}",
            self.line, self.code, self.out, self.err
        )
    }
}

fn starting() -> MutexGuard<'static, ()> {
    static STARTING: Mutex<()> = Mutex::new(());
    STARTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child, and is back when the child is its own program.
///
/// # Errors
/// When it cannot be started.
pub fn start(command: &mut Command) -> io::Result<Child> {
    let _one_at_a_time = starting();
    command.spawn()
}

/// Waits until no child is just being started by another test of this process. Between fork and exec a child has every
/// file of ours open, so a filesystem whose files we have closed could still not be unmounted.
pub fn settle() {
    drop(starting());
}

/// Runs `program` and says how it ended.
pub fn attempt<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[A]) -> Ran {
    let program = program.as_ref();
    let mut line = program.to_string_lossy().into_owned();
    for argument in arguments {
        line.push(' ');
        line.push_str(&argument.as_ref().to_string_lossy());
    }
    let mut command = Command::new("timeout");
    let _command = command
        .args(["--kill-after=5", LIMIT_SECONDS])
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output: Output = start(&mut command)
        .and_then(Child::wait_with_output)
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    Ran {
        line,
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs `program`, which must succeed, and returns what it printed.
#[track_caller]
pub fn run<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[A]) -> String {
    attempt(program, arguments).ok()
}
