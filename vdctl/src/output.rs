//! What is printed: tables for people, JSON for programs, progress on a terminal.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};

use anyhow::Context;
use pool::size::human;
use serde::Serialize;

/// Prints lines on standard output. A reader that went away (`| head`) is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("write to standard output"),
    }
}

/// Prints a value as JSON.
pub(crate) fn print_json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("write JSON")?;
    print(&format!("{text}\n"))
}

/// Columns, each as wide as its widest cell.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(&mut header.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// One line that counts, on a terminal only.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    total: usize,
    shown: bool,
}

impl Progress {
    pub(crate) fn new(what: &'static str, total: usize) -> Self {
        Self {
            what,
            total,
            shown: total > 50 && io::stderr().is_terminal(),
        }
    }

    pub(crate) fn at(&self, done: usize) {
        if self.shown && (done.is_multiple_of(20) || done == self.total) {
            eprint!("\r{} {done} of {}", self.what, self.total);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

/// How much of a copy is done, in one line on a terminal, and gone when it is over.
#[derive(Debug)]
pub(crate) struct Bar {
    terminal: bool,
    percent: Cell<Option<u64>>,
}

impl Bar {
    pub(crate) fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            percent: Cell::new(None),
        }
    }

    /// `done` of `all` bytes are done.
    pub(crate) fn at(&self, done: u64, all: u64) {
        let percent = done.saturating_mul(100) / all.max(1);
        if self.terminal && self.percent.replace(Some(percent)) != Some(percent) {
            eprint!("\r{} {percent:3} % of {}", drawn(percent), human(all));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.percent.get().is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

/// A bar of 40 characters.
fn drawn(percent: u64) -> String {
    const WIDTH: u64 = 40;
    let full = percent.min(100) * WIDTH / 100;
    let part = |count: u64, mark: &str| mark.repeat(usize::try_from(count).unwrap_or(0));
    format!("[{}{}]", part(full, "#"), part(WIDTH - full, " "))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_bar_is_always_equally_wide() {
        for percent in 0..=101 {
            assert_eq!(super::drawn(percent).len(), 42, "{percent}");
        }
        assert!(super::drawn(50).starts_with(&format!("[{} ", "#".repeat(20))));
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["a".to_owned(), "long".to_owned()],
            vec!["bbb".to_owned(), "x".to_owned()],
        ];
        assert_eq!(
            super::table(&["ID", "N"], &rows),
            "ID   N\na    long\nbbb  x\n"
        );
    }
}
