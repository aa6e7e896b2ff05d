//! The Kubernetes of the tests by hand: `make cluster-up`, `make cluster-down`, `make image`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use tests::cluster::{self, Cluster, Disk, Options};

/// A real Kubernetes on this machine, for tests and demonstrations.
#[derive(Debug, Parser)]
struct Arguments {
    /// The folder of the cluster.
    #[arg(long, global = true, default_value_os_t = Options::usual_folder())]
    folder: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Starts a cluster; one that runs stays as it is.
    Up {
        /// The filesystem of a node's /var/vd: xfs, btrfs or ext4. Once for each node; two with xfs if not given.
        #[arg(long = "disk", value_name = "FILESYSTEM")]
        disks: Vec<String>,
        /// Without VolumeSnapshot and snapshot-controller.
        #[arg(long)]
        no_snapshots: bool,
    },
    /// Ends everything of the cluster and removes its folder.
    Down,
    /// Imports a container image from an archive into all nodes.
    Import {
        /// The archive.
        archive: PathBuf,
    },
    /// Runs a command in the namespaces of a node.
    Exec {
        /// 1 for node-1.
        node: usize,
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Makes the container image of this project from the release build in a folder.
    Image {
        /// The folder with the programs.
        target: PathBuf,
        /// The image's tag; the version of the workspace if not given.
        #[arg(long)]
        tag: Option<String>,
        /// The archive to write.
        #[arg(long, default_value_os_t = cluster::own_archive())]
        archive: PathBuf,
    },
    /// Waits until its standard input ends, then does what `down` does: for test programs.
    Guard,
}

fn main() -> ExitCode {
    match act(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("FAILED: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: Arguments) -> Result<ExitCode> {
    let folder = arguments.folder;
    match arguments.what {
        What::Up {
            disks,
            no_snapshots,
        } => up(folder, &disks, !no_snapshots)?,
        What::Down => {
            let was_there = Cluster::stop(&folder)?;
            let folder = folder.display();
            say(&match was_there {
                true => format!("the cluster in {folder} is gone"),
                false => format!("there is no cluster in {folder}"),
            });
        }
        What::Import { archive } => running(&folder)?.import_image(&archive)?,
        What::Exec { node, command } => {
            let node = running(&folder)?.node(node)?;
            let status = node.command(&command[0])?.args(&command[1..]).status()?;
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(ExitCode::from(code.unwrap_or(1)));
        }
        What::Image {
            target,
            tag,
            archive,
        } => {
            cluster::make_image(&target, tag.as_deref(), &archive)?;
            say(&archive.display().to_string());
        }
        What::Guard => cluster::guard(&folder)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn up(folder: PathBuf, disks: &[String], snapshots: bool) -> Result<()> {
    let started = Instant::now();
    if let Some(cluster) = Cluster::running(&folder)? {
        say(&format!("the cluster in {} runs already", folder.display()));
        say(&format!(
            "export KUBECONFIG={}",
            cluster.kubeconfig().display()
        ));
        return Ok(());
    }
    let mut options = Options::new(folder);
    options.snapshots = snapshots;
    if !disks.is_empty() {
        let kinds = disks.iter().map(|name| cluster::filesystem(name));
        let disk = |kind| Disk {
            kind,
            ..Disk::default()
        };
        options.disks = kinds.map(|kind| kind.map(disk)).collect::<Result<_>>()?;
    }
    let cluster = Cluster::start(&options)?;
    let (nodes, took) = (cluster.nodes().len(), started.elapsed());
    say(&format!(
        "a cluster of {nodes} nodes runs, after {took:.1?}"
    ));
    say(&format!(
        "export KUBECONFIG={}",
        cluster.kubeconfig().display()
    ));
    Ok(())
}

fn running(folder: &std::path::Path) -> Result<Cluster> {
    match Cluster::running(folder).context("look for the cluster")? {
        Some(cluster) => Ok(cluster),
        None => bail!(
            "no cluster runs in {}: `make cluster-up` starts one",
            folder.display()
        ),
    }
}

fn say(line: &str) {
    // Nobody listens any more: there is nothing to be done about that.
    let _lost = writeln!(std::io::stdout(), "{line}");
}
