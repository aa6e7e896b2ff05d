//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use csi_node::local_node::{Period, Rate};
use pool::capacity::Reserve;

/// Volumes and snapshots on local disks.
#[derive(Debug, Parser)]
#[command(name = "vdctl", version, about, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make, look at and check a pool
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Look at volumes
    #[command(subcommand)]
    Volume(ObjectCommand),
    /// Look at snapshots, export, import and verify them
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Look at image files
    #[command(subcommand)]
    Image(ImageCommand),
    /// Serve one pool as a CSI driver on a unix socket, without Kubernetes
    Serve(ServeArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Make a pool in an existing folder (mount its disk there first)
    Init {
        /// The folder
        dir: PathBuf,
        /// The node it belongs to [default: this machine's name]
        #[arg(long)]
        node: Option<String>,
    },
    /// Who the pool is, how full, what is wrong
    Status(ReadArgs),
    /// Prove that everything in the pool is as it has to be. Exit status: 0 clean, 1 findings, 2 could not check
    Check(ReadArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ObjectCommand {
    /// All of them, a line each
    List(ReadArgs),
    /// Everything known of one
    Show {
        /// Its id, as `list` shows it
        id: String,
        #[command(flatten)]
        read: ReadArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    #[command(flatten)]
    Look(ObjectCommand),
    /// Write a snapshot's disk to a file that any tool for images reads; works with the agent up or down
    Export(ExportArgs),
    /// Make a snapshot of a disk image from elsewhere; everything about it is checked first. While the pool is not served
    Import(ImportArgs),
    /// Read a snapshot and hold it against its record: its metadata, and its data if it has a digest. Damage is marked, and
    /// nothing is restored from the snapshot any more; a mark without damage is taken back. Exit status: 0 sound, 1 damaged,
    /// 2 could not check
    Verify(VerifyArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct VerifyArgs {
    /// The snapshot's id, as `list` shows it
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// The socket of the process that owns the pool, which then sets the mark [default: where `vdctl serve` and csi-node
    /// listen]. Not needed when none runs
    #[arg(long)]
    pub(crate) agent: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ExportArgs {
    /// The snapshot's id, as `list` shows it
    pub(crate) id: String,
    /// The file to make. It appears when it is complete and on disk, and replaces none
    pub(crate) out: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value_t = FileFormat::Qcow2)]
    pub(crate) format: FileFormat,
    /// Compress the qcow2 file with zstd (qemu 5.1 or later reads it)
    #[arg(long)]
    pub(crate) compress: bool,
    /// Also a snapshot that is marked as damaged, to save of it what can be saved
    #[arg(long)]
    pub(crate) damaged: bool,
    /// The pool's folder
    #[arg(long, default_value = "/var/vd")]
    pub(crate) pool: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    /// A compact qcow2 file: as large as what is allocated, without holes
    Qcow2,
    /// The disk byte for byte; what is not allocated is a hole
    Raw,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ImportArgs {
    /// The file: a regular one, links are not followed
    pub(crate) file: PathBuf,
    /// What it is; its bytes are never asked
    #[arg(long, value_enum, default_value_t = FileFormat::Qcow2)]
    pub(crate) format: FileFormat,
    /// The snapshot's name, from which its id is made [default: the file's name without its ending]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The disk is this filesystem, for volumes that pods mount [default: it is a disk for VMs, a raw device]
    #[arg(long, value_enum)]
    pub(crate) fs_type: Option<Filesystem>,
    /// Let the pool's server compress it afterwards
    #[arg(long)]
    pub(crate) compress: bool,
    /// Let the pool's server digest its data afterwards, and hold it against that again and again
    #[arg(long)]
    pub(crate) checksum: bool,
    /// The pool's folder
    #[arg(long, default_value = "/var/vd")]
    pub(crate) pool: PathBuf,
    /// As for `serve`
    #[arg(long, default_value = "1.0", value_parser = overcommit)]
    pub(crate) overcommit: f64,
    /// As for `serve`
    #[arg(long, default_value = "10%")]
    pub(crate) reserve: Reserve,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Filesystem {
    /// ext4
    Ext4,
    /// XFS
    Xfs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Hold a qcow2 file, whoever made it, against what is accepted. Exit status: 0 accepted, 1 refused, 2 could not check
    Check(ImageCheckArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ImageCheckArgs {
    /// The file: a regular one, links are not followed
    pub(crate) file: PathBuf,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Let another library read an accepted image too and compare all its data
    #[arg(long)]
    pub(crate) second_opinion: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ReadArgs {
    /// The pool's folder
    #[arg(long, default_value = "/var/vd")]
    pub(crate) pool: PathBuf,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ServeArgs {
    /// The pool's folder
    #[arg(long, default_value = "/var/vd")]
    pub(crate) pool: PathBuf,
    /// Where to listen: unix:///path/to/csi.sock
    #[arg(long, default_value = "unix:///run/vd/csi.sock")]
    pub(crate) listen: String,
    /// The node's name, which has to be the pool's [default: what the pool says, or this machine's name]
    #[arg(long)]
    pub(crate) node_id: Option<String>,
    /// The driver's name
    #[arg(long, default_value = "vd.csi.io")]
    pub(crate) driver_name: String,
    /// How much may be promised for each byte there is; above 1.0 a guest can meet a full disk
    #[arg(long, default_value = "1.0", value_parser = overcommit)]
    pub(crate) overcommit: f64,
    /// What is kept back of the filesystem: a percentage (10%) or a size (5GiB)
    #[arg(long, default_value = "10%")]
    pub(crate) reserve: Reserve,
    /// How long after it was found sound a snapshot with a data digest is read again: 7d, 12h, 30m, 90s, or never
    #[arg(long, default_value = "7d")]
    pub(crate) scrub_period: Period,
    /// How much is read in a second for that, at most
    #[arg(long, default_value = "32MiB")]
    pub(crate) scrub_rate: Rate,
    /// Log as JSON
    #[arg(long)]
    pub(crate) log_json: bool,
}

fn overcommit(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.1..=1000.0).contains(&ratio) => Ok(ratio),
        _ => Err("give a number from 0.1 to 1000".to_owned()),
    }
}
