//! Compressed images: making them beside `qemu-img convert -c`, restoring them beside `qemu-img convert`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use tests::client::accepted;
use tests::fixture::Fixture;
use tests::kubelet::text;
use tests::scratch_fs::{FsKind, GIB, MIB};
use tests::{binaries, packing, requests, wait};

use crate::disks;
use crate::images::{Taken, taken, taken_with_sync};
use crate::plan::Plan;
use crate::table::{Table, median, median_ms, ms, verdict};
use crate::unshared::{forget, give_back, taken_by_server};

/// How long a compression may take on the slowest machine.
const LIMIT: Duration = Duration::from_secs(600);
/// Packing has to be this much faster than `qemu-img` on two processors.
const FASTER: f64 = 2.5;
/// And its result at most this much larger.
const LARGER: f64 = 1.03;

/// What the disk holds, MiB by MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Data {
    /// A third each of text, noise and nothing: as in the root disk of a VM.
    Mixed,
    /// Words in random order.
    Text,
    /// What this machine has in /usr: programs, libraries, documentation.
    System,
}

impl Data {
    const ALL: [Self; 3] = [Self::Mixed, Self::Text, Self::System];

    fn name(self) -> &'static str {
        match self {
            Self::Mixed => "text, noise and holes",
            Self::Text => "text",
            Self::System => "a system's files",
        }
    }
}

/// The table.
pub(crate) fn measure(plan: &Plan) -> Result<String> {
    let mut table = Table::new(&[
        "disk on XFS",
        "compressed in the background",
        "memory of the server",
        "`export --compress`",
        "memory",
        "`convert -c` zstd",
        "memory",
        "convert : background",
        "at least 2.5",
        "convert : export",
        "size : qemu's",
        "at most 1.03",
        "restored into a volume",
        "memory of the server",
        "`convert` to raw",
        "memory",
        "convert : restored",
        "faster",
    ]);
    let bytes = if plan.is_quick() { 256 * MIB } else { GIB };
    for data in Data::ALL {
        plan.next(&format!("compression of {}", data.name()))?;
        table.row(&one(plan, data, bytes)?);
    }
    Ok(table.text().to_owned())
}

/// What was measured.
#[derive(Debug, Default)]
struct Times {
    background: Vec<Taken>,
    export: Vec<Taken>,
    compressed: Vec<Taken>,
    restored: Vec<Taken>,
    converted: Vec<Taken>,
    ratio: f64,
}

fn one(plan: &Plan, data: Data, bytes: u64) -> Result<Vec<String>> {
    let fixture = Fixture::sized(FsKind::Xfs, 8 * bytes + 2 * GIB);
    disks::past_the_page_cache(&fixture);
    let made = fixture
        .csi
        .made_volume(requests::volume("bench", bytes, requests::block()));
    fill(&fixture.image(&made.volume_id), data, bytes)?;
    let plain = fixture
        .csi
        .made_snapshot(requests::snapshot("plain", &made.volume_id));
    let folder = fixture.pool().join("bench");
    std::fs::create_dir(&folder)?;
    let mut times = Times::default();
    let rounds = if plan.is_quick() { 1 } else { 3 };
    for _round in 0..rounds {
        plan.go_on()?;
        pack(&fixture, &made.volume_id, &plain.snapshot_id, &mut times)?;
        plan.go_on()?;
        unpack(&fixture, &made.volume_id, bytes, &mut times)?;
        give_back(&fixture)?;
    }
    std::fs::remove_dir(folder)?;
    accepted(fixture.csi.delete_cut(&plain.snapshot_id));
    accepted(fixture.csi.delete(&made.volume_id));
    Ok(row(data, bytes, &times))
}

/// A snapshot into a compressed file, and the volume's image by `qemu-img`. Both read what nobody has in memory.
fn pack(fixture: &Fixture, source: &str, plain: &str, times: &mut Times) -> Result<()> {
    let (pool, vdctl) = (text(&fixture.pool()), text(&binaries::shipped()));
    let place = |name: &str| text(&fixture.pool().join("bench").join(name));
    let (ours, theirs) = (place("ours"), place("theirs"));
    let export = [&vdctl, "snapshot", "export", plain, &ours, "--compress"];
    forget(&fixture.snapshot_file(plain))?;
    let taken = taken(&[&export[..], &["--pool", &pool]].concat())?;
    times.export.push(taken);
    let image = fixture.image(source);
    let convert = ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2"];
    let more = ["-o", "compression_type=zstd", &text(&image), &theirs];
    forget(&image)?;
    let taken = taken_with_sync(&[&convert[..], &more].concat(), &theirs)?;
    times.compressed.push(taken);
    #[expect(clippy::cast_precision_loss, reason = "a ratio of sizes")]
    let size = |path: &str| anyhow::Ok(std::fs::metadata(path)?.len() as f64);
    times.ratio = size(&ours)? / size(&theirs)?;
    std::fs::remove_file(ours)?;
    Ok(std::fs::remove_file(theirs)?)
}

