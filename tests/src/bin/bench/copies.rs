//! A snapshot and a restore beside the other ways to copy a disk.
//!
//! The cheap ones alternate in one run, and each round begins with another one. `qemu-img` is run
//! less often: it writes the whole disk every time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::unistd::{Whence, lseek};
use tests::client::accepted;
use tests::fixture::Fixture;
use tests::kubelet::{Attachment, text};
use tests::scratch_fs::{FsKind, GIB};
use tests::{requests, tools};

use crate::disks::{self, Shape};
use crate::plan::Plan;
use crate::table::{Table, median_ms, ms, verdict};

/// A snapshot may take this much longer than the bare ioctl with the same fsyncs.
const CLONE_LIMIT: f64 = 1.5;
/// And must be this much faster than `qemu-img convert`, for the full contiguous disk.
const CONVERT_LIMIT: f64 = 100.0;

/// What is measured, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Snapshot,
    Restore,
    Clone,
    Least,
    CopyReflink,
    Convert,
    ConvertOffload,
    ConvertParallel,
}

impl Way {
    const CHEAP: [Self; 5] = [
        Self::Snapshot,
        Self::Restore,
        Self::Clone,
        Self::Least,
        Self::CopyReflink,
    ];
    const DEAR: [Self; 3] = [Self::Convert, Self::ConvertOffload, Self::ConvertParallel];

    /// Options of `qemu-img convert`.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::ConvertOffload => &["-C"],
            Self::ConvertParallel => &["-W", "-m", "16"],
            _other => &[],
        }
    }
}

/// One disk, and what was measured on it.
struct Bench<'a> {
    fixture: &'a Fixture,
    volume: &'a Attachment,
    folder: PathBuf,
    /// What the last snapshot has before its data.
    tables: Tables,
    times: BTreeMap<Way, Vec<Duration>>,
}

/// The table for every filesystem, size and shape.
pub(crate) fn measure(plan: &Plan) -> Result<String> {
    let mut table = Table::new(&[
        "disk",
        "extents",
        "snapshot",
        "restore",
        "FICLONE + fsyncs",
        "at least, for a qcow2 by a call",
        "cp --reflink",
        "convert",
        "convert -C",
        "convert -W -m 16",
        "snapshot : FICLONE",
        "restore : FICLONE",
        "at most 1.5",
        "at least : FICLONE",
        "snapshot : at least",
        "convert : snapshot",
        "at least 100",
    ]);
    for kind in FsKind::REFLINK {
        for &bytes in plan.disk_bytes {
            let fixture = Fixture::sized(kind, 4 * bytes + 8 * GIB);
            for shape in Shape::ALL {
                let name = format!("{} {} GiB, {}", kind.name(), bytes / GIB, shape.name());
                plan.next(&name)?;
                table.row(&one_disk(plan, &fixture, bytes, shape, name)?);
            }
        }
    }
    Ok(table.text().to_owned())
}

fn one_disk(
    plan: &Plan,
    fixture: &Fixture,
    bytes: u64,
    shape: Shape,
    name: String,
) -> Result<Vec<String>> {
    let volume = disks::make(fixture, bytes, shape)?;
    let folder = fixture.pool().join("bench");
    std::fs::create_dir(&folder)?;
    if fixture.fs.kind() == FsKind::Btrfs {
        // Btrfs shares blocks only between files of one kind, and the pool's are not copied on write.
        pool::sys::set_nocow(&File::open(&folder)?)?;
    }
    let mut bench = Bench {
        fixture,
        volume: &volume,
        folder,
        tables: Tables::default(),
        times: BTreeMap::new(),
    };
    for round in 0..plan.rounds {
        for at in 0..Way::CHEAP.len() {
            plan.go_on()?;
            bench.run(Way::CHEAP[(at + round) % Way::CHEAP.len()])?;
        }
    }
    for round in 0..plan.converts(bytes) {
        for at in 0..Way::DEAR.len() {
            plan.go_on()?;
            bench.run(Way::DEAR[(at + round) % Way::DEAR.len()])?;
        }
    }
    let extents = disks::extents(&bench.image())?;
    let row = bench.row(name, extents, shape);
    std::fs::remove_dir(&bench.folder)?;
    disks::remove(fixture, &volume);
    Ok(row)
}

