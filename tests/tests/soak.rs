//! Random operations under random crashes: a few in every run of the tests, as many as fit into `VD_SOAK_MINUTES` minutes
//! with `make soak`. `VD_SOAK_SEED` repeats a run that failed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    reason = "tests: a panic is how they report, and seeds are printed"
)]

use std::time::{Duration, Instant, SystemTime};

use tests::crash::soak;
use tests::scratch_fs::{FsKind, GIB, ScratchFs};

/// Crashes of one seed.
const ROUNDS: u64 = 12;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text:?} is no number")),
    )
}

#[test]
fn random_crashes_lose_nothing_that_was_acknowledged() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let first = number("VD_SOAK_SEED").unwrap_or_else(|| now.unwrap().as_secs());
    let end =
        number("VD_SOAK_MINUTES").map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let fs = ScratchFs::new(FsKind::Xfs, 24 * GIB);
    let mut seed = first;
    // Odd seeds lose power, even ones have a pod that writes.
    while seed < first + 2 || end.is_some_and(|end| Instant::now() < end) {
        println!("VD_SOAK_SEED={seed}");
        let began = Instant::now();
        let at = usize::try_from(seed - first).unwrap();
        let tally = soak::run(&fs, at, seed, ROUNDS);
        println!("{tally:?} in {:.1} s", began.elapsed().as_secs_f64());
        seed += 1;
    }
}
