//! `csi-controller`: Identity and Controller on a unix socket, for the sidecars beside it.

mod args;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use csi_controller::kubernetes::{KubernetesBackend, Patience, keepers};
use csi_controller::socket::Socket;
use csi_controller::{ControllerService, DriverName, IdentityService};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use proto::csi::v1::controller_server::ControllerServer;
use proto::csi::v1::identity_server::IdentityServer;
use telemetry::grpc::GrpcLayer;
use telemetry::http::Endpoints;
use telemetry::prometheus::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tonic::transport::Server;

use crate::args::Args;

/// How long a stop waits for calls. Kubernetes kills after 30 s; whoever waits for an agent is told at the next call.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    telemetry::log::start(args.log_json);
    csi_controller::open_files::raise();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("csi-controller")
        .enable_all()
        .build()
        .context("start the runtime")?;
    let served = runtime.block_on(serve(args));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let name = DriverName::new(args.driver_name.clone())?;
    let client = client(&args).await?;
    let patience = Patience {
        call: args.timeout,
        ..Patience::default()
    };
    let backend = Arc::new(KubernetesBackend::new(client.clone(), patience));
    let mut registry = telemetry::registry("csi-controller", env!("CARGO_PKG_VERSION"));
    let measured = GrpcLayer::register(&mut registry);
    let probes = telemetry::http::Server::bind(args.metrics_listen)
        .await
        .with_context(|| format!("listen on --metrics-listen {}", args.metrics_listen))?;
    let (socket, connections) = Socket::bind(&args.listen)?;
    tracing::info!(listen = args.listen, metrics = %probes.address()?, "serving");
    let options = keepers::Options {
        driver: args.driver_name,
        snapshot_class: args.snapshot_class,
        instance: std::env::var("POD_NAME").ok(),
        metrics: keepers::Metrics::register(&mut registry),
    };
    let mut background = background(client, &backend, options);
    let probes = probes.run(endpoints(registry, &backend));
    background.spawn(async { match probes.await {} });
    let identity = IdentityService::new(
        name.clone(),
        env!("CARGO_PKG_VERSION"),
        Arc::clone(&backend),
    );
    let controller = ControllerService::new(&name, backend);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let server = Server::builder()
        .layer(measured)
        .add_service(IdentityServer::new(identity))
        .add_service(ControllerServer::new(controller))
        .serve_with_incoming_shutdown(connections, async {
            stopped.await.ok();
        });
    let mut server = tokio::spawn(server);
    tokio::select! {
        told = wait_for_signal() => told?,
        why = ended(&mut background) => return Err(why),
        ended = &mut server => {
            ended.context("the server ended")?.context("serve")?;
            anyhow::bail!("the server has ended");
        }
    }
    tracing::info!("stopping");
    stop.send(()).ok();
    let drained = tokio::time::timeout(PATIENCE, server).await;
    background.abort_all();
    drop(socket);
    match drained {
        Ok(ended) => ended.context("the server ended")?.context("serve"),
        // A call still waits for an agent, which goes on; the caller calls again and joins.
        Err(_patience_is_over) => Ok(()),
    }
}

/// An API server that is away is no reason for a restart: only readiness depends on it.
fn endpoints(registry: Registry, backend: &Arc<KubernetesBackend>) -> Endpoints {
    let backend = Arc::clone(backend);
    Endpoints {
        registry,
        healthy: Box::new(|| Ok(())),
        ready: Box::new(move || backend.check_ready().map_err(|failure| failure.message)),
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

/// What goes on beside the calls, for ever.
fn background(
    client: Client,
    backend: &Arc<KubernetesBackend>,
    options: keepers::Options,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn({
        let backend = Arc::clone(backend);
        async move { backend.run().await }
    });
    tasks.spawn({
        let backend = Arc::clone(backend);
        async move { Box::pin(keepers::run(client, &backend, &options)).await }
    });
    tasks
}

/// Why one of the tasks has ended, which none does by itself. Without one of them the probes would find nothing wrong, and nothing
/// would work.
async fn ended(background: &mut JoinSet<()>) -> anyhow::Error {
    let what = "a task that never ends has ended";
    match background.join_next().await {
        Some(Err(error)) => anyhow::Error::new(error).context(what),
        Some(Ok(())) | None => anyhow::anyhow!(what),
    }
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
