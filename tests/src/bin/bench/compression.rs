//! Compressed images: making them beside `qemu-img convert -c`, restoring them beside `qemu-img convert`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use tests::client::accepted;
use tests::fixture::Fixture;
use tests::kubelet::text;
use tests::scratch_fs::{FsKind, GIB, MIB};
use tests::{binaries, packing, requests};

use crate::disks;
use crate::images::{peak_mib, timed};
use crate::plan::Plan;
use crate::table::{Table, median, median_ms, ms, verdict};

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
}

impl Data {
    const ALL: [Self; 2] = [Self::Mixed, Self::Text];

    fn name(self) -> &'static str {
        match self {
            Self::Mixed => "text, noise and holes",
            Self::Text => "text",
        }
    }
}

/// The table.
pub(crate) fn measure(plan: &Plan) -> Result<String> {
    let mut table = Table::new(&[
        "disk of 1 GiB on XFS",
        "`export --compress`",
        "memory",
        "`convert -c` zstd",
        "convert : ours",
        "at least 2.5",
        "size : qemu's",
        "at most 1.03",
        "in the background",
        "decoded to raw",
        "memory",
        "`convert` to raw",
        "convert : ours",
        "faster",
        "restored into a volume",
    ]);
    for data in Data::ALL {
        plan.next(&format!("compression of {}", data.name()))?;
        table.row(&one(plan, data)?);
    }
    Ok(table.text().to_owned())
}

/// What was measured.
#[derive(Debug, Default)]
struct Times {
    ours: Vec<Duration>,
    qemus: Vec<Duration>,
    unpacked: Vec<Duration>,
    converted: Vec<Duration>,
    restored: Vec<Duration>,
    background: Vec<Duration>,
    pack_mib: Vec<f64>,
    unpack_mib: Vec<f64>,
    ratio: f64,
}

fn one(plan: &Plan, data: Data) -> Result<Vec<String>> {
    let fixture = Fixture::sized(FsKind::Xfs, 24 * GIB);
    let made = fixture
        .csi
        .made_volume(requests::volume("bench", GIB, requests::block()));
    fill(&fixture.image(&made.volume_id), data)?;
    let plain = fixture
        .csi
        .made_snapshot(requests::snapshot("plain", &made.volume_id));
    let mut times = Times::default();
    for _round in 0..plan.rounds.min(5) {
        plan.go_on()?;
        round(&fixture, &made.volume_id, &plain.snapshot_id, &mut times)?;
    }
    accepted(fixture.csi.delete_cut(&plain.snapshot_id));
    accepted(fixture.csi.delete(&made.volume_id));
    Ok(row(data, &times))
}

fn round(fixture: &Fixture, source: &str, plain: &str, times: &mut Times) -> Result<()> {
    let folder = fixture.pool().join("bench");
    std::fs::create_dir(&folder)?;
    pack(fixture, source, plain, times)?;
    unpack(fixture, source, times)?;
    Ok(std::fs::remove_dir(folder)?)
}

/// A snapshot into a compressed file, and the volume's image by `qemu-img`.
fn pack(fixture: &Fixture, source: &str, plain: &str, times: &mut Times) -> Result<()> {
    let (pool, vdctl) = (text(&fixture.pool()), text(&binaries::shipped()));
    let place = |name: &str| text(&fixture.pool().join("bench").join(name));
    let (ours, theirs) = (place("ours"), place("theirs"));
    let export = [&vdctl, "snapshot", "export", plain, &ours, "--compress"];
    let export = [&export[..], &["--pool", &pool]].concat();
    times.ours.push(timed(&export)?);
    let size = std::fs::metadata(&ours)?.len();
    std::fs::remove_file(&ours)?;
    times.pack_mib.push(peak_mib(&export)?);
    let convert = ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2"];
    let image = text(&fixture.image(source));
    let more = ["-o", "compression_type=zstd", &image, &theirs];
    let taken = synced(&[&convert[..], &more].concat(), &theirs)?;
    times.qemus.push(taken);
    #[expect(clippy::cast_precision_loss, reason = "a ratio of sizes")]
    let ratio = size as f64 / std::fs::metadata(&theirs)?.len() as f64;
    times.ratio = ratio;
    std::fs::remove_file(ours)?;
    Ok(std::fs::remove_file(theirs)?)
}

