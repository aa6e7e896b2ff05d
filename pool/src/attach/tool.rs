//! Runs the filesystem tools. Nothing else in the project starts a program, but for the freeze guard.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

/// How much of a tool's words goes into an error, in bytes.
const KEPT_OUTPUT: u64 = 2048;
/// How often we look whether a tool has ended.
const POLL: Duration = Duration::from_millis(5);

/// What a tool said at its end.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// The exit code; `None` when a signal ended it.
    pub(super) code: Option<i32>,
    /// The start of what it printed, standard error before standard output.
    pub(super) output: String,
}

/// Runs `program` to its end and kills it after `limit`.
///
/// # Errors
/// `Precondition` when the program is not installed, `Io` when it cannot be started or ran into the limit.
pub(super) fn run<A: AsRef<OsStr>>(
    program: &str,
    arguments: &[A],
    limit: Duration,
) -> Result<Outcome> {
    run_with(program, arguments, limit, Stdio::null())
}

/// As [`run`], with `held` as the tool's standard input: a lock on it lasts as long as the tool, also when we are killed.
///
/// # Errors
/// As [`run`].
pub(super) fn run_holding<A: AsRef<OsStr>>(
    program: &str,
    arguments: &[A],
    limit: Duration,
    held: &File,
) -> Result<Outcome> {
    let held = held
        .try_clone()
        .map_err(|error| Error::io(format!("hold a file for {program}"), error))?;
    run_with(program, arguments, limit, Stdio::from(held))
}

fn run_with<A: AsRef<OsStr>>(
    program: &str,
    arguments: &[A],
    limit: Duration,
    input: Stdio,
) -> Result<Outcome> {
    let mut child = Command::new(program)
        .args(arguments)
        // Messages are compared and shown; a translation would change them.
        .env("LC_ALL", "C")
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| not_started(program, error))?;
    let errors = collect(child.stderr.take());
    let words = collect(child.stdout.take());
    let status =
        wait(child, limit).map_err(|error| Error::io(format!("wait for {program}"), error))?;
    let output = join(&errors, &words);
    match status {
        Some(status) => Ok(Outcome {
            code: status.code(),
            output,
        }),
        None => Err(Error::new(
            ErrorKind::Io,
            format!(
                "{program} was stopped after {} s without an end; it said: {output}",
                limit.as_secs()
            ),
        )),
    }
}

fn not_started(program: &str, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        Error::new(
            ErrorKind::Precondition,
            format!(
                "{program} is not installed on this node: install e2fsprogs (ext4) or xfsprogs (xfs)"
            ),
        )
    } else {
        Error::io(format!("start {program}"), error)
    }
}

/// Reads a stream to its end on a thread of its own, so that a talkative tool never blocks, and keeps the start of it.
fn collect<R: Read + Send + 'static>(stream: Option<R>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut kept = Vec::new();
        if let Some(mut stream) = stream {
            // What cannot be read is only missing from a message.
            if (&mut stream)
                .take(KEPT_OUTPUT)
                .read_to_end(&mut kept)
                .is_ok()
            {
                io::copy(&mut stream, &mut io::sink()).ok();
            }
        }
        sender.send(kept).ok();
    });
    receiver
}

fn wait(mut child: Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            child.kill()?;
            // A tool that hangs inside the kernel only ends with its disk: it must not hold us as well.
            thread::spawn(move || child.wait());
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

fn join(errors: &mpsc::Receiver<Vec<u8>>, words: &mpsc::Receiver<Vec<u8>>) -> String {
    // A grandchild that keeps the pipe open must not hold us.
    let limit = Duration::from_secs(1);
    let mut text = Vec::new();
    for stream in [errors, words] {
        text.extend(stream.recv_timeout(limit).unwrap_or_default());
        text.push(b'\n');
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_words_are_kept() {
        let outcome = run(
            "sh",
            &["-c", "echo out; echo err >&2; exit 3"],
            Duration::from_secs(10),
        )
        .unwrap();
        assert_eq!(outcome.code, Some(3));
        assert_eq!(outcome.output, "err; out");
    }

    #[test]
    fn a_tool_that_hangs_is_killed() {
        let error = run("sleep", &["100"], Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("stopped"), "{error}");
    }

    #[test]
    fn a_talkative_tool_ends_and_is_cut() {
        let outcome = run(
            "sh",
            &["-c", "head -c 3000000 /dev/zero | tr '\\0' 'x'"],
            Duration::from_secs(60),
        )
        .unwrap();
        assert_eq!(outcome.code, Some(0));
        assert_eq!(outcome.output.len() as u64, KEPT_OUTPUT);
    }

    #[test]
    fn a_missing_tool_is_named() {
        let error = run("no-such-tool", &["x"], Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Precondition);
    }
}
