//! The same for a volume with a filesystem: grown while in use, cut, changed, restored, compared.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use ::tests::kubelet::Attachment;
use ::tests::requests;
use anyhow::{Result, ensure};
use nix::sys::statvfs::statvfs;

use crate::driver::Driver;
use crate::figures::{GIB, MIB, bytes, time};
use crate::vm_story::{Stage, snapshot_file};
use crate::{content, space, tell, worker};

/// A mounted ext4 would need a capability (CAP_SYS_RESOURCE) to grow that not every root shell has.
const FS_TYPE: &str = "xfs";
const FIRST_BYTES: u64 = 512 * MIB;
const GROWN_BYTES: u64 = GIB;
/// Files before and after the growth.
const FILES: u64 = 40;
const FILE_BYTES: u64 = 2 * MIB;
const SEED: u64 = 5;
const OTHER_SEED: u64 = 7;

/// The checksum of every file, by name.
type Sums = BTreeMap<String, blake3::Hash>;

/// Tells it.
pub(crate) async fn tell(stage: &Stage<'_>) -> Result<()> {
    tell::chapter("4. A filesystem volume: expand, snapshot, restore");
    let volume = provision(stage.driver).await?;
    expand(stage.driver, &volume).await?;
    let sums = checksums(&volume.target).await?;
    let snapshot = snapshot(stage, &volume).await?;
    overwrite(&volume, &sums).await?;
    restore(stage.driver, &snapshot, &sums).await
}

async fn provision(driver: &Driver) -> Result<Attachment> {
    let started = Instant::now();
    let volume = driver
        .create(FIRST_BYTES, requests::filesystem(FS_TYPE), None)
        .await?;
    let folder = driver.publish(&volume).await?;
    let took = time(started.elapsed());
    let text = format!(
        "{}, {FS_TYPE}, formatted and mounted: {took}",
        bytes(FIRST_BYTES)
    );
    tell::fact("CreateVolume", text);
    write(&folder, SEED).await?;
    Ok(volume)
}

async fn expand(driver: &Driver, volume: &Attachment) -> Result<()> {
    let before = size(&volume.target)?;
    let started = Instant::now();
    driver.expand(volume, GROWN_BYTES).await?;
    let took = time(started.elapsed());
    let after = size(&volume.target)?;
    ensure!(
        after > before,
        "the filesystem has not grown: {before} before, {after} after"
    );
    let text = format!(
        "from {} to {} while mounted: {took}",
        bytes(before),
        bytes(after)
    );
    tell::fact("expand", text);
    Ok(())
}

async fn snapshot(stage: &Stage<'_>, volume: &Attachment) -> Result<String> {
    let started = Instant::now();
    let snapshot = stage.driver.snapshot(volume).await?;
    let took = time(started.elapsed());
    let alone = bytes(space::alone(&snapshot_file(stage.place, &snapshot)).await?);
    let total = bytes(FILES * FILE_BYTES);
    let text = format!("of {FILES} files, {total}: {took}, {alone} of new space");
    tell::fact("CreateSnapshot", text);
    Ok(snapshot)
}

async fn overwrite(volume: &Attachment, sums: &Sums) -> Result<()> {
    write(&volume.target, OTHER_SEED).await?;
    let changed = checksums(&volume.target).await?;
    let same = changed
        .iter()
        .any(|(name, sum)| sums.get(name) == Some(sum));
    ensure!(
        !same,
        "files of the volume did not change when they were overwritten"
    );
    tell::fact("then", "every file in the volume is overwritten");
    Ok(())
}

async fn restore(driver: &Driver, snapshot: &str, sums: &Sums) -> Result<()> {
    let started = Instant::now();
    let restored = driver
        .create(GROWN_BYTES, requests::filesystem(FS_TYPE), Some(snapshot))
        .await?;
    let folder = driver.publish(&restored).await?;
    let took = time(started.elapsed());
    tell::fact(
        "restore",
        format!("created from the snapshot and mounted: {took}"),
    );
    let found = checksums(&folder).await?;
    let same = sums
        .iter()
        .filter(|(name, sum)| found.get(*name) == Some(sum))
        .count();
    ensure!(
        found == *sums,
        "only {same} of {} files are as they were",
        sums.len()
    );
    tell::fact(
        "verdict",
        format!("{same} of {FILES} files are as they were when it was cut"),
    );
    Ok(())
}

async fn write(folder: &Path, seed: u64) -> Result<()> {
    let _progress = tell::doing("files", "writing");
    let folder = folder.to_owned();
    worker::run(move |wanted| content::write_files(&folder, FILES, FILE_BYTES, seed, wanted)).await
}

async fn checksums(folder: &Path) -> Result<Sums> {
    let _progress = tell::doing("files", "reading");
    let folder = folder.to_owned();
    worker::run(move |wanted| content::checksums(&folder, wanted)).await
}

/// Size of the filesystem as `df` shows it.
fn size(folder: &Path) -> Result<u64> {
    let stat = statvfs(folder)?;
    Ok(stat.blocks() * stat.fragment_size())
}
