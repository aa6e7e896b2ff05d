//! What was written through a loop device, as the kernel counts it.

use std::fs;

use super::LoopDevice;
use crate::error::{Context, Error, ErrorKind, Result};

/// Counters of everything that changes what a device holds. If two are [quiet](Self::is_quiet) and equal, nothing that was
/// written through the device took effect between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writes {
    written: u64,
    sectors_written: u64,
    discarded: u64,
    sectors_discarded: u64,
    in_flight: u64,
}

impl Writes {
    /// Nothing is on its way that may or may not have taken effect already.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.in_flight == 0
    }
}

/// The counters of `device`; `None` where the kernel was told not to count.
///
/// What is on its way is read before what has ended: so a write that ends between the two is seen in one of them at least.
///
/// # Errors
/// `Io` when sysfs cannot be read, also when the device is gone; `Internal` when it is not understood.
pub fn writes(device: &LoopDevice) -> Result<Option<Writes>> {
    let read = |name: &str| {
        let path = format!("/sys/block/loop{}/{name}", device.number);
        fs::read_to_string(&path).context_with(|| format!("read {path}"))
    };
    if read("queue/iostats")?.trim() == "0" {
        return Ok(None);
    }
    let in_flight = read("inflight")?;
    let ended = read("stat")?;
    parse(&in_flight, &ended).map(Some).ok_or_else(|| {
        Error::new(
            ErrorKind::Internal,
            format!(
                "the counters of loop{} are not understood: {in_flight:?}, {ended:?}",
                device.number
            ),
        )
    })
}

/// `inflight` holds reads and writes; `stat` what the kernel's documentation `block/stat.rst` says, from which the 5th and 7th
/// number are of writes, the 12th and 14th of discards.
fn parse(in_flight: &str, ended: &str) -> Option<Writes> {
    let numbers = |text: &str| -> Option<Vec<u64>> {
        text.split_whitespace()
            .map(|word| word.parse().ok())
            .collect()
    };
    let (in_flight, ended) = (numbers(in_flight)?, numbers(ended)?);
    Some(Writes {
        written: *ended.get(4)?,
        sectors_written: *ended.get(6)?,
        discarded: *ended.get(11)?,
        sectors_discarded: *ended.get(13)?,
        in_flight: *in_flight.get(1)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "     8   0    64    1    5    1    40    9    0   10   11    2    0   16   3   7   4\n";

    #[test]
    fn writes_and_discards_are_told_from_reads_and_flushes() {
        let before = parse("       3        0\n", STAT).unwrap();
        assert!(before.is_quiet());
        assert_eq!(
            (
                before.written,
                before.sectors_written,
                before.discarded,
                before.sectors_discarded
            ),
            (5, 40, 2, 16)
        );
        let reads_and_flushes = STAT.replace("    8 ", "  900 ").replace(" 7 ", " 800 ");
        assert_eq!(parse("0 0", &reads_and_flushes), Some(before));
        assert_ne!(parse("0 0", &STAT.replace("  5 ", "  6 ")), Some(before));
        assert!(!parse("0 1", STAT).unwrap().is_quiet());
    }

    #[test]
    fn what_is_not_understood_is_no_proof() {
        for (in_flight, ended) in [
            ("", STAT),
            ("0", STAT),
            ("0 x", STAT),
            ("0 0", ""),
            ("0 0", "1 2 3 4 5 6 7"),
        ] {
            assert_eq!(parse(in_flight, ended), None);
        }
    }
}
