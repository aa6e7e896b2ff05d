//! How much can be promised.
//!
//! At ratio 1.0, on XFS or ext4 with the pool alone on its filesystem, no guest ever sees ENOSPC, whatever it writes.
//! For that, the most that our files can ever come to hold has to fit. Two upper bounds of it are cheap to know:
//!
//! - by charge: a volume can hold its size, a snapshot what it held when it was cut, a deleted image that is not freed yet
//!   (somebody reads it) what it holds, and others what they hold now;
//! - by growth: what is used now, and every volume rewritten once, where everything it had stays with a snapshot.
//!
//! Both are sound, so the smaller one counts. `docs/on-disk-format.md` has the argument.

use std::fmt::{self, Display};
use std::str::FromStr;

use crate::error::{Error, ErrorKind};
use crate::size::{MIB, human};

/// What the administrator set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// How much may be promised for each byte there is. Above 1.0 nothing is promised.
    pub overcommit: f64,
    /// What is kept back for the filesystem's own metadata.
    pub reserve: Reserve,
}

/// A part of the filesystem that is never given out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reserve {
    /// Percent of the filesystem's size, 0 to 90.
    Percent(f64),
    /// Bytes.
    Bytes(u64),
}

/// What was measured and added up. All figures are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The filesystem's size.
    pub size: u64,
    /// What is used of it, by whomever.
    pub used: u64,
    /// The sum of the sizes of all volumes, those being made included.
    pub volume_sizes: u64,
    /// The sum of the charges of all snapshots, those being made included.
    pub snapshot_charges: u64,
    /// What operations under way will allocate at once without a volume's size covering it (copied snapshots, tables).
    pub pending: u64,
    /// What deleted images that are not freed yet have allocated: their blocks may be those of a volume, and stay theirs when it
    /// is rewritten.
    pub deleted: u64,
    /// A lower bound of what the images of our volumes and snapshots hold together, and those deleted ones, shared blocks counted
    /// once.
    pub ours: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            overcommit: 1.0,
            reserve: Reserve::Percent(10.0),
        }
    }
}

impl Figures {
    /// What is used by others: foreign files, filesystem metadata. An upper bound, because `ours` is a lower one.
    #[must_use]
    pub fn foreign(&self) -> u64 {
        self.used.saturating_sub(self.ours)
    }

    /// The most that may ever be held: the smaller of the two bounds.
    #[must_use]
    pub fn committed(&self) -> u64 {
        (self.charged() + self.foreign()).min(self.by_growth())
    }

    /// What all our images can come to hold, if none shared a block with another.
    #[must_use]
    pub fn charged(&self) -> u64 {
        self.volume_sizes + self.snapshot_charges + self.deleted
    }

    /// The bound that needs no look at any file.
    #[must_use]
    pub fn by_growth(&self) -> u64 {
        self.used + self.volume_sizes + self.pending
    }

    /// What may be committed under `policy`.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a ratio of bytes; float casts saturate and the error is far below one MiB"
    )]
    pub fn limit(&self, policy: &Policy) -> u64 {
        let reserve = match policy.reserve {
            Reserve::Percent(percent) => (self.size as f64 * percent / 100.0) as u64,
            Reserve::Bytes(bytes) => bytes,
        };
        let usable = self.size.saturating_sub(reserve);
        if (policy.overcommit - 1.0).abs() < f64::EPSILON {
            return usable;
        }
        (usable as f64 * policy.overcommit) as u64
    }

    /// What can still be promised, in whole MiB.
    #[must_use]
    pub fn available(&self, policy: &Policy) -> u64 {
        self.limit(policy).saturating_sub(self.committed()) / MIB * MIB
    }
}

/// The answer to a request of `wanted` bytes that does not fit, with the figures a person needs: those without it.
#[must_use]
pub fn refusal(wanted: u64, figures: &Figures, policy: &Policy) -> Error {
    let deleted = match figures.deleted {
        0 => String::new(),
        bytes => format!(
            "{} to deleted ones that somebody still reads, ",
            human(bytes)
        ),
    };
    Error::new(
        ErrorKind::NoSpace,
        format!(
            "the pool has no room for {}: it may promise {} of {} (overcommit {}, reserve {}), {} are promised to volumes, {} to snapshots, {deleted}{} are used by others, {} are used in all. Delete volumes or snapshots, or give the pool a larger disk",
            human(wanted),
            human(figures.limit(policy)),
            human(figures.size),
            policy.overcommit,
            policy.reserve,
            human(figures.volume_sizes),
            human(figures.snapshot_charges),
            human(figures.foreign()),
            human(figures.used),
        ),
    )
}

