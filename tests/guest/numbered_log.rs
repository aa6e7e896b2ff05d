//! The program that a guest of the demo runs: it keeps a log that can be judged later.
//!
//! Every line carries its number and a checksum over the number and the text, lines are written in
//! batches, and a batch is followed by an fsync before it is announced on the console. So whoever
//! reads the console knows which lines are on the disk *for certain*, and whoever reads the log of a
//! snapshot can prove that it is a prefix of what was written: nothing missing, nothing torn.
//!
//! It is built alone, statically and without crates (`build.sh`), because it runs in a guest that
//! has neither a C library nor anything else.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Lines in one write, and so between two fsyncs.
const BATCH_LINES: u64 = 20;
/// Lines between two reports on the console: a serial line is slow.
const REPORT_LINES: u64 = 100;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", path] => write_log(path),
        ["show", path] => show_log(path),
        _ => Err(io::Error::other("usage: numbered-log write|show FILE")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("log: FAILED: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Appends lines until the machine is switched off or the disk fails.
fn write_log(path: &str) -> io::Result<()> {
    let found = read_log(path)?;
    if found.unfinished_bytes > 0 {
        // What follows the last whole line was never announced; a new line must not be glued to it.
        OpenOptions::new()
            .write(true)
            .open(path)?
            .set_len(found.whole_bytes)?;
    }
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    let mut number = found.lines;
    let mut longest = Duration::ZERO;
    say(&format!("log: writing from line {}", number + 1));
    loop {
        let mut batch = String::new();
        for _ in 0..BATCH_LINES {
            number += 1;
            batch.push_str(&line(number));
        }
        let started = Instant::now();
        file.write_all(batch.as_bytes())?;
        file.sync_data()?;
        longest = longest.max(started.elapsed());
        if number % REPORT_LINES == 0 {
            say(&format!(
                "log line {number} on disk, longest wait {} ms",
                longest.as_millis()
            ));
        }
    }
}

/// Reads the log back and says how far it is whole.
fn show_log(path: &str) -> io::Result<()> {
    let found = read_log(path)?;
    if found.unfinished_bytes > 0 {
        say(&format!(
            "log: {} bytes of a write in flight follow",
            found.unfinished_bytes
        ));
    }
    say(&format!("log: last line: {}", found.last_line));
    say(&format!("log: {} lines, complete and intact", found.lines));
    Ok(())
}

/// What a log holds, up to the first line that is not whole.
struct Found {
    lines: u64,
    whole_bytes: u64,
    unfinished_bytes: u64,
    last_line: String,
}

/// Checks every line. A damaged line is an error unless all that follows it fits into one batch:
/// the last batch may have been on its way when the disk was cut, like in a power failure.
fn read_log(path: &str) -> io::Result<Found> {
    let mut found = Found {
        lines: 0,
        whole_bytes: 0,
        unfinished_bytes: 0,
        last_line: String::new(),
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    let size = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    let mut read = Vec::new();
    loop {
        read.clear();
        reader.read_until(b'\n', &mut read)?;
        let expected = line(found.lines + 1);
        if read != expected.as_bytes() {
            break;
        }
        found.lines += 1;
        found.whole_bytes += read.len() as u64;
        found.last_line = expected.trim_end().to_owned();
    }
    found.unfinished_bytes = size - found.whole_bytes;
    let batch_bytes = BATCH_LINES * line(1).len() as u64;
    if found.unfinished_bytes > batch_bytes {
        return Err(io::Error::other(format!(
            "line {} is missing or damaged, and {} bytes follow it",
            found.lines + 1,
            found.unfinished_bytes
        )));
    }
    Ok(found)
}

/// The one right content of a line: all have the same length, and none looks like another.
fn line(number: u64) -> String {
    let text = format!("{number:09} entry {:016x}", checksum(&number.to_le_bytes()));
    let sum = checksum(text.as_bytes());
    format!("{text} sum {sum:016x}\n")
}

/// FNV-1a, 64 bits: enough to tell a damaged line, and a few lines long.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// One line on the console, at once. A console that cannot be written to must not stop the log.
fn say(text: &str) {
    let mut console = io::stdout().lock();
    if writeln!(console, "{text}")
        .and_then(|()| console.flush())
        .is_err()
    {
        eprintln!("console cannot be written to");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(content: &str) -> io::Result<Found> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(content.as_bytes())?;
        read_log(&file.path().to_string_lossy())
    }

    fn lines(range: std::ops::RangeInclusive<u64>) -> String {
        range.map(line).collect()
    }

    #[test]
    fn a_whole_log_is_counted() {
        let found = found(&lines(1..=45)).unwrap();
        assert_eq!((found.lines, found.unfinished_bytes), (45, 0));
        assert_eq!(found.last_line, line(45).trim_end());
    }

    #[test]
    fn a_batch_that_was_cut_off_ends_the_log() {
        let text = lines(1..=45);
        let found = found(&text[..text.len() - 7]).unwrap();
        assert_eq!(found.lines, 44);
        assert_eq!(
            found.whole_bytes + found.unfinished_bytes,
            text.len() as u64 - 7
        );
    }

    #[test]
    fn a_missing_or_a_damaged_line_with_more_behind_it_is_an_error() {
        assert!(found(&(lines(1..=10) + &lines(12..=60))).is_err());
        let damaged = lines(1..=60).replacen("entry", "Entry", 1);
        assert!(found(&damaged).is_err());
    }

    #[test]
    fn no_log_is_an_empty_one() {
        assert_eq!(read_log("/nonexistent/log").unwrap().lines, 0);
    }
}