impl Bench<'_> {
    fn run(&mut self, way: Way) -> Result<()> {
        match way {
            Way::Snapshot => self.snapshot()?,
            // Measured with the snapshot, without which there is nothing to restore.
            Way::Restore => {}
            Way::Clone | Way::Least => self.clone_with_fsyncs(way)?,
            Way::CopyReflink => self.copy_reflink()?,
            Way::Convert | Way::ConvertOffload | Way::ConvertParallel => self.convert(way)?,
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<()> {
        let csi = &self.fixture.csi;
        let request = requests::snapshot("bench-cut", &self.volume.volume_id);
        let started = Instant::now();
        let snapshot = csi.made_snapshot(request);
        let cut = started.elapsed();
        // Size 0: as large as the source.
        let request = requests::volume("bench-restored", 0, requests::block());
        let request = requests::from_snapshot(request, &snapshot.snapshot_id);
        let started = Instant::now();
        let restored = accepted(csi.create_volume(request));
        let made = started.elapsed();
        self.tables = Tables::of(
            &self.fixture.snapshot_file(&snapshot.snapshot_id),
            &self.image(),
        )?;
        accepted(csi.delete(&disks::id(restored)));
        accepted(csi.delete_cut(&snapshot.snapshot_id));
        self.note(Way::Snapshot, cut);
        self.note(Way::Restore, made);
        Ok(())
    }

    /// What any implementation has to do at least: a sync of what was written to the device, the one ioctl, and every
    /// fsync that makes a folder with two files durable before and after it is renamed into place. [`Way::Least`] is that with what
    /// a standalone qcow2 file that a call asks for takes in this design: an empty call of the server, looking up where the data is, the
    /// tables, ready made, and reading these back before the file gets its name.
    fn clone_with_fsyncs(&mut self, way: Way) -> Result<()> {
        let (parent, other) = (self.folder.join("tmp"), self.folder.join("done"));
        std::fs::create_dir(&parent)?;
        std::fs::create_dir(&other)?;
        let (folder, image) = (parent.join("copy"), self.image());
        let started = Instant::now();
        if way == Way::Least {
            let _answer = accepted(self.fixture.csi.probe());
        }
        File::open(&self.volume.target)?.sync_all()?;
        std::fs::create_dir(&folder)?;
        let mut options = File::options();
        let options = options.read(true).write(true).create_new(true);
        let target = options.open(folder.join("image"))?;
        if way == Way::Least {
            self.tables.put_before(&File::open(&image)?, &target)?;
        } else {
            pool::sys::clone_file(&File::open(&image)?, &target)?;
        }
        target.sync_all()?;
        if way == Way::Least {
            self.tables.ask_again(&target)?;
        }
        let mut record = File::create(folder.join("record"))?;
        record.write_all(&[b'r'; 600])?;
        record.sync_all()?;
        File::open(&folder)?.sync_all()?;
        if way == Way::Least {
            self.tables.compare(&target)?;
        }
        rename(&folder, &other.join("copy"))?;
        File::open(&parent)?.sync_all()?;
        File::open(&other)?.sync_all()?;
        let took = started.elapsed();
        std::fs::remove_file(other.join("copy/image"))?;
        std::fs::remove_file(other.join("copy/record"))?;
        for folder in [other.join("copy"), other, parent] {
            std::fs::remove_dir(folder)?;
        }
        self.note(way, took);
        Ok(())
    }

    fn copy_reflink(&mut self) -> Result<()> {
        let target = self.folder.join("copy");
        let (image, copy) = (text(&self.image()), text(&target));
        let started = Instant::now();
        let _quiet = tools::run("cp", &["--reflink=always", &image, &copy]);
        File::open(&target)?.sync_all()?;
        let took = started.elapsed();
        std::fs::remove_file(target)?;
        self.note(Way::CopyReflink, took);
        Ok(())
    }

    fn convert(&mut self, way: Way) -> Result<()> {
        let target = self.folder.join("copy.qcow2");
        let (image, copy) = (text(&self.image()), text(&target));
        let fixed = ["convert", "-f", "raw", "-O", "qcow2"];
        let arguments = [&fixed[..], way.options(), &[&image, &copy]].concat();
        let started = Instant::now();
        let status = Command::new("qemu-img").args(&arguments).status()?;
        ensure!(
            status.success(),
            "qemu-img {arguments:?} ended with {status}"
        );
        File::open(&target)?.sync_all()?;
        let took = started.elapsed();
        std::fs::remove_file(target)?;
        self.note(way, took);
        self.give_back()
    }

    /// Gives what was removed back to the machine's own disk, which has no room for all of it at once.
    fn give_back(&self) -> Result<()> {
        let status = Command::new("fstrim").arg(self.fixture.pool()).status()?;
        ensure!(status.success(), "fstrim ended with {status}");
        Ok(())
    }

    fn image(&self) -> PathBuf {
        self.fixture.image(&self.volume.volume_id)
    }

    fn note(&mut self, way: Way, took: Duration) {
        self.times.entry(way).or_default().push(took);
    }

    fn median(&self, way: Way) -> f64 {
        self.times.get(&way).map_or(0.0, |times| median_ms(times))
    }

    fn row(&self, name: String, extents: u64, shape: Shape) -> Vec<String> {
        let mut row = vec![name, extents.to_string()];
        row.extend(
            Way::CHEAP
                .iter()
                .chain(&Way::DEAR)
                .map(|way| ms(self.median(*way))),
        );
        let cut = self.median(Way::Snapshot) / self.median(Way::Clone);
        let made = self.median(Way::Restore) / self.median(Way::Clone);
        let faster = self.median(Way::Convert) / self.median(Way::Snapshot);
        row.extend([format!("{cut:.2}"), format!("{made:.2}")]);
        row.push(verdict(cut <= CLONE_LIMIT && made <= CLONE_LIMIT).to_owned());
        let least = self.median(Way::Least);
        let needed = least / self.median(Way::Clone);
        let above = self.median(Way::Snapshot) / least;
        row.extend([format!("{needed:.2}"), format!("{above:.2}")]);
        row.push(format!("{faster:.0}"));
        let asked = shape == Shape::Contiguous;
        row.push(
            if asked {
                verdict(faster >= CONVERT_LIMIT)
            } else {
                ""
            }
            .to_owned(),
        );
        row
    }
}

/// Bytes of a cluster of a snapshot, and of a block of a filesystem.
const CLUSTER: usize = 1 << 16;
const BLOCK: usize = 4096;

/// What a snapshot has before its data.
#[derive(Debug, Default)]
struct Tables {
    data_offset: u64,
    /// By their offset.
    pieces: Vec<(u64, Vec<u8>)>,
}

impl Tables {
    /// Of the snapshot `image` of `disk`.
    fn of(image: &Path, disk: &Path) -> Result<Self> {
        let image = File::open(image)?;
        let data_offset = image.metadata()?.len() - disk.metadata()?.len();
        let mut pieces = Vec::new();
        for offset in (0..data_offset).step_by(CLUSTER) {
            let mut piece = vec![0; CLUSTER];
            image.read_exact_at(&mut piece, offset)?;
            let used = piece.iter().rposition(|byte| *byte != 0);
            if let Some(last) = used {
                piece.truncate((last + 1).next_multiple_of(BLOCK));
                pieces.push((offset, piece));
            }
        }
        Ok(Self {
            data_offset,
            pieces,
        })
    }

    fn put_before(&self, disk: &File, target: &File) -> Result<()> {
        let bytes = disk.metadata()?.len();
        target.set_len(self.data_offset)?;
        pool::sys::clone_range(disk, 0, bytes, target, self.data_offset)?;
        look_up(target, self.data_offset)?;
        for (offset, piece) in &self.pieces {
            target.write_all_at(piece, *offset)?;
        }
        Ok(())
    }

    /// Lets the disk be asked for what was written, while the caller does something else.
    fn ask_again(&self, target: &File) -> Result<()> {
        let length = i64::try_from(self.data_offset)?;
        posix_fadvise(target, 0, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        let will_need = PosixFadviseAdvice::POSIX_FADV_WILLNEED;
        Ok(posix_fadvise(target, 0, length, will_need)?)
    }

    fn compare(&self, target: &File) -> Result<()> {
        let mut found = vec![0; CLUSTER];
        for (offset, piece) in &self.pieces {
            let found = &mut found[..piece.len()];
            target.read_exact_at(found, *offset)?;
            ensure!(found == piece, "the tables read back differently");
        }
        Ok(())
    }
}

/// Finds every run of data from byte `from` on.
fn look_up(file: &File, from: u64) -> Result<()> {
    let mut next = i64::try_from(from)?;
    loop {
        match lseek(file, next, Whence::SeekData) {
            Ok(data) => next = lseek(file, data, Whence::SeekHole)?,
            Err(Errno::ENXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "outside of the pool's folders, followed by the fsyncs"
)]
fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::rename(from, to)
}
