//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
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
    /// Look at snapshots
    #[command(subcommand)]
    Snapshot(ObjectCommand),
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