impl Display for Reserve {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(out, "{percent}%"),
            Self::Bytes(bytes) => out.write_str(&human(*bytes)),
        }
    }
}

impl FromStr for Reserve {
    type Err = String;

    /// Reads `10%`, `5GiB`, `512MiB` or a number of bytes.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!("{text:?} is no reserve: give a percentage from 0% to 90%, or a size like 5GiB")
        };
        if let Some(percent) = text.strip_suffix('%') {
            let value: f64 = percent.trim().parse().map_err(|_no_number| bad())?;
            return (0.0..=90.0)
                .contains(&value)
                .then_some(Self::Percent(value))
                .ok_or_else(bad);
        }
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("", 0)];
        for (unit, shift) in units {
            let Some(number) = text.strip_suffix(unit) else {
                continue;
            };
            let value: u64 = number.trim().parse().map_err(|_no_number| bad())?;
            return value
                .checked_mul(1 << shift)
                .map(Self::Bytes)
                .ok_or_else(bad);
        }
        Err(bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size::GIB;

    fn figures() -> Figures {
        Figures {
            size: 100 * GIB,
            used: GIB,
            ours: 0,
            ..Figures::default()
        }
    }

    #[test]
    fn a_thin_volume_is_charged_its_whole_size() {
        let figures = Figures {
            volume_sizes: 40 * GIB,
            ..figures()
        };
        assert_eq!(figures.committed(), 41 * GIB);
        assert_eq!(figures.available(&Policy::default()), 49 * GIB);
    }

    #[test]
    fn blocks_of_a_written_volume_are_not_charged_twice() {
        let figures = Figures {
            volume_sizes: 40 * GIB,
            used: 41 * GIB,
            ours: 40 * GIB,
            ..figures()
        };
        assert_eq!(figures.committed(), 41 * GIB);
    }

    #[test]
    fn many_snapshots_of_an_idle_disk_are_cheap() {
        let figures = Figures {
            volume_sizes: 10 * GIB,
            snapshot_charges: 500 * GIB,
            used: 11 * GIB,
            ours: 10 * GIB,
            ..figures()
        };
        assert_eq!(figures.committed(), 21 * GIB);
    }

    #[test]
    fn rewritten_volumes_under_old_snapshots_count_by_charge() {
        let figures = Figures {
            volume_sizes: 40 * GIB,
            snapshot_charges: 40 * GIB,
            used: 81 * GIB,
            ours: 80 * GIB,
            ..figures()
        };
        assert_eq!(figures.committed(), 81 * GIB);
    }

    #[test]
    fn a_deleted_image_that_is_still_read_keeps_what_its_volume_rewrites() {
        let figures = Figures {
            volume_sizes: 40 * GIB,
            deleted: 40 * GIB,
            used: 41 * GIB,
            ours: 40 * GIB,
            ..figures()
        };
        assert_eq!(figures.committed(), 81 * GIB);
        let text = refusal(GIB, &figures, &Policy::default()).to_string();
        let said = "40.0 GiB are promised to volumes, 0 B to snapshots, 40.0 GiB to deleted ones that somebody still reads, \
                    1.0 GiB are used by others, 41.0 GiB are used in all";
        assert!(text.contains(said), "{text}");
    }

    #[test]
    fn nothing_is_available_in_a_full_pool() {
        let figures = Figures {
            used: 100 * GIB,
            ..figures()
        };
        assert_eq!(figures.available(&Policy::default()), 0);
    }

    #[test]
    fn a_reserve_is_a_percentage_or_a_size() {
        assert_eq!("10%".parse(), Ok(Reserve::Percent(10.0)));
        assert_eq!("5GiB".parse(), Ok(Reserve::Bytes(5 * GIB)));
        assert_eq!("4096".parse(), Ok(Reserve::Bytes(4096)));
        for bad in ["", "%", "-1%", "91%", "5GB", "x", "99999999999999TiB"] {
            assert!(bad.parse::<Reserve>().is_err(), "{bad}");
        }
    }
}
