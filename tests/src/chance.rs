//! Chance that can be repeated, and how long it may go on.

use std::ops::Range;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Random numbers that follow from a seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // A seed of zero would give zeros only; small seeds, similar beginnings.
        let mut made = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _warm_up in 0..8 {
            let _number = made.next_number();
        }
        made
    }

    fn next_number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number in `range`, which is not empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + (self.next_number() >> 11) % (range.end - range.start)
    }

    /// Yes, `percent` times of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.within(0..100) < percent
    }

    /// A place in a list of `length`, which is not empty.
    pub fn place(&mut self, length: usize) -> usize {
        let place = self.within(0..length as u64);
        usize::try_from(place).expect("a place in a list")
    }
}

/// The seed of this run: `VD_SEED`, else another one each time. It is printed, so that a failure can be repeated.
#[must_use]
pub fn seed(test: &str) -> u64 {
    let chosen = std::env::var("VD_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed = chosen.unwrap_or_else(|| {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::from(now.subsec_nanos())
    });
    eprintln!("{test}: VD_SEED={seed}");
    seed
}

/// How often a test does its thing: `usual` times, or for as long as `VD_SOAK_MINUTES` says if that is longer.
#[derive(Debug)]
pub struct Rounds {
    usual: usize,
    end: Instant,
    done: usize,
}

impl Rounds {
    /// At least `usual` rounds.
    #[must_use]
    pub fn new(usual: usize) -> Self {
        let minutes = std::env::var("VD_SOAK_MINUTES").ok();
        let minutes: u64 = minutes.and_then(|text| text.parse().ok()).unwrap_or(0);
        Self {
            usual,
            end: Instant::now() + Duration::from_secs(60 * minutes),
            done: 0,
        }
    }
}

impl Iterator for Rounds {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let more = self.done < self.usual || Instant::now() < self.end;
        self.done += 1;
        more.then_some(self.done - 1)
    }
}
