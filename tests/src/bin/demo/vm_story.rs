//! The main job: a volume, a VM that boots from it, a snapshot cut while it writes, and a second VM
//! that boots from the restore and tells what it finds.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::tests::kubelet::Attachment;
use ::tests::requests;
use anyhow::{Context as _, Result, bail, ensure};

use crate::driver::Driver;
use crate::figures::{GIB, MIB, bytes, time, times};
use crate::machine::{Accelerator, BOOT_LIMIT, Machine, Mode};
use crate::workplace::Workplace;
use crate::{command, content, space, tell, worker};

/// Size of the VM's disk.
const DISK_BYTES: u64 = 2 * GIB;
/// Behind the guest's own partition: data as a disk has that is in use.
const DATA_OFFSET: u64 = 512 * MIB;
const DATA_BYTES: u64 = GIB;
const DATA_SEED: u64 = 3;
/// The guest has written so much before the snapshot, and goes on for so much after it.
const LINES: u64 = 5000;
/// The guest reports every hundred lines and may be some reports ahead of what was read from it.
const REPORTING_LAG: u64 = 300;
/// Time that the guest goes on writing before the snapshot.
const MOMENT: Duration = Duration::from_millis(777);
/// Limit for anything that a running guest does.
const GUEST_LIMIT: Duration = Duration::from_secs(60);

/// What the demo works with.
pub(crate) struct Stage<'a> {
    pub(crate) place: &'a Workplace,
    pub(crate) driver: &'a Driver,
    pub(crate) guest: PathBuf,
    pub(crate) accelerator: Accelerator,
}

/// The log lines between which the snapshot was cut.
struct Cut {
    snapshot: String,
    took: Duration,
    on_disk_before: u64,
    on_disk_after: u64,
}

/// Tells it.
pub(crate) async fn tell(stage: &Stage<'_>) -> Result<()> {
    tell::chapter("1. A volume, and a VM that boots from it");
    let volume = provision(stage).await?;
    let mut machine = boot_first(stage, &volume).await?;

    tell::chapter("2. A snapshot while the VM writes");
    let cut = snapshot(stage, &volume, &mut machine).await?;
    machine.pull_plug().await?;
    compare_with_convert(stage, &volume, &cut).await?;
    check_image(stage, &cut).await?;

    tell::chapter("3. A second VM, booted from the restored snapshot");
    let (restored, disk) = restore(stage, &cut).await?;
    show_log(stage, &disk, &cut).await?;
    let _told = tell::doing("data", "reading it back");
    let device = disk.clone();
    let compare = move |wanted: &worker::Wanted| {
        content::compare_at(&device, DATA_OFFSET, DATA_BYTES, DATA_SEED, wanted)
    };
    worker::run(compare)
        .await
        .with_context(|| format!("volume {}", restored.volume_id))?;
    drop(_told);
    tell::fact(
        "data",
        format!("all {} beside the guest are identical", bytes(DATA_BYTES)),
    );
    Ok(())
}

async fn provision(stage: &Stage<'_>) -> Result<Attachment> {
    let started = Instant::now();
    let volume = stage
        .driver
        .create(DISK_BYTES, requests::block(), None)
        .await?;
    let created = started.elapsed();
    let image = image(stage.place, &volume.volume_id);
    let empty = space::allocated(&image)?;
    tell::fact(
        "CreateVolume",
        format!(
            "{}, Block: {}, {} on disk",
            bytes(DISK_BYTES),
            time(created),
            bytes(empty)
        ),
    );
    let started = Instant::now();
    let disk = stage.driver.publish(&volume).await?;
    tell::fact(
        "Stage, Publish",
        format!("a block device at the target: {}", time(started.elapsed())),
    );
    let started = Instant::now();
    {
        let _progress = tell::doing("upload", "writing the guest's disk");
        upload(&stage.guest, &disk).await?;
        let device = disk.clone();
        worker::run(move |wanted| {
            content::write_at(&device, DATA_OFFSET, DATA_BYTES, DATA_SEED, wanted)
        })
        .await?;
    }
    let text = format!(
        "Debian guest and {} of data: {}, {} on disk",
        bytes(DATA_BYTES),
        time(started.elapsed()),
        bytes(space::allocated(&image)?)
    );
    tell::fact("upload", text);
    Ok(volume)
}

