//! The disks that are measured: a published volume with a content of a certain shape.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Result;
use nix::fcntl::OFlag;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tests::fixture::Fixture;
use tests::kubelet::{Attachment, text};
use tests::scratch_fs::MIB;
use tests::{client, content, csi, requests, tools};

/// Random writes of the fragmented disk, and the size of each.
const SCATTERED_WRITES: u32 = 20_000;
const BLOCK: usize = 4096;

/// The shape of a disk's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Every byte was written once, in order, on a disk that was allocated ahead: as contiguous as the filesystem has it.
    Contiguous,
    /// Every byte was written once, in order, on a thin disk: Btrfs keeps an extent for each write, also side by side.
    Full,
    /// A tenth was written, one MiB out of ten.
    Sparse,
    /// Full, then 20,000 blocks of 4 KiB were overwritten while a snapshot held the old ones.
    Fragmented,
    /// 20,000 blocks of 4 KiB were written, and nothing else.
    Scattered,
}

impl Shape {
    /// Of the disks whose blocks are shared.
    pub(crate) const ALL: [Self; 4] =
        [Self::Contiguous, Self::Full, Self::Sparse, Self::Fragmented];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Contiguous => "full, thick",
            Self::Full => "full",
            Self::Sparse => "10 % in 1 MiB pieces",
            Self::Fragmented => "fragmented",
            Self::Scattered => "20,000 blocks of 4 KiB",
        }
    }
}

/// Gives the loop device beneath a pool direct I/O. A file in memory beneath the filesystem would be faster than any disk, and take
/// processor time that none takes.
pub(crate) fn past_the_page_cache(fixture: &Fixture) {
    let device = text(fixture.fs.device());
    let _said = tools::run("losetup", &["--direct-io=on", &device]);
}

/// A new published volume of `bytes` with a content of `shape`.
pub(crate) fn make(fixture: &Fixture, bytes: u64, shape: Shape) -> Result<Attachment> {
    let how = requests::block();
    let provisioning = if shape == Shape::Contiguous {
        "thick"
    } else {
        "thin"
    };
    let request = requests::volume("bench-disk", bytes, how.clone());
    let request = requests::with_parameter(request, "provisioning", provisioning);
    let volume = fixture.csi.made_volume(request);
    let volume = fixture.attachment(&volume.volume_id, "pod-1", &how);
    volume.up(&fixture.csi);
    let step = if shape == Shape::Sparse {
        10 * MIB
    } else {
        MIB
    };
    if shape == Shape::Scattered {
        scatter(&volume.target, bytes)?;
        return Ok(volume);
    }
    fill(&volume.target, bytes, step)?;
    if shape == Shape::Fragmented {
        let request = requests::snapshot("bench-old-blocks", &volume.volume_id);
        let snapshot = fixture.csi.made_snapshot(request);
        scatter(&volume.target, bytes)?;
        client::accepted(fixture.csi.delete_cut(&snapshot.snapshot_id));
    }
    Ok(volume)
}

/// Unpublishes and deletes it.
pub(crate) fn remove(fixture: &Fixture, volume: &Attachment) {
    volume.down_and_delete(&fixture.csi);
}

/// The volume's id as the answer of `CreateVolume` gives it.
pub(crate) fn id(answer: csi::CreateVolumeResponse) -> String {
    answer
        .volume
        .map(|volume| volume.volume_id)
        .unwrap_or_default()
}

/// How many runs of blocks `file` has on disk.
pub(crate) fn extents(file: &Path) -> Result<u64> {
    let mut count = 0;
    pool::sys::extents(&File::open(file)?, |_extent| count += 1)?;
    Ok(count)
}

/// Writes one MiB at each step, in order.
fn fill(device: &Path, bytes: u64, step: u64) -> Result<()> {
    let piece = content::pattern("bench", 1 << 20);
    let file = OpenOptions::new().write(true).open(device)?;
    for at in (0..bytes).step_by(usize::try_from(step)?) {
        file.write_all_at(&piece, at)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Overwrites scattered blocks, past the page cache and one at a time, as a guest's database does.
fn scatter(device: &Path, bytes: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(20_000);
    let options = OFlag::O_DIRECT.bits();
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(options)
        .open(device)?;
    // Direct I/O wants an aligned address: the pattern lies somewhere within twice its size.
    let mut memory = content::pattern("scattered", 2 * BLOCK);
    let start = memory.as_ptr().align_offset(BLOCK);
    let block = &mut memory[start..start + BLOCK];
    for _write in 0..SCATTERED_WRITES {
        let at = random.random_range(0..bytes / BLOCK as u64) * BLOCK as u64;
        file.write_all_at(block, at)?;
    }
    file.sync_all()?;
    Ok(())
}
