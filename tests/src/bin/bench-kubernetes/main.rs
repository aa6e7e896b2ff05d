//! `make bench-kubernetes`: how long claims and snapshots take on a real cluster, and what the driver's processes need there, as
//! Markdown for `docs/performance.md`.
//!
//! Times are those of a watch on the API server: from the event that shows an object to the event that shows it done, so that
//! starting `kubectl` counts for nothing.

mod objects;
mod processes;
mod watch;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use tests::cluster::{self, Cluster, Options};
use tests::kubernetes;

use crate::objects::{claims, snapshot};
use crate::watch::Watch;

/// The namespace of everything that is made.
const NAMESPACE: &str = "vd-bench";
/// Objects that are made one after the other.
const ALONE: usize = 15;
/// Claims that are made at once.
const BURST: usize = 40;
/// Volumes with which memory and processor time are measured, on two nodes: 100 on each.
const VOLUMES: usize = 200;
/// How long processor time is counted.
const IDLE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(
                std::io::stderr(),
                "bench-kubernetes: FAILED: {error:#}"
            ));
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let folder = Options::usual_folder().with_file_name("bench");
    let program = std::env::current_exe()?.with_file_name("cluster");
    let program = program
        .to_str()
        .context("the path of a program is not text")?;
    // Takes the cluster apart also when this is killed.
    let guard = cluster::guarded(program, &folder)?;
    let mut options = Options::new(folder.clone());
    // It binds claims, with three writes for each: at its default of 20 requests a second it would be what is measured.
    options.controller_manager = ["--kube-api-qps=200", "--kube-api-burst=400"]
        .map(str::to_owned)
        .to_vec();
    // As on a cluster that has nothing but what is shipped: snapshotter does both jobs.
    options.snapshot_controller = false;
    let cluster = Cluster::start(&options)?;
    let measured = measure(&cluster);
    let stopped = Cluster::stop(&folder).map(drop);
    drop(guard);
    measured.and(stopped)
}

fn measure(cluster: &Cluster) -> Result<()> {
    kubernetes::install(cluster);
    let _namespace = cluster.kubectl(&["create", "namespace", NAMESPACE])?;
    cluster.wait_for("serviceaccount/default", "create", &["-n", NAMESPACE])?;
    row(&["what", "measured", "aim"]);
    row(&["---", "---:", "---:"]);
    let single = one_by_one(cluster)?;
    row(&[
        "claim (immediate) created to Bound, one at a time, p50",
        &ms(single),
        "400 ms",
    ]);
    let (rate, last) = burst(cluster)?;
    let text = format!("{rate:.0}/s ({} for {BURST})", ms(last));
    row(&["claims at once, Bound", &text, "20/s"]);
    let (cut, restored) = snapshots(cluster)?;
    row(&[
        "VolumeSnapshot created to readyToUse, p50",
        &ms(cut),
        "1800 ms",
    ]);
    row(&[
        "claim that restores one, created to Bound, p50",
        &ms(restored),
        "",
    ]);
    needs(cluster)
}

/// Claims one after the other; the median time from the first sight of one to Bound.
fn one_by_one(cluster: &Cluster) -> Result<Duration> {
    let mut times = Vec::new();
    for number in 0..ALONE {
        let mut watch = claims_of(cluster)?;
        let name = format!("alone-{number}");
        apply(cluster, &claims(std::slice::from_ref(&name), None))?;
        times.push(watch.until(&[name], &json!("Bound"))?);
    }
    Ok(median(times))
}

/// Many claims in one go: claims per second, and when the last was Bound.
fn burst(cluster: &Cluster) -> Result<(f64, Duration)> {
    let names: Vec<String> = (0..BURST).map(|number| format!("burst-{number}")).collect();
    let mut watch = claims_of(cluster)?;
    apply(cluster, &claims(&names, None))?;
    let last = watch.until(&names, &json!("Bound"))?;
    #[expect(clippy::cast_precision_loss, reason = "dozens")]
    let count = BURST as f64;
    Ok((count / last.as_secs_f64(), last))
}

fn snapshots(cluster: &Cluster) -> Result<(Duration, Duration)> {
    let (mut cuts, mut restores) = (Vec::new(), Vec::new());
    for number in 0..ALONE {
        let name = format!("cut-{number}");
        let mut watch = snapshots_of(cluster)?;
        apply(cluster, &snapshot(&name, "alone-0"))?;
        cuts.push(watch.until(std::slice::from_ref(&name), &json!(true))?);
        let mut watch = claims_of(cluster)?;
        let claim = format!("restored-{number}");
        apply(cluster, &claims(std::slice::from_ref(&claim), Some(&name)))?;
        restores.push(watch.until(&[claim], &json!("Bound"))?);
    }
    Ok((median(cuts), median(restores)))
}

/// Memory and processor time of the driver's programs with [`VOLUMES`] volumes and nothing to do.
fn needs(cluster: &Cluster) -> Result<()> {
    let there = 2 * ALONE + BURST;
    let names: Vec<String> = (there..VOLUMES)
        .map(|number| format!("more-{number}"))
        .collect();
    let mut watch = claims_of(cluster)?;
    apply(cluster, &claims(&names, None))?;
    let _last = watch.until(&names, &json!("Bound"))?;
    drop(watch);
    let before = processes::of(cluster)?;
    let started = Instant::now();
    std::thread::sleep(IDLE);
    let after = processes::of(cluster)?;
    for (program, aim) in [("csi-node", "24 MiB"), ("csi-controller", "32 MiB")] {
        let largest = processes::resident_kib(&after, program);
        row(&[
            &format!("{program}: memory with {VOLUMES} volumes on two nodes, the larger of two"),
            &format!("{}.{} MiB", largest / 1024, largest % 1024 * 10 / 1024),
            aim,
        ]);
        let used = processes::millicores(&before, &after, program, started.elapsed());
        row(&[
            &format!("{program}: processor time when idle, the busier of two"),
            &format!("{used:.1} m"),
            "5 m",
        ]);
    }
    Ok(())
}

fn claims_of(cluster: &Cluster) -> Result<Watch> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims");
    Watch::start(cluster, &path, "/status/phase")
}

fn snapshots_of(cluster: &Cluster) -> Result<Watch> {
    let path = format!("/apis/snapshot.storage.k8s.io/v1/namespaces/{NAMESPACE}/volumesnapshots");
    Watch::start(cluster, &path, "/status/readyToUse")
}

fn apply(cluster: &Cluster, manifest: &str) -> Result<()> {
    cluster.apply(manifest)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

fn row(cells: &[&str]) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "| {} |", cells.join(" | ")));
}