/// Writes an image into a volume as CDI does: by qemu-img, past the page cache, without the zeroes.
async fn upload(guest: &Path, disk: &Path) -> Result<()> {
    let arguments = [
        "convert",
        "-n",
        "--target-is-zero",
        "-f",
        "raw",
        "-O",
        "raw",
        "-t",
        "none",
    ];
    let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
    let paths = [guest.as_os_str(), disk.as_os_str()];
    let _quiet = command::run("qemu-img", &[&arguments[..], &paths].concat()).await?;
    Ok(())
}

async fn boot_first(stage: &Stage<'_>, volume: &Attachment) -> Result<Machine> {
    let started = Instant::now();
    let mut machine = Machine::start(stage.accelerator, &volume.target, Mode::Write)?;
    {
        let _progress = tell::doing("boot", "BIOS, boot loader, kernel");
        machine
            .wait("the boot", BOOT_LIMIT, |seen| seen.is_up().then_some(()))
            .await?;
    }
    tell::fact(
        "boot",
        format!("from the published device: {}", time(started.elapsed())),
    );
    machine
        .wait("its log", GUEST_LIMIT, |seen| {
            (seen.log_line >= LINES).then_some(())
        })
        .await?;
    let lines: Vec<String> = machine.console().lines.clone();
    lines.iter().take(3).for_each(|line| tell::guest(line));
    tell::guest("...");
    if let Some(line) = lines.last() {
        tell::guest(line);
    }
    Ok(machine)
}

async fn snapshot(stage: &Stage<'_>, volume: &Attachment, machine: &mut Machine) -> Result<Cut> {
    // Any moment will do, but not one that a report of the guest marks.
    tokio::time::sleep(MOMENT).await;
    let (on_disk_before, wait_before) = {
        let seen = machine.console();
        (seen.log_line, seen.longest_wait_ms)
    };
    let started = Instant::now();
    let snapshot = stage.driver.snapshot(volume).await?;
    let took = started.elapsed();
    let file = snapshot_file(stage.place, &snapshot);
    let alone = space::alone(&file).await?;
    let enough = machine.console().log_line + REPORTING_LAG;
    let on_disk_after = machine
        .wait("the log to go on", GUEST_LIMIT, |seen| {
            (seen.log_line >= enough).then_some(seen.log_line)
        })
        .await?;
    let wait_after = machine
        .wait("the log to go on", GUEST_LIMIT, |seen| {
            (seen.log_line >= on_disk_after + LINES).then_some(seen.longest_wait_ms)
        })
        .await?;
    let text = format!(
        "{}, {} of new space, one qcow2 file",
        time(took),
        bytes(alone)
    );
    tell::fact("CreateSnapshot", text);
    tell::fact(
        "the guest",
        format!("had line {on_disk_before} on its disk before the call,"),
    );
    tell::more(format!(
        "and line {on_disk_after} soon after it; its longest wait for the"
    ));
    tell::more(format!(
        "disk was {wait_before} ms before the snapshot, and is {wait_after} ms since"
    ));
    Ok(Cut {
        snapshot,
        took,
        on_disk_before,
        on_disk_after,
    })
}

/// The routine that the snapshot replaces. The VM is off: on a running one it copies a torn disk.
async fn compare_with_convert(stage: &Stage<'_>, volume: &Attachment, cut: &Cut) -> Result<()> {
    let copy = stage.place.scratch()?.join("copy.qcow2");
    let source = image(stage.place, &volume.volume_id);
    let arguments = ["convert", "-f", "raw", "-O", "qcow2"].map(AsRef::as_ref);
    let paths = [source.as_os_str(), copy.as_os_str()];
    let started = Instant::now();
    {
        let _progress = tell::doing("the manual way", "qemu-img convert");
        let _quiet = command::run("qemu-img", &[&arguments[..], &paths].concat()).await?;
    }
    let took = started.elapsed();
    let taken = space::allocated(&copy)?;
    std::fs::remove_file(&copy)?;
    let (took, times, taken) = (time(took), times(took, cut.took), bytes(taken));
    let text = format!("VM off, qemu-img convert: {took} ({times} x), {taken}");
    tell::fact("the manual way", text);
    Ok(())
}

