//! `vdctl snapshot export`: a snapshot as a file of its own, that appears under its name when it is complete and on disk.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;
use nix::unistd::linkat;
use pool::size::human;
use pool::{OpenSnapshot, SnapshotId, View};
use snapshot_engine::{Watch, export, export_compressed, restore};

use crate::args::{ExportArgs, FileFormat};
use crate::output::{self, Bar};

pub(crate) fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let view = View::open(&args.pool)?;
    let id = SnapshotId::parse(&args.id)?;
    if args.compress && args.format == FileFormat::Raw {
        bail!("a raw file cannot be compressed: leave out --compress, or write qcow2");
    }
    let snapshot = view.open_snapshot(&id)?;
    if let Some(damage) = &snapshot.record.damage
        && !args.damaged
    {
        bail!(
            "{id} is marked as damaged: {}. Its disk is not what was cut. Export another snapshot; --damaged exports what is left \
             of this one",
            damage.reason
        );
    }
    if args.out.symlink_metadata().is_ok() {
        bail!(
            "{} is there already: name another file, or remove it",
            args.out.display()
        );
    }
    let folder = match args.out.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let target = nameless(folder)?;
    write(&snapshot, &target, args)?;
    name(&target, &args.out)?;
    let durable = File::open(folder).and_then(|folder| folder.sync_all());
    durable.with_context(|| format!("sync {}", folder.display()))?;
    let bytes = target
        .metadata()
        .context("look at the exported file")?
        .len();
    output::print(&format!(
        "exported {id} to {} ({})\n",
        args.out.display(),
        human(bytes)
    ))
}

fn write(snapshot: &OpenSnapshot, target: &File, args: &ExportArgs) -> anyhow::Result<()> {
    let (image, record) = (snapshot.image(), &snapshot.record);
    let bar = Bar::new();
    let watch = Watch {
        progress: &|done, all| bar.at(done, all),
        ..Watch::UNWATCHED
    };
    match args.format {
        FileFormat::Qcow2 if args.compress => export_compressed(image, record, target, &watch)?,
        FileFormat::Qcow2 => export(image, record, target, &watch)?,
        FileFormat::Raw => {
            target
                .set_len(record.virtual_bytes)
                .context("size the exported file")?;
            restore(image, record, target, &watch)?;
            target.sync_all().context("sync the exported file")?;
        }
    }
    Ok(())
}

/// A file without a name: however this process ends, nothing is left of it.
fn nameless(folder: &Path) -> anyhow::Result<File> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(folder);
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EISDIR) => anyhow::anyhow!(
            "the filesystem of {} cannot hold an unfinished file without a name: export to a local disk (ext4, XFS, Btrfs, \
             tmpfs) and copy it from there",
            folder.display()
        ),
        _ => anyhow::Error::new(error).context(format!("make a file in {}", folder.display())),
    })
}

/// Gives the finished file its name, if nobody else has taken it meanwhile.
fn name(file: &File, path: &Path) -> anyhow::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    match linkat(
        AT_FDCWD,
        open.as_str(),
        AT_FDCWD,
        path,
        AtFlags::AT_SYMLINK_FOLLOW,
    ) {
        Err(Errno::EEXIST) => bail!("{} appeared meanwhile and is left alone", path.display()),
        named => named.with_context(|| format!("name the exported file {}", path.display())),
    }
}