/// A snapshot that is compressed in the background, from its cut on, and read back before the first image goes; then a volume of
/// it, and its image by `qemu-img`.
fn unpack(fixture: &Fixture, source: &str, bytes: u64, times: &mut Times) -> Result<()> {
    let pool = fixture.pool();
    forget(&fixture.image(source))?;
    let (small, background) = taken_by_server(fixture, || {
        let request = requests::compressed_snapshot("small", source);
        let small = fixture.csi.made_snapshot(request).snapshot_id;
        let done = wait::holds_within(LIMIT, || {
            packing::of(&pool, &small) == Some(packing::Packing::Done)
        });
        ensure!(done, "a snapshot is not compressed after {LIMIT:?}");
        Ok(small)
    })?;
    times.background.push(background);
    let image = fixture.snapshot_file(&small);
    forget(&image)?;
    let (restored, taken) = taken_by_server(fixture, || {
        let request = requests::volume("restored", bytes, requests::block());
        let request = requests::from_snapshot(request, &small);
        Ok(disks::id(accepted(fixture.csi.create_volume(request))))
    })?;
    times.restored.push(taken);
    let raw = text(&pool.join("bench").join("raw"));
    let convert = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw"];
    forget(&image)?;
    let taken = taken_with_sync(&[&convert[..], &[&text(&image), &raw]].concat(), &raw)?;
    times.converted.push(taken);
    std::fs::remove_file(raw)?;
    accepted(fixture.csi.delete(&restored));
    accepted(fixture.csi.delete_cut(&small));
    Ok(())
}

fn row(data: Data, bytes: u64, times: &Times) -> Vec<String> {
    let time = |taken: &[Taken]| {
        let times: Vec<Duration> = taken.iter().map(|taken| taken.time).collect();
        median_ms(&times)
    };
    let mib = |taken: &[Taken]| {
        let mib: Vec<f64> = taken.iter().map(|taken| taken.mib).collect();
        format!("{:.1} MiB", median(&mib))
    };
    let (background, export) = (time(&times.background), time(&times.export));
    let (compressed, restored) = (time(&times.compressed), time(&times.restored));
    let converted = time(&times.converted);
    vec![
        format!("{} MiB of {}", bytes / MIB, data.name()),
        ms(background),
        mib(&times.background),
        ms(export),
        mib(&times.export),
        ms(compressed),
        mib(&times.compressed),
        format!("{:.2}", compressed / background),
        verdict(compressed / background >= FASTER).to_owned(),
        format!("{:.2}", compressed / export),
        format!("{:.3}", times.ratio),
        verdict(times.ratio <= LARGER).to_owned(),
        ms(restored),
        mib(&times.restored),
        ms(converted),
        mib(&times.converted),
        format!("{:.2}", converted / restored),
        verdict(converted > restored).to_owned(),
    ]
}

fn fill(image: &Path, data: Data, bytes: u64) -> Result<()> {
    let file = File::options().write(true).open(image)?;
    if data == Data::System {
        copy_files(&file, bytes)?;
        return Ok(file.sync_all()?);
    }
    let mut chance = StdRng::seed_from_u64(7);
    let length = usize::try_from(MIB)?;
    let words = words(&mut chance, 16 * length)?;
    for at in 0..bytes / MIB {
        let piece = match (data, at % 3) {
            (Data::Mixed, 0) => continue,
            (Data::Mixed, 1) => {
                let mut bytes = vec![0; length];
                chance.fill_bytes(&mut bytes);
                bytes
            }
            // Another part of the same text each time.
            _ => {
                let start = usize::try_from(chance.next_u32())? % (words.len() - length);
                words[start..start + length].to_vec()
            }
        };
        file.write_all_at(&piece, at * MIB)?;
    }
    file.sync_all()?;
    ensure!(file.metadata()?.len() == bytes, "the disk has another size");
    Ok(())
}

/// The files of /usr one behind the other, from the beginning again where they are not enough.
fn copy_files(image: &File, bytes: u64) -> Result<()> {
    let mut folders = vec![PathBuf::from("/usr")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    let mut at = 0;
    for path in files.iter().cycle() {
        if at == bytes {
            break;
        }
        let mut content = std::fs::read(path)?;
        content.truncate(usize::try_from(bytes - at)?);
        image.write_all_at(&content, at)?;
        at += content.len() as u64;
    }
    Ok(())
}

/// Text of `length` bytes.
fn words(chance: &mut StdRng, length: usize) -> Result<Vec<u8>> {
    const WORDS: [&str; 12] = [
        "volume", "snapshot", "the", "of", "disk", "cluster", "0x7fe3", "\n", "is", "written",
        "node", "error:",
    ];
    let mut text = String::with_capacity(length + 16);
    while text.len() < length {
        let word = usize::try_from(chance.next_u32())? % WORDS.len();
        text.push_str(WORDS[word]);
        text.push_str(&format!(" {} ", chance.next_u32() % 1000));
    }
    let mut text = text.into_bytes();
    text.truncate(length);
    Ok(text)
}