/// A compressed snapshot into a raw file and into a volume, and its image by `qemu-img`.
fn unpack(fixture: &Fixture, source: &str, times: &mut Times) -> Result<()> {
    let (pool, vdctl) = (text(&fixture.pool()), text(&binaries::shipped()));
    let raw = text(&fixture.pool().join("bench").join("raw"));
    let request = requests::compressed_snapshot("small", source);
    let small = fixture.csi.made_snapshot(request).snapshot_id;
    let background = packing::wait(&fixture.pool(), &small);
    times.background.push(background);
    let export = [&vdctl, "snapshot", "export", &small, &raw];
    let export = [&export[..], &["--format", "raw", "--pool", &pool]].concat();
    times.unpacked.push(timed(&export)?);
    std::fs::remove_file(&raw)?;
    times.unpack_mib.push(peak_mib(&export)?);
    std::fs::remove_file(&raw)?;
    let packed = text(&fixture.snapshot_file(&small));
    let convert = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw"];
    let taken = synced(&[&convert[..], &[&packed, &raw]].concat(), &raw)?;
    times.converted.push(taken);
    std::fs::remove_file(raw)?;
    let request = requests::volume("restored", GIB, requests::block());
    let request = requests::from_snapshot(request, &small);
    let started = Instant::now();
    let restored = accepted(fixture.csi.create_volume(request));
    times.restored.push(started.elapsed());
    accepted(fixture.csi.delete(&disks::id(restored)));
    accepted(fixture.csi.delete_cut(&small));
    Ok(())
}

/// The time of a command and of a sync of the file that it made: ours is synced too.
fn synced(words: &[&str], file: &str) -> Result<Duration> {
    let taken = timed(words)?;
    let started = Instant::now();
    File::open(file)?.sync_all()?;
    Ok(taken + started.elapsed())
}

fn row(data: Data, times: &Times) -> Vec<String> {
    let (ours, qemus) = (median_ms(&times.ours), median_ms(&times.qemus));
    let (unpacked, converted) = (median_ms(&times.unpacked), median_ms(&times.converted));
    vec![
        data.name().to_owned(),
        ms(ours),
        format!("{:.1} MiB", median(&times.pack_mib)),
        ms(qemus),
        format!("{:.2}", qemus / ours),
        verdict(qemus / ours >= FASTER).to_owned(),
        format!("{:.3}", times.ratio),
        verdict(times.ratio <= LARGER).to_owned(),
        ms(median_ms(&times.background)),
        ms(unpacked),
        format!("{:.1} MiB", median(&times.unpack_mib)),
        ms(converted),
        format!("{:.2}", converted / unpacked),
        verdict(converted > unpacked).to_owned(),
        ms(median_ms(&times.restored)),
    ]
}

fn fill(image: &Path, data: Data) -> Result<()> {
    const WORDS: [&str; 12] = [
        "volume", "snapshot", "the", "of", "disk", "cluster", "0x7fe3", "\n", "is", "written",
        "node", "error:",
    ];
    let file = File::options().write(true).open(image)?;
    let mut chance = StdRng::seed_from_u64(7);
    let length = usize::try_from(MIB)?;
    for at in 0..GIB / MIB {
        let bytes = match (data, at % 3) {
            (Data::Mixed, 0) => continue,
            (Data::Mixed, 1) => {
                let mut bytes = vec![0; length];
                chance.fill_bytes(&mut bytes);
                bytes
            }
            _ => {
                let mut text = String::with_capacity(length + 16);
                while text.len() < length {
                    let word = usize::try_from(chance.next_u32())? % WORDS.len();
                    text.push_str(WORDS[word]);
                    text.push_str(&format!(" {} ", chance.next_u32() % 1000));
                }
                text.into_bytes()[..length].to_vec()
            }
        };
        file.write_all_at(&bytes, at * MIB)?;
    }
    file.sync_all()?;
    ensure!(file.metadata()?.len() == GIB, "the disk has another size");
    Ok(())
}
