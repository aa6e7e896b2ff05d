//! A snapshot and a restore where blocks cannot be shared, beside `qemu-img convert`.
//!
//! All read from the disk and not from memory, and all end with what they made on the disk. The ways of `qemu-img` take turns, and
//! each round begins with another one. Every block of the disk was written before, as on any disk that is in use: the file that it is
//! here would have to be allocated by whoever comes first, and that is slower than the copy, above all for direct I/O.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::statvfs::statvfs;
use tests::client::accepted;
use tests::fixture::Fixture;
use tests::kubelet::text;
use tests::scratch_fs::{FsKind, GIB, MIB};
use tests::{memory, requests, tools};

use crate::disks::{self, Shape};
use crate::images::{Taken, taken_with_sync};
use crate::plan::Plan;
use crate::table::{Table, median, median_ms, ms, verdict};

/// A snapshot has to be this much as fast as the fastest of the others.
const SNAPSHOT_LIMIT: f64 = 0.9;
/// And a restore.
const RESTORE_LIMIT: f64 = 1.0;

/// Ways of `qemu-img convert`: a name, and its options.
const CONVERTS: [(&str, &[&str]); 3] = [
    ("convert", &[]),
    ("convert -W -m 16", &["-W", "-m", "16"]),
    ("convert -t none -T none", &["-t", "none", "-T", "none"]),
];

/// What was measured of one direction.
#[derive(Debug, Default)]
struct Times {
    ours: Vec<Duration>,
    ours_mib: Vec<f64>,
    converts: [Vec<Duration>; CONVERTS.len()],
    converts_mib: Vec<f64>,
}

/// The table.
pub(crate) fn measure(plan: &Plan) -> Result<String> {
    let mut table = Table::new(&[
        "disk on ext4",
        "ours",
        "memory",
        CONVERTS[0].0,
        CONVERTS[1].0,
        CONVERTS[2].0,
        "memory",
        "best of them : ours",
        "aim",
        "reached",
    ]);
    // The same amount of data in the first two.
    let (full, sparse) = if plan.is_quick() {
        (512 * MIB, 5 * GIB)
    } else {
        (GIB, 10 * GIB)
    };
    let disks = [
        (full, Shape::Full),
        (sparse, Shape::Sparse),
        (sparse, Shape::Scattered),
    ];
    for (bytes, shape) in disks {
        #[expect(clippy::cast_precision_loss, reason = "a size for people")]
        let name = format!("{} GiB, {}", bytes as f64 / GIB as f64, shape.name());
        plan.next(&format!("ext4 {name}"))?;
        let (snapshot, restore) = one(plan, bytes, shape)?;
        table.row(&row(
            &format!("snapshot of {name}"),
            &snapshot,
            SNAPSHOT_LIMIT,
        ));
        table.row(&row(&format!("restore of {name}"), &restore, RESTORE_LIMIT));
    }
    Ok(table.text().to_owned())
}

fn one(plan: &Plan, bytes: u64, shape: Shape) -> Result<(Times, Times)> {
    // A volume and its restore are promised, and there are copies beside them.
    let fixture = Fixture::sized(FsKind::Ext4, 3 * bytes + 8 * GIB);
    disks::past_the_page_cache(&fixture);
    let volume = disks::make(&fixture, bytes, shape)?;
    volume.down(&fixture.csi);
    let folder = fixture.pool().join("bench");
    std::fs::create_dir(&folder)?;
    write_all_over(&folder)?;
    let (mut snapshot, mut restore) = (Times::default(), Times::default());
    let rounds = if plan.is_quick() { 3 } else { 5 };
    for round in 0..rounds {
        let cut = ours(&fixture, &volume.volume_id, &mut snapshot, &mut restore)?;
        for at in 0..CONVERTS.len() {
            plan.go_on()?;
            let way = (at + round) % CONVERTS.len();
            let image = fixture.image(&volume.volume_id);
            convert(way, ["raw", "qcow2"], &image, &folder, &mut snapshot)?;
            let image = fixture.snapshot_file(&cut);
            convert(way, ["qcow2", "raw"], &image, &folder, &mut restore)?;
        }
        accepted(fixture.csi.delete_cut(&cut));
    }
    std::fs::remove_dir(folder)?;
    accepted(fixture.csi.delete(&volume.volume_id));
    Ok((snapshot, restore))
}

