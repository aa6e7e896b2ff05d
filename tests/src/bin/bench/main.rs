//! `make bench`: speed and size beside what people use today, as Markdown for `docs/performance.md`.
//!
//! Every figure is a median, and what is compared is measured in turns in the same run, because
//! machines differ and change: the ratios are the result. `--quick` takes smaller disks and fewer
//! rounds. Names of tables (`copies`, `unshared`, `stall`, `server`, `images`,
//! `compression`, `throughput`) choose what is measured.

mod compression;
mod copies;
mod disks;
mod images;
mod plan;
mod server;
mod stall;
mod table;
mod throughput;
mod unshared;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::statvfs::statvfs;

use crate::plan::Plan;

/// A name, a heading, and what fills the table.
type Chapter = (&'static str, &'static str, fn(&Plan) -> Result<String>);

const CHAPTERS: [Chapter; 7] = [
    (
        "copies",
        "Snapshot and restore beside other ways to copy a disk",
        copies::measure,
    ),
    (
        "unshared",
        "Snapshot and restore where blocks cannot be shared (ext4)",
        unshared::measure,
    ),
    ("stall", "How long a writer waits", stall::measure),
    ("server", "The server", server::measure),
    ("images", "The strict check of images", images::measure),
    ("compression", "Compressed images", compression::measure),
    ("throughput", "I/O of a Block volume", throughput::measure),
];

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some((_peak_of, command)) = words
        .split_first()
        .filter(|words| words.0 == images::PEAK_OF)
    {
        return images::peak_of(command);
    }
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "bench: FAILED: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let (mut plan, mut chosen) = (Plan::whole(), Vec::new());
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => plan = Plan::quick(),
            name if CHAPTERS.iter().any(|chapter| chapter.0 == name) => chosen.push(argument),
            other => {
                bail!(
                    "{other}: give --quick, or tables: copies unshared stall server images compression throughput"
                )
            }
        }
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "loop devices and mounts need root"
    );
    let folder = std::env::temp_dir();
    let stat = statvfs(&folder)?;
    let free = stat.blocks_available() * stat.fragment_size();
    ensure!(
        free >= plan.needed_bytes(),
        "{} has {} GiB free, this needs {}: name another folder with TMPDIR, or take --quick",
        folder.display(),
        free >> 30,
        plan.needed_bytes() >> 30
    );
    plan.listen()?;
    print(&machine()?)?;
    for (name, heading, measure) in CHAPTERS {
        if chosen.is_empty() || chosen.iter().any(|one| one == name) {
            let table = measure(&plan).with_context(|| heading.to_owned())?;
            print(&format!("## {heading}\n\n{table}"))?;
        }
    }
    Ok(())
}

/// What it ran on, and whether it had that for itself.
fn machine() -> Result<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let cpus = std::thread::available_parallelism()?;
    Ok(format!(
        "{cpus} processors, Linux {}; each pool lies on a filesystem in a sparse file. Load when it began: {load} \
         (figures from a machine that others use meanwhile mean little).\n",
        release.trim()
    ))
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
