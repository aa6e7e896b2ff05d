//! How much is measured.

use std::io::Write as _;

use tests::scratch_fs::GIB;

/// See the module.
pub(crate) struct Plan {
    /// Sizes of the disks that are copied.
    pub(crate) disk_bytes: &'static [u64],
    /// Rounds of what takes milliseconds.
    pub(crate) rounds: usize,
    /// Seconds of each fio run and of each phase of the stall.
    pub(crate) seconds: u64,
    /// Rounds of fio.
    pub(crate) fio_rounds: usize,
    /// Volumes that are created to find the rate.
    pub(crate) volumes: usize,
    quick: bool,
}

impl Plan {
    pub(crate) fn whole() -> Self {
        Self {
            disk_bytes: &[GIB, 10 * GIB],
            rounds: 9,
            seconds: 4,
            fio_rounds: 5,
            volumes: 200,
            quick: false,
        }
    }

    pub(crate) fn quick() -> Self {
        Self {
            disk_bytes: &[GIB],
            rounds: 5,
            seconds: 1,
            fio_rounds: 3,
            volumes: 60,
            quick: true,
        }
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

    /// Progress goes to standard error, so that standard output is the report alone.
    #[expect(clippy::unused_self, reason = "reads as what the plan is at")]
    pub(crate) fn say(&self, text: &str) {
        drop(writeln!(std::io::stderr(), "bench: {text}"));
    }
}
