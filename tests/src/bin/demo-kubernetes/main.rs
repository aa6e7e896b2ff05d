//! `make demo-kubernetes`: the shipped image and manifest on a real Kubernetes, and the life of two volumes on it.
//!
//! It uses the cluster of `make cluster-up` if one runs, and leaves that one running; else it starts one of its own and takes it
//! away again. Everything it says was found true in that run. It ends with exit code 0 only then.

mod objects;
mod stage;
mod story;

use std::process::{Child, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tests::cluster::{self, Cluster, Options};

use crate::stage::{Stage, chapter, fact, line};

fn main() -> ExitCode {
    let started = Instant::now();
    match demo() {
        Ok(()) => {
            line(format!(
                "\nDone in {:.0} s.",
                started.elapsed().as_secs_f64()
            ));
            ExitCode::SUCCESS
        }
        Err(error) => {
            line(format!("\nFAILED: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    line("vd-csi on Kubernetes: a claim, a pod, growth, a snapshot, a restore, a clone\n");
    let archive = cluster::own_archive();
    ensure!(
        archive.is_file(),
        "there is no image at {}: use `make demo-kubernetes`",
        archive.display()
    );
    let folder = Options::usual_folder();
    let running = Cluster::running(&folder)?;
    let is_own = running.is_none();
    let (cluster, guard) = match running {
        Some(cluster) => (cluster, None),
        None => start(&folder)?,
    };
    fact(
        "cluster",
        "two nodes, each with kubelet, containerd and an XFS at /var/vd of its own",
    );
    let told = play(&cluster, &archive);
    let ended = if is_own {
        let stopped = Cluster::stop(&folder).map(drop);
        if stopped.is_ok() && told.is_ok() {
            fact(
                "cluster",
                "stopped; no process, mount, device or file of it is left",
            );
        }
        stopped
    } else {
        fact("cluster", "left running: `make cluster-down` ends it");
        Ok(())
    };
    drop(guard);
    told.and(ended)
}

/// A cluster of our own, and a guard that takes it apart also when we are killed.
fn start(folder: &std::path::Path) -> Result<(Cluster, Option<Child>)> {
    let program = std::env::current_exe()?.with_file_name("cluster");
    let program = program
        .to_str()
        .context("the path of a program is not text")?;
    let guard = cluster::guarded(program, folder)?;
    let mut options = Options::new(folder.to_owned());
    // The manifest brings all that snapshots need.
    options.snapshot_controller = false;
    Ok((Cluster::start(&options)?, Some(guard)))
}

fn play(cluster: &Cluster, archive: &std::path::Path) -> Result<()> {
    let stage = Stage::new(cluster);
    stage.install(archive)?;
    let told = story::tell(&stage);
    if told.is_err() {
        line("\nThis did not work out; taking everything away again.");
    } else {
        chapter("6. And everything is deleted again");
    }
    let cleared = stage.clear(told.is_ok());
    told.and(cleared)
}
