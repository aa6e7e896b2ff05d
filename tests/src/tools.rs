//! Runs a command of the system, with a bound on its time.

use std::ffi::OsStr;
use std::process::{Command, Output};

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

/// Runs `program` and says how it ended.
pub fn attempt<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[A]) -> Ran {
    let program = program.as_ref();
    let mut line = program.to_string_lossy().into_owned();
    for argument in arguments {
        line.push(' ');
        line.push_str(&argument.as_ref().to_string_lossy());
    }
    let output: Output = Command::new("timeout")
        .args(["--kill-after=5", LIMIT_SECONDS])
        .arg(program)
        .args(arguments)
        .output()
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
