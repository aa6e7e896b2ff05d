//! `vdctl snapshot import`: a disk image from elsewhere as a snapshot of a pool.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, bail};
use pool::capacity::Policy;
use pool::fault::{Step, reached};
use pool::record::{
    Checksum, Compression, Format, FormatState, FsType, SnapshotRecord, Timestamp, VolumeMode,
};
use pool::size::{MIB, human};
use pool::{ImportedSnapshot, Options, Pool, SnapshotContent, SnapshotId, View};
use snapshot_engine::{Cut, MIN_VIRTUAL_BYTES, Watch, import_qcow2, import_raw, reader};

use crate::args::{FileFormat, Filesystem, ImportArgs};
use crate::output::{self, Bar};

pub(crate) fn run(args: &ImportArgs) -> anyhow::Result<()> {
    refuse_if_served(&args.pool)?;
    let file = reader::open(&args.file).with_context(|| args.file.display().to_string())?;
    let before = stamp(&file)?;
    let mut source = Source::check(&file, args.format)
        .with_context(|| format!("{} is not imported", args.file.display()))?;
    let options = Options {
        policy: Policy {
            overcommit: args.overcommit,
            reserve: args.reserve,
        },
        ..Options::default()
    };
    let name = name(args)?;
    let pool = Pool::open(&args.pool, &options)?;
    let record = import(&pool, args, name, &mut source, &|| {
        if stamp(&file)? == before {
            return Ok(());
        }
        Err(pool::Error::new(
            pool::ErrorKind::Io,
            "the file changed while it was imported: try again when nobody writes to it",
        ))
    })?;
    output::print(&format!(
        "imported {} as {} ({}, {} with data)\n",
        args.file.display(),
        record.id,
        human(record.virtual_bytes),
        human(record.charge_bytes)
    ))
}

/// Whoever serves a pool owns it alone. A server that starts in this instant is met by the pool's lock.
fn refuse_if_served(path: &Path) -> anyhow::Result<()> {
    if View::open(path)?.is_owned()? {
        bail!(
            "the pool {} is served by a running process, and only its owner can add to it. Stop `vdctl serve` (or the node's \
             csi-node pod) for the time of the import: what is published goes on working",
            path.display()
        );
    }
    Ok(())
}

/// What changes with a file.
fn stamp(file: &File) -> pool::Result<(u64, i64, i64)> {
    use pool::Context;
    let metadata = file.metadata().during("look at the file")?;
    Ok((metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

/// A file that can be imported: everything about it was checked.
enum Source<'f> {
    Qcow2(Box<reader::Image<'f>>),
    Raw(&'f File, u64),
}

impl<'f> Source<'f> {
    fn check(file: &'f File, format: FileFormat) -> anyhow::Result<Self> {
        match format {
            FileFormat::Qcow2 => Ok(Self::Qcow2(Box::new(reader::check(file)?))),
            FileFormat::Raw => {
                let bytes = file.metadata().context("look at the file")?.len();
                if bytes == 0 {
                    bail!("the file is empty");
                }
                Ok(Self::Raw(file, bytes))
            }
        }
    }

    fn virtual_bytes(&self) -> u64 {
        match self {
            Self::Qcow2(image) => image.facts().virtual_bytes,
            Self::Raw(_, bytes) => *bytes,
        }
    }

    /// How much data it has at most.
    fn data_bytes(&self) -> anyhow::Result<u64> {
        match self {
            Self::Qcow2(image) => Ok(image.facts().allocated_bytes()),
            Self::Raw(file, bytes) => {
                let allocated = file.metadata().context("look at the file")?.blocks() * 512;
                // A filesystem that compresses allocates less than a copy will take.
                Ok(allocated.max(MIB).min(*bytes))
            }
        }
    }
}

/// The name: the one that was given, or the file's own.
fn name(args: &ImportArgs) -> anyhow::Result<String> {
    const LONGEST: usize = 128;
    let given = args.name.clone();
    let own = || args.file.file_stem()?.to_str().map(str::to_owned);
    let name = given.or_else(own).context("give the snapshot a --name")?;
    if name.is_empty() || name.chars().count() > LONGEST || name.chars().any(char::is_control) {
        bail!(
            "a name has 1 to {LONGEST} characters, none of them a control character: give --name"
        );
    }
    Ok(name)
}

fn import(
    pool: &Pool,
    args: &ImportArgs,
    name: String,
    source: &mut Source<'_>,
    unchanged: &dyn Fn() -> pool::Result<()>,
) -> anyhow::Result<SnapshotRecord> {
    let requested = source.virtual_bytes();
    let new = ImportedSnapshot {
        id: SnapshotId::from_name(&name),
        name,
        requested_bytes: requested,
        mode: mode(args.fs_type),
        data_bytes: source.data_bytes()?,
        compression: args.compress.then_some(Compression::Zstd),
        checksum: args.checksum.then_some(Checksum::Blake3),
    };
    // As for a volume of that size, so that it can be restored into one.
    let virtual_bytes = requested.next_multiple_of(MIB).max(MIN_VIRTUAL_BYTES);
    let record = pool.import_snapshot(new, |image| {
        let cut = Cut::prepare(image, virtual_bytes)?;
        fill(source, &cut, image)?;
        unchanged()?;
        reached(Step::SnapshotCut)?;
        let (captured, read_back) = cut.finish()?;
        let content = SnapshotContent {
            created: Timestamp::now(),
            virtual_bytes: captured.virtual_bytes,
            charge_bytes: captured.charge_bytes,
            data_offset: captured.data_offset,
            metadata_digest: captured.metadata_digest,
            extents: captured.runs,
            stall_us: 0,
        };
        Ok((content, Box::new(move |image| read_back.compare(image))))
    })?;
    Ok(record)
}

fn fill(source: &mut Source<'_>, cut: &Cut<'_>, image: &File) -> pool::Result<()> {
    let bar = Bar::new();
    let watch = Watch {
        progress: &|done, all| bar.at(done, all),
        ..Watch::UNWATCHED
    };
    match source {
        Source::Qcow2(checked) => import_qcow2(checked, cut, image, &watch),
        Source::Raw(file, _) => import_raw(file, cut, image, &watch),
    }
}

fn mode(filesystem: Option<Filesystem>) -> VolumeMode {
    let fs = match filesystem {
        None => return VolumeMode::Block,
        Some(Filesystem::Ext4) => FsType::Ext4,
        Some(Filesystem::Xfs) => FsType::Xfs,
    };
    VolumeMode::Filesystem(Format {
        fs,
        state: FormatState::Inherited,
    })
}
