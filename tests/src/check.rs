//! `vdctl pool check`, which every test ends with.

use std::path::Path;

use crate::tools::{self, Ran};
use crate::{binaries, kubelet};

/// Runs `vdctl pool check` on `pool` and says how it ended.
#[must_use]
pub fn run(pool: &Path) -> Ran {
    let pool = kubelet::text(pool);
    tools::attempt(binaries::shipped(), &["pool", "check", "--pool", &pool])
}

/// The check must find nothing.
#[track_caller]
pub fn clean(pool: &Path) {
    let ran = run(pool);
    assert!(ran.code == Some(0), "the pool is not clean: {ran}");
}

/// The check must find something; returns what it said.
#[track_caller]
pub fn finds(pool: &Path) -> String {
    let ran = run(pool);
    assert!(ran.code == Some(1), "the check must find something: {ran}");
    format!("{}{}", ran.out, ran.err)
}
