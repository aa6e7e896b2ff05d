//! `vdctl serve`: Identity, Controller and Node of one pool on one unix socket.

mod backend;
mod convert;
mod health;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use csi_controller::socket::Socket;
use csi_controller::{ControllerService, DriverName, IdentityService};
use csi_node::local_node::Scrub;
use csi_node::pool_handle::PoolHandle;
use csi_node::{AdminService, LocalNode, NodeService};
use pool::attach::target::TargetBase;
use pool::capacity::Policy;
use pool::{Options, View};
use proto::admin::admin_server::AdminServer;
use proto::csi::v1::controller_server::ControllerServer;
use proto::csi::v1::identity_server::IdentityServer;
use proto::csi::v1::node_server::NodeServer;
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Server;

use self::backend::InProcess;
use crate::args::ServeArgs;
use crate::commands::machine_name;

/// How often the pool is looked after when nobody asks for anything.
const MAINTENANCE: Duration = Duration::from_secs(5);
/// How long a stop waits for calls and operations. Kubernetes kills after 30 s.
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves until SIGTERM or SIGINT. What is published goes on working afterwards.
pub(crate) fn run(args: ServeArgs) -> anyhow::Result<()> {
    telemetry::log::start(args.log_json);
    csi_controller::open_files::raise();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("vdctl")
        .enable_all()
        .build()
        .context("start the runtime")?;
    let served = runtime.block_on(serve(args));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let name = DriverName::new(args.driver_name.clone())?;
    let node = local_node(&args)?;
    let backend = Arc::new(InProcess::new(node.clone()));
    let (socket, connections) = Socket::bind(&args.listen)?;
    tracing::info!(listen = args.listen, node = node.name(), "serving");
    let identity = IdentityService::new(
        name.clone(),
        env!("CARGO_PKG_VERSION"),
        Arc::clone(&backend),
    );
    let controller = ControllerService::new(&name, backend);
    let node_service = NodeService::new(name.as_str(), node.clone(), TargetBase::anywhere());
    let scrub = Scrub {
        period: args.scrub_period,
        rate: args.scrub_rate,
    };
    let maintenance = tokio::spawn({
        let node = node.clone();
        async move {
            tokio::join!(node.maintain(MAINTENANCE), node.look_after_snapshots(scrub));
        }
    });
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let server = Server::builder()
        .add_service(IdentityServer::new(identity))
        .add_service(ControllerServer::new(controller))
        .add_service(NodeServer::new(node_service))
        .add_service(AdminServer::new(AdminService::new(node.clone())))
        .serve_with_incoming_shutdown(connections, async {
            stopped.await.ok();
        });
    let server = tokio::spawn(server);
    wait_for_signal().await?;
    tracing::info!("stopping");
    maintenance.abort();
    stop.send(()).ok();
    let (drained, ()) = tokio::join!(tokio::time::timeout(PATIENCE, server), node.stop(PATIENCE));
    drop(socket);
    match drained {
        Ok(ended) => ended.context("the server ended")?.context("serve"),
        // A client keeps a call open; the operation itself was waited for.
        Err(_patience_is_over) => Ok(()),
    }
}

fn local_node(args: &ServeArgs) -> anyhow::Result<LocalNode> {
    let options = Options {
        node: args.node_id.clone(),
        uuid: None,
        policy: Policy {
            overcommit: args.overcommit,
            reserve: args.reserve,
        },
    };
    let name = match &args.node_id {
        Some(name) => name.clone(),
        None => match View::open(&args.pool) {
            Ok(view) => view.marker().node.clone(),
            Err(_not_yet_a_pool) => machine_name()?,
        },
    };
    Ok(LocalNode::new(
        name,
        PoolHandle::new(args.pool.clone(), options),
    ))
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
