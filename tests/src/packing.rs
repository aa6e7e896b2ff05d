//! Snapshots that the server compresses in the background, as their records tell of it.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{records, wait};

/// How long the compression of a small disk may take on a busy machine: it gives way to everybody else, so this is only the end of
/// a test that hangs.
pub const LIMIT: Duration = Duration::from_secs(600);

/// What is said of a snapshot's compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Nothing: it was never asked for.
    None,
    /// It is to be done.
    Wanted,
    /// It is done.
    Done,
}

/// What the record says; `None` when there is none at this moment, or its disk is gone.
#[must_use]
pub fn of(pool: &Path, snapshot_id: &str) -> Option<Packing> {
    let path = records::of_snapshot(pool, snapshot_id);
    let text = std::fs::read_to_string(path).ok()?;
    let (_, json) = text.split_once('\n').expect("a record has two lines");
    let record: Value = serde_json::from_str(json).expect("a record's body is JSON");
    Some(match record.get("packing") {
        None => Packing::None,
        Some(packing) if *packing == json!({"wanted": "zstd"}) => Packing::Wanted,
        Some(packing) => {
            assert_eq!(packing["done"]["compression"], "zstd", "{packing}");
            Packing::Done
        }
    })
}

/// Waits until the snapshot is compressed.
#[track_caller]
pub fn wait(pool: &Path, snapshot_id: &str) -> Duration {
    let started = Instant::now();
    let done = wait::holds_within(LIMIT, || of(pool, snapshot_id) == Some(Packing::Done));
    assert!(done, "{snapshot_id} is not compressed");
    started.elapsed()
}
