//! How many volumes are created in a second, and how much memory the server takes.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use tests::client::accepted;
use tests::fixture::Fixture;
use tests::requests;
use tests::scratch_fs::{FsKind, MIB};

use crate::plan::Plan;
use crate::table::{Table, verdict};

/// Volumes per second at least, of all callers together: one caller alone waits for the disk most of the time.
const RATE_LIMIT: f64 = 50.0;
/// KiB of memory at most when the server has nothing to do.
const MEMORY_LIMIT_KIB: u64 = 16 << 10;
/// Callers at once.
const CALLERS: usize = 8;

/// The table.
pub(crate) fn measure(plan: &Plan) -> Result<String> {
    let mut table = Table::new(&[
        "`vdctl serve`",
        "CreateVolume, one after the other",
        "8 callers at once",
        "at least 50/s",
        "memory when idle",
        "with the volumes",
        "idle at most 16 MiB",
    ]);
    for kind in FsKind::ALL {
        plan.next(&format!("{}: CreateVolume per second", kind.name()))?;
        let fixture = Fixture::on(kind);
        let idle = resident_kib(fixture.server.pid())?;
        let alone = rate(&fixture, "one", plan.volumes, 1);
        let together = rate(&fixture, "all", plan.volumes, CALLERS);
        let after = resident_kib(fixture.server.pid())?;
        for id in fixture.csi.volume_ids() {
            accepted(fixture.csi.delete(&id));
        }
        table.row(&[
            format!("pool on {}", kind.name()),
            format!("{alone:.0}/s"),
            format!("{together:.0}/s"),
            verdict(together >= RATE_LIMIT).to_owned(),
            mib(idle),
            mib(after),
            verdict(idle <= MEMORY_LIMIT_KIB).to_owned(),
        ]);
    }
    Ok(table.text().to_owned())
}

/// Creates `volumes` volumes by `callers` at once, each with a connection of its own.
fn rate(fixture: &Fixture, name: &str, volumes: usize, callers: usize) -> f64 {
    let clients: Vec<_> = (0..callers)
        .map(|_caller| fixture.server.client())
        .collect();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for (caller, client) in clients.iter().enumerate() {
            let _joined_at_the_end = scope.spawn(move || {
                for number in (caller..volumes).step_by(callers) {
                    let name = format!("bench-{name}-{number}");
                    let request = requests::volume(&name, 10 * MIB, requests::block());
                    let _volume = client.made_volume(request);
                }
            });
        }
    });
    #[expect(clippy::cast_precision_loss, reason = "hundreds")]
    let volumes = volumes as f64;
    volumes / started.elapsed().as_secs_f64()
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .context("no VmRSS")?;
    Ok(kib.parse()?)
}

fn mib(kib: u64) -> String {
    format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024)
}
