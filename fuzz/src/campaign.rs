//! Many mutated images through the strict reader: none may make it panic, slow or large, and what it accepts reads as
//! `qemu-img` reads it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use snapshot_engine::reader::{Content, Reason, check};

use crate::anatomy::Anatomy;
use crate::mutation::Change;
use crate::seeds::{RECIPES, make};
use crate::targets::{image_file, in_memory};

/// How large a campaign is.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The number of the first mutation.
    pub first: u64,
    /// How many mutations.
    pub images: u64,
    /// Of so many accepted images one is compared with what `qemu-img` reads.
    pub compare_one_in: u64,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many images there were.
    pub images: u64,
    /// How many were accepted.
    pub accepted: u64,
    /// How many of them were compared with `qemu-img`.
    pub compared: u64,
    /// How many were refused for each reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// The most processor time that one took, and its number.
    pub slowest: (Duration, u64),
    /// What must not be: panics and disagreements, with their numbers.
    pub broken: Vec<String>,
}

struct Seed {
    name: &'static str,
    file: File,
    anatomy: Anatomy,
}

/// The seeds, in memory, made in `folder`.
fn seeds(folder: &Path) -> Vec<Seed> {
    let seed = |recipe| {
        let bytes = std::fs::read(make(recipe, folder)).expect("read a seed");
        let file = in_memory(&bytes);
        Seed {
            name: recipe.name,
            anatomy: Anatomy::of(&file),
            file,
        }
    };
    RECIPES.iter().map(seed).collect()
}

/// Runs a campaign; what it needs on disk lies in `folder`.
#[must_use]
pub fn run(plan: Plan, folder: &Path) -> Summary {
    let seeds = seeds(folder);
    let mut summary = Summary::default();
    for number in plan.first..plan.first + plan.images {
        let place = usize::try_from(number).unwrap_or(0) % seeds.len();
        let seed = &seeds[place];
        let change = Change::number(number, &seed.anatomy, &seed.file);
        let undo = change.apply(&seed.file);
        one(&mut summary, plan, number, seed, &change, folder);
        undo.apply(&seed.file);
    }
    summary
}

fn one(
    summary: &mut Summary,
    plan: Plan,
    number: u64,
    seed: &Seed,
    change: &Change,
    folder: &Path,
) {
    let broken = |what: &str| {
        format!(
            "number {number}, {} with {:?}: {what}",
            seed.name, change.what
        )
    };
    let before = processor_time();
    let verdict = catch_unwind(AssertUnwindSafe(|| image_file(&seed.file)));
    let taken = processor_time().saturating_sub(before);
    summary.images += 1;
    summary.slowest = summary.slowest.max((taken, number));
    match verdict {
        Ok(Ok(())) => {
            summary.accepted += 1;
            if summary.accepted.is_multiple_of(plan.compare_one_in) {
                summary.compared += 1;
                if let Err(difference) = compare(&seed.file, folder) {
                    summary.broken.push(broken(&difference));
                }
            }
        }
        Ok(Err(reason)) => *summary.refused.entry(Reason::name(reason)).or_default() += 1,
        Err(_panic) => summary.broken.push(broken("panicked")),
    }
}

/// The processor time of this thread: a busy machine does not look like a slow reader.
#[must_use]
pub fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map(Duration::from)
        .unwrap_or_default()
}

/// Compares what we read of an accepted image with what `qemu-img convert` makes of it in `folder`.
///
/// # Errors
/// The difference.
pub fn compare(image: &File, folder: &Path) -> Result<(), String> {
    use std::os::fd::AsRawFd;
    let raw = folder.join("qemu.raw");
    let path = format!("/proc/{}/fd/{}", std::process::id(), image.as_raw_fd());
    let output = Command::new("qemu-img")
        .args(["convert", "-U", "-f", "qcow2", "-O", "raw", &path])
        .arg(&raw)
        .output()
        .expect("run qemu-img");
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("accepted, but qemu-img says: {error}"));
    }
    let theirs = File::open(&raw).expect("open what qemu-img made");
    let same = same_disk(image, &theirs);
    std::fs::remove_file(&raw).expect("remove what qemu-img made");
    same
}

/// Compares our disk with a raw one: all that is data for us, and all that is data in the raw file.
fn same_disk(image: &File, raw: &File) -> Result<(), String> {
    let mut ours = check(image).map_err(|failure| failure.to_string())?;
    let bytes = raw.metadata().expect("look at a raw disk").len();
    if bytes != ours.facts().virtual_bytes {
        return Err(format!("qemu-img reads a disk of {bytes} bytes"));
    }
    let runs: Vec<_> = ours
        .runs()
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    let data = runs
        .iter()
        .filter(|run| run.content != Content::Zero)
        .map(|run| (run.start, run.start + run.bytes));
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for (start, end) in data.chain(data_of(raw)) {
        for at in (start..end).step_by(1 << 20) {
            let length = usize::try_from((end - at).min(1 << 20)).unwrap_or(0);
            one.resize(length, 0);
            other.resize(length, 0);
            ours.read_at(at, &mut one)
                .map_err(|error| error.to_string())?;
            raw.read_exact_at(&mut other, at).expect("read a raw disk");
            if let Some(place) = one.iter().zip(&other).position(|(one, other)| one != other) {
                return Err(format!(
                    "byte {} of the disk is another one for qemu-img",
                    at + place as u64
                ));
            }
        }
    }
    Ok(())
}

/// Where a file has data.
fn data_of(file: &File) -> Vec<(u64, u64)> {
    use nix::unistd::{Whence, lseek};
    let seek = |from: u64, whence| {
        let from = i64::try_from(from).expect("a place in a file");
        lseek(file, from, whence)
            .ok()
            .and_then(|found| u64::try_from(found).ok())
    };
    let mut found = Vec::new();
    let mut next = 0;
    while let Some(start) = seek(next, Whence::SeekData) {
        next = seek(start, Whence::SeekHole).expect("data ends");
        found.push((start, next));
    }
    found
}
