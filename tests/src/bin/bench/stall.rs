//! How long a writer waits at most when snapshots are cut under it.

use std::time::{Duration, Instant};

use anyhow::Result;
use tests::client::accepted;
use tests::fixture::Fixture;
use tests::requests;
use tests::scratch_fs::{FsKind, GIB, MIB};
use tests::writer::Writer;

use crate::disks::{self, Shape};
use crate::plan::Plan;
use crate::table::{Table, ms, verdict};

/// The writer keeps to the first part of the disk, so that it comes round and meets shared blocks.
const WRITTEN_BYTES: u64 = 256 * MIB;
/// Time from one cut to the next.
const PERIOD: Duration = Duration::from_millis(250);
/// What a snapshot may add: a fixed part, and one per extent that the cut has to walk.
const FIXED_MS: f64 = 50.0;
const EXTENT_MS: f64 = 0.05;

/// The table.
pub(crate) fn measure(plan: &Plan) -> Result<String> {
    let mut table = Table::new(&[
        "four writers, 4 KiB, direct",
        "longest wait without snapshots",
        "snapshots",
        "extents at the end",
        "longest wait with them",
        "limit",
        "within it",
    ]);
    for kind in FsKind::REFLINK {
        plan.next(&format!("{}: stall of a writer", kind.name()))?;
        table.row(&one_filesystem(plan, kind)?);
    }
    Ok(table.text().to_owned())
}

fn one_filesystem(plan: &Plan, kind: FsKind) -> Result<Vec<String>> {
    let fixture = Fixture::sized(kind, 24 * GIB);
    let volume = disks::make(&fixture, GIB, Shape::Full)?;
    let writer = Writer::start(&volume.target, WRITTEN_BYTES);
    writer.advance(10);
    let _start = writer.longest_stall();
    let phase = Duration::from_secs(2 * plan.seconds);
    wait_until(Instant::now() + phase);
    let without = writer.longest_stall();
    let (mut cuts, end) = (Vec::new(), Instant::now() + phase);
    while Instant::now() < end {
        let next = Instant::now() + PERIOD;
        let name = format!("bench-stall-{}", cuts.len());
        let request = requests::snapshot(&name, &volume.volume_id);
        cuts.push(fixture.csi.made_snapshot(request).snapshot_id);
        wait_until(next);
    }
    let with = writer.longest_stall();
    let _numbers = writer.stop();
    let extents = disks::extents(&fixture.image(&volume.volume_id))?;
    for cut in &cuts {
        accepted(fixture.csi.delete_cut(cut));
    }
    disks::remove(&fixture, &volume);
    let (without, with) = (without.as_secs_f64() * 1000.0, with.as_secs_f64() * 1000.0);
    #[expect(
        clippy::cast_precision_loss,
        reason = "a count of extents is far below 2^52"
    )]
    let limit = without + FIXED_MS + EXTENT_MS * extents as f64;
    Ok(vec![
        kind.name().to_owned(),
        ms(without),
        cuts.len().to_string(),
        extents.to_string(),
        ms(with),
        ms(limit),
        verdict(with <= limit).to_owned(),
    ])
}

/// The measured thing is what happens in this time.
fn wait_until(end: Instant) {
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
}
