//! `campaign IMAGES [FIRST [N]]`: so many mutated images through the strict reader, from mutation number FIRST (0) on; one of N (1)
//! accepted ones is compared with what `qemu-img` reads. Prints what happened; the exit status is 1 if a promise was broken. A process of its own, so that its memory can be told.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it is what the program is for")]

use std::process::ExitCode;
use std::time::Duration;

use fuzz::campaign::{Plan, run};

/// No image may take longer, whatever it says.
const LONGEST: Duration = Duration::from_secs(1);
/// Nor more memory than this, the process and all seeds' anatomies included.
const MOST_MEMORY: u64 = 64 << 20;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    let (images, first, compare_one_in) = match numbers[..] {
        [images] => (images, 0, 1),
        [images, first] => (images, first, 1),
        [images, first, one_in] => (images, first, one_in.max(1)),
        _ => {
            eprintln!(
                "give the number of images, of the first mutation, and of how many one is compared"
            );
            return ExitCode::from(2);
        }
    };
    let plan = Plan {
        first,
        images,
        compare_one_in,
    };
    let mut summary = match tempfile::tempdir() {
        Ok(folder) => run(plan, folder.path()),
        Err(error) => {
            eprintln!("a folder for images: {error}");
            return ExitCode::from(2);
        }
    };
    let (longest, number) = summary.slowest;
    if longest > LONGEST {
        summary
            .broken
            .push(format!("number {number} took {longest:?}"));
    }
    let memory = peak_memory();
    if memory > MOST_MEMORY {
        summary.broken.push(format!("{memory} bytes of memory"));
    }
    println!(
        "{} images, {} accepted, {} of them compared with qemu-img; slowest {longest:?} (number {number}); {} MiB of memory",
        summary.images,
        summary.accepted,
        summary.compared,
        memory >> 20
    );
    for (reason, count) in &summary.refused {
        println!("{count:8} refused: {reason}");
    }
    for broken in &summary.broken {
        println!("BROKEN: {broken}");
    }
    if summary.broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The most memory that this process ever had resident, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib << 10)
}
