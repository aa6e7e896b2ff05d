//! I/O through the published block device, beside a plain loop device on the same file and the file itself.
//!
//! Many short rounds, and the median of each round's own ratios: what the machine does meanwhile changes slower than that.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tests::fixture::Fixture;
use tests::kubelet::text;
use tests::scratch_fs::{FsKind, GIB};
use tests::{loops, tools};

use crate::disks::{self, Shape};
use crate::plan::Plan;
use crate::table::{Table, median, verdict};

/// The published device against a plain loop device.
const LIMIT: f64 = 0.95;

/// `fio --rw`, block size, queue depth.
const JOBS: [(&str, &str, u32); 6] = [
    ("randread", "4k", 1),
    ("randread", "4k", 16),
    ("randwrite", "4k", 1),
    ("randwrite", "4k", 16),
    ("read", "1M", 4),
    ("write", "1M", 4),
];

/// The table.
pub(crate) fn measure(plan: &Plan) -> Result<String> {
    let mut table = Table::new(&[
        "fio, direct, libaio",
        "published device",
        "plain loop device",
        "raw file",
        "published : plain",
        "at least 0.95",
        "published : raw file",
    ]);
    for kind in FsKind::REFLINK {
        one_filesystem(plan, kind, &mut table)?;
    }
    Ok(table.text().to_owned())
}

fn one_filesystem(plan: &Plan, kind: FsKind, table: &mut Table) -> Result<()> {
    let fixture = Fixture::sized(kind, 16 * GIB);
    let volume = disks::make(&fixture, GIB, Shape::Full)?;
    let image = fixture.image(&volume.volume_id);
    let plain = Plain::attach(&image)?;
    let targets = [volume.target.clone(), plain.device.clone(), image];
    for (access, block, depth) in JOBS {
        let name = format!("{}: {access} {block}, queue depth {depth}", kind.name());
        plan.next(&name)?;
        let mut found: [Vec<f64>; 3] = Default::default();
        for round in 0..plan.fio_rounds {
            // Each after each other one as often: what a run leaves for the next to clean up is nobody's own.
            let mut order: Vec<usize> = (0..targets.len()).collect();
            order.rotate_left(round % targets.len());
            if round % 2 == 1 {
                order.reverse();
            }
            for at in order {
                plan.go_on()?;
                found[at].push(fio(&targets[at], access, block, depth, plan.fio_seconds)?);
            }
        }
        table.row(&row(name, &found));
    }
    drop(plain);
    disks::remove(&fixture, &volume);
    Ok(())
}

fn row(name: String, found: &[Vec<f64>; 3]) -> Vec<String> {
    let [published, plain, raw] = found.each_ref();
    let (to_plain, to_raw) = (ratio(published, plain), ratio(published, raw));
    let [published, plain, raw] = [published, plain, raw].map(|values| median(values));
    let mut row = vec![name];
    row.extend([published, plain, raw].map(|bytes| format!("{:.0} MiB/s", bytes / 1_048_576.0)));
    row.push(format!("{to_plain:.2}"));
    row.push(verdict(to_plain >= LIMIT).to_owned());
    row.push(format!("{to_raw:.2}"));
    row
}

/// The median of the ratios of what was measured in the same round.
fn ratio(these: &[f64], those: &[f64]) -> f64 {
    let ratios: Vec<f64> = these.iter().zip(those).map(|(a, b)| a / b).collect();
    median(&ratios)
}

/// Runs one job and returns its bytes per second.
fn fio(target: &Path, access: &str, block: &str, depth: u32, seconds: u64) -> Result<f64> {
    let arguments = [
        "--name=bench".to_owned(),
        format!("--filename={}", text(target).replace(':', "\\:")),
        format!("--rw={access}"),
        format!("--bs={block}"),
        format!("--iodepth={depth}"),
        format!("--runtime={seconds}"),
        "--time_based".to_owned(),
        "--size=1G".to_owned(),
        "--direct=1".to_owned(),
        "--ioengine=libaio".to_owned(),
        "--output-format=json".to_owned(),
    ];
    let told = tools::run("fio", &arguments);
    let json = told
        .find('{')
        .map(|at| &told[at..])
        .context("fio prints no JSON")?;
    let told: serde_json::Value = serde_json::from_str(json).context("fio's JSON")?;
    let side = if access.ends_with("read") {
        "read"
    } else {
        "write"
    };
    told["jobs"][0][side]["bw_bytes"]
        .as_f64()
        .context("fio tells no bandwidth")
}

/// A loop device as a person would make it.
struct Plain {
    device: PathBuf,
    inode: u64,
}

impl Plain {
    fn attach(image: &Path) -> Result<Self> {
        let image = text(image);
        let arguments = ["--find", "--show", "--direct-io=on", &image];
        let device = PathBuf::from(tools::run("losetup", &arguments).trim());
        let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(image)?);
        Ok(Self { device, inode })
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        if !loops::detach(&self.device, self.inode) {
            eprintln!("{} cannot be detached", self.device.display());
        }
    }
}
