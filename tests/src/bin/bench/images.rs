//! How long the strict check of an image takes, and how much memory.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use tests::scratch_fs::GIB;
use tests::{binaries, tools};

use crate::plan::Plan;
use crate::table::{Table, median, median_ms, ms, verdict};

/// A word in front of a command line: this program then runs it and prints the memory and the time it took. A process of its
/// own, because the kernel keeps the most of all children of one.
pub(crate) const PEAK_OF: &str = "peak-of";
const TIME_LIMIT_MS: f64 = 300.0;
const MEMORY_LIMIT_MIB: f64 = 32.0;

/// The images: a name, the size of the disk, and options of `qemu-img create`. All are mapped from end to end, by tables
/// that `qemu-img` made; only tables are read.
const IMAGES: [(&str, u64, &str); 3] = [
    ("50 GiB, clusters of 64 KiB", 50 * GIB, "cluster_size=64k"),
    ("50 GiB, clusters of 2 MiB", 50 * GIB, "cluster_size=2M"),
    ("50 GiB, clusters of 4 KiB", 50 * GIB, "cluster_size=4k"),
];

/// The table.
pub(crate) fn measure(plan: &Plan) -> Result<String> {
    let mut table = Table::new(&[
        "fully mapped image",
        "`vdctl image check`",
        "memory",
        "at most 300 ms and 32 MiB",
        "`qemu-img check`",
    ]);
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("image.qcow2");
    for (name, bytes, options) in IMAGES {
        plan.next(&format!("strict check of {name}"))?;
        let options = format!("{options},preallocation=metadata");
        let path = text(&image)?;
        let _out = tools::run(
            "qemu-img",
            &[
                "create",
                "-q",
                "-f",
                "qcow2",
                "-o",
                &options,
                path,
                &bytes.to_string(),
            ],
        );
        let (mut ours, mut memory, mut qemus) = (Vec::new(), Vec::new(), Vec::new());
        for _round in 0..plan.rounds {
            plan.go_on()?;
            let vdctl = binaries::shipped();
            let check = [text(&vdctl)?, "image", "check", path];
            let check = taken(&check)?;
            ours.push(check.time);
            memory.push(check.mib);
            qemus.push(taken(&["qemu-img", "check", "-q", "-f", "qcow2", path])?.time);
        }
        let (time, memory) = (median_ms(&ours), median(&memory));
        // The limits are for the usual cluster size.
        let holds = time <= TIME_LIMIT_MS && memory <= MEMORY_LIMIT_MIB;
        let limited = options.starts_with("cluster_size=64k");
        table.row(&[
            name,
            &ms(time),
            &format!("{memory:.1} MiB"),
            if limited { verdict(holds) } else { "" },
            &ms(median_ms(&qemus)),
        ]);
        std::fs::remove_file(&image)?;
    }
    Ok(table.text().to_owned())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

/// What a command took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) time: Duration,
    /// The most memory that it had resident, in MiB.
    pub(crate) mib: f64,
}

/// Runs a command once: how long it took, and how much memory.
pub(crate) fn taken(words: &[&str]) -> Result<Taken> {
    let output = Command::new(std::env::current_exe()?)
        .arg(PEAK_OF)
        .args(words)
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{words:?} ended with {}: {error}",
        output.status
    );
    let said = String::from_utf8(output.stdout)?;
    let (kib, micros) = said.trim().split_once(' ').context("two figures")?;
    Ok(Taken {
        time: Duration::from_micros(micros.parse()?),
        mib: kib.parse::<f64>()? / 1024.0,
    })
}

/// As [`taken`], and the time of a sync of the file that it made: ours sync theirs too.
pub(crate) fn taken_with_sync(words: &[&str], file: &str) -> Result<Taken> {
    let mut taken = taken(words)?;
    let started = Instant::now();
    File::open(file)?.sync_all()?;
    taken.time += started.elapsed();
    Ok(taken)
}

/// Runs a command and prints the KiB of memory that it took, and the microseconds.
pub(crate) fn peak_of(words: &[OsString]) -> ExitCode {
    let Some((program, arguments)) = words.split_first() else {
        return ExitCode::FAILURE;
    };
    let started = Instant::now();
    let ran = Command::new(program).args(arguments).output();
    let took = started.elapsed().as_micros();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN);
    match (ran, usage) {
        (Ok(output), Ok(usage)) if output.status.success() => {
            drop(writeln!(std::io::stdout(), "{} {took}", usage.max_rss()));
            ExitCode::SUCCESS
        }
        (Ok(output), _) => {
            drop(std::io::stderr().write_all(&output.stderr));
            ExitCode::FAILURE
        }
        _ => ExitCode::FAILURE,
    }
}