async fn check_image(stage: &Stage<'_>, cut: &Cut) -> Result<()> {
    let file = snapshot_file(stage.place, &cut.snapshot);
    let file = file.as_os_str();
    let arguments = ["check".as_ref(), "-f".as_ref(), "qcow2".as_ref(), file];
    let checked = command::run("qemu-img", &arguments).await?;
    let verdict = checked.lines().next().unwrap_or_default().to_owned();
    let arguments = ["info".as_ref(), "--output=json".as_ref(), file];
    let info = command::run("qemu-img", &arguments).await?;
    let info: serde_json::Value = serde_json::from_str(&info).context("qemu-img info")?;
    ensure!(
        info["backing-filename"].is_null(),
        "the snapshot has a backing file"
    );
    let size = info["virtual-size"]
        .as_u64()
        .context("qemu-img info: no virtual size")?;
    ensure!(
        size == DISK_BYTES,
        "the snapshot's virtual size is {}",
        bytes(size)
    );
    tell::fact(
        "qemu-img check",
        format!("\"{verdict}\" It needs no other file."),
    );
    Ok(())
}

async fn restore(stage: &Stage<'_>, cut: &Cut) -> Result<(Attachment, PathBuf)> {
    let started = Instant::now();
    let from = Some(cut.snapshot.as_str());
    let restored = stage
        .driver
        .create(DISK_BYTES, requests::block(), from)
        .await?;
    let took = started.elapsed();
    let alone = space::alone(&image(stage.place, &restored.volume_id)).await?;
    tell::fact(
        "CreateVolume",
        format!(
            "from the snapshot: {}, {} of new space",
            time(took),
            bytes(alone)
        ),
    );
    let disk = stage.driver.publish(&restored).await?;
    Ok((restored, disk))
}

async fn show_log(stage: &Stage<'_>, disk: &Path, cut: &Cut) -> Result<()> {
    let started = Instant::now();
    let mut machine = Machine::start(stage.accelerator, disk, Mode::Show)?;
    let lines = {
        let _progress = tell::doing("boot", "BIOS, boot loader, kernel");
        let found =
            |seen: &crate::machine::Console| seen.lines.iter().find_map(|line| lines_in(line));
        machine
            .wait("the guest's verdict on its log", BOOT_LIMIT, found)
            .await?
    };
    tell::fact(
        "boot",
        format!("from the restored volume: {}", time(started.elapsed())),
    );
    let seen: Vec<String> = machine.console().lines.clone();
    machine.off(GUEST_LIMIT).await?;
    seen.iter().for_each(|line| tell::guest(line));
    let (least, most) = (cut.on_disk_before, cut.on_disk_after);
    if lines < least || lines > most {
        bail!(
            "the restored log has {lines} lines, but the snapshot was cut between {least} and {most}"
        );
    }
    tell::fact(
        "verdict",
        format!("{lines} lies between {least} and {most}: every line that was"),
    );
    tell::more("on the disk when the snapshot was asked for is in it");
    Ok(())
}

/// `log: 4120 lines, complete and intact`
fn lines_in(line: &str) -> Option<u64> {
    line.strip_prefix("log: ")?
        .strip_suffix(" lines, complete and intact")?
        .parse()
        .ok()
}

fn image(place: &Workplace, volume: &str) -> PathBuf {
    place.pool().join("volumes").join(volume).join("disk.img")
}

/// The snapshot's file in the pool.
pub(crate) fn snapshot_file(place: &Workplace, snapshot: &str) -> PathBuf {
    place
        .pool()
        .join("snapshots")
        .join(snapshot)
        .join("image.qcow2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_verdict_on_the_log_has_a_number_of_lines() {
        assert_eq!(lines_in("log: 4120 lines, complete and intact"), Some(4120));
        assert_eq!(lines_in("log: FAILED: line 3 is missing or damaged"), None);
    }
}
