//! How much is measured.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use tests::scratch_fs::GIB;
use tokio::signal::unix::{SignalKind, signal};

/// See the module.
pub(crate) struct Plan {
    /// Sizes of the disks that are copied.
    pub(crate) disk_bytes: &'static [u64],
    /// Rounds of what takes milliseconds.
    pub(crate) rounds: usize,
    /// Seconds of each phase of the stall.
    pub(crate) seconds: u64,
    /// Seconds of each fio run.
    pub(crate) fio_seconds: u64,
    /// Rounds of fio.
    pub(crate) fio_rounds: usize,
    /// Volumes that are created to find the rate.
    pub(crate) volumes: usize,
    quick: bool,
    stopped: Arc<AtomicBool>,
}

impl Plan {
    pub(crate) fn whole() -> Self {
        Self {
            disk_bytes: &[GIB, 10 * GIB],
            rounds: 9,
            seconds: 4,
            fio_seconds: 1,
            fio_rounds: 15,
            volumes: 200,
            quick: false,
            stopped: Arc::default(),
        }
    }

    pub(crate) fn quick() -> Self {
        Self {
            disk_bytes: &[GIB],
            rounds: 5,
            seconds: 1,
            fio_seconds: 1,
            fio_rounds: 5,
            volumes: 60,
            quick: true,
            stopped: Arc::default(),
        }
    }

    /// Smaller disks and fewer rounds.
    pub(crate) fn is_quick(&self) -> bool {
        self.quick
    }

    /// How often each variant of `qemu-img convert` copies a disk of `bytes`.
    pub(crate) fn converts(&self, bytes: u64) -> usize {
        if self.quick || bytes > GIB { 1 } else { 3 }
    }

    /// Bytes that must be free where temporary files lie.
    pub(crate) fn needed_bytes(&self) -> u64 {
        // The largest disk, a copy of it by qemu-img, and what a snapshot holds of it while it is fragmented.
        self.disk_bytes
            .iter()
            .max()
            .map_or(0, |largest| 2 * largest + 6 * GIB)
    }

    /// Says what is measured next. Progress goes to standard error, so that standard output is the report alone.
    ///
    /// # Errors
    /// When the bench was told to stop: what it made is taken away as the error goes up.
    pub(crate) fn next(&self, what: &str) -> Result<()> {
        self.go_on()?;
        drop(writeln!(std::io::stderr(), "bench: {what}"));
        Ok(())
    }

    /// To be asked between two pieces of work.
    ///
    /// # Errors
    /// When the bench was told to stop.
    pub(crate) fn go_on(&self) -> Result<()> {
        ensure!(!self.stopped.load(Ordering::Relaxed), "stopped by a signal");
        Ok(())
    }

    /// From now on a Ctrl-C or SIGTERM lets the piece of work end and then everything be taken away.
    ///
    /// # Errors
    /// When signals cannot be listened for.
    pub(crate) fn listen(&self) -> Result<()> {
        let stopped = Arc::clone(&self.stopped);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            )
        };
        let _for_as_long_as_the_bench_runs = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _told = interrupt.recv() => {}
                    _told = terminate.recv() => {}
                }
            });
            stopped.store(true, Ordering::Relaxed);
        });
        Ok(())
    }
}