/// Writes to every block of the filesystem that is free, except for the last MiBs, and frees it again.
fn write_all_over(folder: &Path) -> Result<()> {
    let filler = folder.join("filler");
    let free = statvfs(folder)?;
    let bytes = (free.blocks_available() * free.fragment_size()).saturating_sub(64 * MIB);
    let (to, count) = (
        format!("of={}", text(&filler)),
        format!("count={}", bytes / MIB),
    );
    let words = [
        "if=/dev/zero",
        &to,
        "bs=1M",
        &count,
        "oflag=direct",
        "status=none",
    ];
    let _said = tools::run("dd", &words);
    std::fs::remove_file(&filler)?;
    Ok(File::open(folder)?.sync_all()?)
}

/// A snapshot, whose id is the answer, and a restore of it.
fn ours(
    fixture: &Fixture,
    volume: &str,
    snapshot: &mut Times,
    restore: &mut Times,
) -> Result<String> {
    forget(&fixture.image(volume))?;
    let (cut, taken) = taken_by_server(fixture, || {
        let request = requests::snapshot("bench-cut", volume);
        Ok(fixture.csi.made_snapshot(request).snapshot_id)
    })?;
    snapshot.ours.push(taken.time);
    snapshot.ours_mib.push(taken.mib);
    forget(&fixture.snapshot_file(&cut))?;
    let (restored, taken) = taken_by_server(fixture, || {
        let request = requests::volume("bench-restored", 0, requests::block());
        let request = requests::from_snapshot(request, &cut);
        Ok(disks::id(accepted(fixture.csi.create_volume(request))))
    })?;
    restore.ours.push(taken.time);
    restore.ours_mib.push(taken.mib);
    accepted(fixture.csi.delete(&restored));
    Ok(cut)
}

fn convert(
    way: usize,
    [from, to]: [&str; 2],
    image: &Path,
    folder: &Path,
    times: &mut Times,
) -> Result<()> {
    let target = text(&folder.join("copy"));
    let source = text(image);
    forget(image)?;
    let fixed = ["qemu-img", "convert", "-f", from, "-O", to];
    let words = [&fixed[..], CONVERTS[way].1, &[&source, &target]].concat();
    let taken = taken_with_sync(&words, &target)?;
    times.converts[way].push(taken.time);
    times.converts_mib.push(taken.mib);
    Ok(std::fs::remove_file(target)?)
}

/// Lets the server do something: what came of it, how long it took, and how much memory the server had meanwhile.
pub(crate) fn taken_by_server<T>(
    fixture: &Fixture,
    act: impl FnOnce() -> Result<T>,
) -> Result<(T, Taken)> {
    let pid = fixture.server.pid();
    forget_peak(pid)?;
    let started = Instant::now();
    let made = act()?;
    let time = started.elapsed();
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let mib = memory::of(pid).peak as f64 / MIB as f64;
    Ok((made, Taken { time, mib }))
}

/// Lets everybody read it from the disk.
pub(crate) fn forget(image: &Path) -> Result<()> {
    let file = File::open(image)?;
    file.sync_all()?;
    Ok(posix_fadvise(
        &file,
        0,
        0,
        PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    )?)
}

/// From now on the most memory of a process is that from now on.
fn forget_peak(pid: u32) -> Result<()> {
    use std::io::Write as _;
    let mut file = File::options()
        .write(true)
        .open(format!("/proc/{pid}/clear_refs"))?;
    Ok(file.write_all(b"5")?)
}

/// Gives what was removed back to the machine's own disk, once the filesystem has it.
pub(crate) fn give_back(fixture: &Fixture) -> Result<()> {
    let status = std::process::Command::new("fstrim")
        .arg(fixture.pool())
        .status()?;
    ensure!(status.success(), "fstrim ended with {status}");
    Ok(())
}

fn row(name: &str, times: &Times, limit: f64) -> Vec<String> {
    let ours = median_ms(&times.ours);
    let converts = times.converts.each_ref().map(|times| median_ms(times));
    let best = converts.iter().copied().fold(f64::INFINITY, f64::min);
    let mut row = vec![
        name.to_owned(),
        ms(ours),
        format!("{:.1} MiB", median(&times.ours_mib)),
    ];
    row.extend(converts.map(ms));
    row.extend([
        format!("{:.1} MiB", median(&times.converts_mib)),
        format!("{:.2}", best / ours),
        format!("{limit}"),
        verdict(best / ours >= limit).to_owned(),
    ]);
    row
}
