//! `make bench-snapshots`: how long VolumeSnapshots take with our snapshot controller and with the two upstream programs, and what
//! those need, as Markdown for `docs/performance.md`.
//!
//! Each side has a real API server of its own and `vdctl serve` on XFS as the driver, one side after the other. Times are those of
//! a watch: from the request that makes a VolumeSnapshot to the event that shows it ready. Calls are those that the API server has
//! written down. All programs run with their default flags, with leader election, as they are deployed.

mod calls;
mod filling;
mod measure;
mod objects;
mod plane;
mod programs;
mod table;
mod watch;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use tests::fixture::Fixture;
use tests::requests;
use tests::scratch_fs::{FsKind, MIB};

use crate::measure::{Figures, Plan, measure};
use crate::plane::Plane;
use crate::programs::Side;

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(
                std::io::stderr(),
                "bench-snapshots: FAILED: {error:#}"
            ));
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let plan = Plan::new(std::env::args().any(|argument| argument == "--quick"));
    let ours = side(Side::Ours, &plan)?;
    let upstream = side(Side::Upstream, &plan)?;
    let text = table::of(&plan, &ours, &upstream);
    writeln!(std::io::stdout(), "{text}").context("print the table")
}

/// One side on a new API server and a new pool.
fn side(side: Side, plan: &Plan) -> Result<Figures> {
    let fixture = Fixture::on(FsKind::Xfs);
    let volume = fixture
        .csi
        .made_volume(requests::volume("bench", 16 * MIB, requests::block()));
    let plane = Plane::start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let socket = fixture.server.setup().socket.clone();
    let measured = runtime.block_on(measure(side, plan, &plane, &socket, &volume.volume_id));
    drop(runtime);
    fixture
        .csi
        .delete(&volume.volume_id)
        .context("delete the volume: a snapshot is left")?;
    measured
}

/// What is being done, for those who wait.
fn note(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}
