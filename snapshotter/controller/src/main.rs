//! `snapshotter`: VolumeSnapshots of one CSI driver, beside that driver's socket.

mod args;

use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use snapshotter::{Backoff, Mode, Options, Program, SETTLES};
use telemetry::http::Endpoints;
use telemetry::prometheus::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::args::Args;

/// How long a stop waits for what was begun. Kubernetes kills after 30 s; what a call was made for is marked, and goes on later.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    telemetry::log::start(args.log_json);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("snapshotter")
        .enable_all()
        .build()
        .context("start the runtime")?;
    let served = runtime.block_on(serve(args));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let client = client(&args).await?;
    let probes = telemetry::http::Server::bind(args.metrics_listen)
        .await
        .with_context(|| format!("listen on --metrics-listen {}", args.metrics_listen))?;
    tracing::info!(metrics = %probes.address()?, csi = args.csi_address, "started");
    let (stop, stopped) = watch::channel(false);
    let mut working = Box::pin(work(args, client, probes, stopped));
    tokio::select! {
        // Only an error ends it by itself.
        ended = &mut working => return ended,
        asked = wait_for_signal() => asked?,
    }
    tracing::info!("stopping");
    stop.send_replace(true);
    match tokio::time::timeout(PATIENCE, working).await {
        Ok(ended) => ended,
        // A call of the driver still runs.
        Err(_patience_is_over) => Ok(()),
    }
}

async fn work(
    args: Args,
    client: Client,
    probes: telemetry::http::Server,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut registry = Registry::default();
    let ours = registry.sub_registry_with_prefix("vd");
    telemetry::build::register(ours, "snapshotter", env!("CARGO_PKG_VERSION"));
    telemetry::process::register(ours);
    let options = options(args, &client);
    let program = Program::new(options, &mut registry)?;
    let endpoints = Endpoints {
        registry,
        healthy: Box::new(|| Ok(())),
        ready: Box::new(program.readiness()),
    };
    tokio::select! {
        ended = program.run(client, stopped) => ended,
        never = probes.run(endpoints) => match never {},
    }
}

fn options(args: Args, client: &Client) -> Options {
    // As csi-snapshotter finds it, whose Lease it is.
    let namespace = args
        .leader_election_namespace
        .or_else(|| std::env::var("POD_NAMESPACE").ok())
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or_else(|| client.default_namespace().to_owned());
    Options {
        mode: match args.mode {
            args::Mode::Full => Mode::Full,
            args::Mode::Sidecar => Mode::Sidecar,
        },
        driver_name: args.driver_name,
        csi_address: args.csi_address,
        timeout: args.timeout,
        backoff: Backoff {
            first: args.retry_interval_start,
            most: args.retry_interval_max,
            most_refused: args.refused_interval_max,
        },
        settles: args.settles.unwrap_or(SETTLES),
        extra_create_metadata: args.extra_create_metadata,
        lease_namespace: args.leader_election.then_some(namespace),
        upstream_lease_namespace: args.upstream_lease_namespace,
        identity: std::env::var("POD_NAME").unwrap_or_else(|_| "snapshotter".to_owned()),
    }
}

async fn client(args: &Args) -> anyhow::Result<Client> {
    let config = match &args.kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file)
                .with_context(|| format!("read --kubeconfig {}", file.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("use --kubeconfig {}", file.display()))?
        }
        None => Config::infer()
            .await
            .context("find the API server; outside of a pod, give --kubeconfig")?,
    };
    api::client(&config).context("set up the client of the API server")
}

async fn wait_for_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
