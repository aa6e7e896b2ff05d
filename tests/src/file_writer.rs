//! A process that keeps adding files to a mounted filesystem and knows which of them are safe.
//!
//! File n is `f-<n>`, its content follows from n, and it counts as safe when the file and its folder were synced.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::{content, wait};

const FILE_BYTES: usize = 8192;

/// A writer of files at work.
#[derive(Debug)]
pub struct FileWriter {
    stop: Arc<AtomicBool>,
    safe: Arc<AtomicU64>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl FileWriter {
    /// Starts to add files to `folder`.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let safe = Arc::new(AtomicU64::new(0));
        let thread = std::thread::spawn({
            let (folder, stop, safe) = (folder.to_owned(), Arc::clone(&stop), Arc::clone(&safe));
            move || write_on(&folder, &stop, &safe)
        });
        Self {
            stop,
            safe,
            thread: Some(thread),
        }
    }

    /// Files up to this number are synced.
    #[must_use]
    pub fn safe(&self) -> u64 {
        self.safe.load(Ordering::SeqCst)
    }

    /// Waits until `more` further files are safe.
    #[track_caller]
    pub fn advance(&self, more: u64) {
        let before = self.safe();
        wait::until("the file writer goes on", Duration::from_secs(60), || {
            assert!(!self.has_ended(), "it has stopped at {}", self.safe());
            self.safe() >= before + more
        });
    }

    /// Stops it; files up to the returned number are safe. Every write must have succeeded.
    #[track_caller]
    pub fn stop(mut self) -> u64 {
        let result = self.end();
        let safe = self.safe();
        result.unwrap_or_else(|error| panic!("the file writer failed after {safe} files: {error}"));
        safe
    }

    fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn end(&mut self) -> io::Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        match self.thread.take() {
            Some(thread) => thread.join().expect("the writing thread does not panic"),
            None => Ok(()),
        }
    }
}

/// A test that fails must not leave a writer that goes on in the folder under the mount, once that is taken away.
impl Drop for FileWriter {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("the file writer failed: {error}");
        }
    }
}

fn write_on(folder: &Path, stop: &AtomicBool, safe: &AtomicU64) -> io::Result<()> {
    let parent = File::open(folder)?;
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        let mut file = File::create_new(path(folder, number))?;
        file.write_all(&bytes(number))?;
        file.sync_all()?;
        parent.sync_all()?;
        safe.store(number, Ordering::SeqCst);
    }
    Ok(())
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("f-{number:08}"))
}

fn bytes(number: u64) -> Vec<u8> {
    content::pattern(&number.to_string(), FILE_BYTES)
}

/// Proves that every file up to `last` is in `folder` and whole.
///
/// # Errors
/// A sentence that names the first that is missing or differs.
pub fn verify(folder: &Path, last: u64) -> Result<(), String> {
    for number in 1..=last {
        let path = path(folder, number);
        match std::fs::read(&path) {
            Ok(found) if found == bytes(number) => {}
            Ok(_) => return Err(format!("{} differs", path.display())),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    Ok(())
}
