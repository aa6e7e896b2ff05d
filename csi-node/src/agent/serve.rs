//! Starting and stopping everything.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use anyhow::Context;
use csi_controller::socket::Socket;
use csi_controller::{IdentityService, Readiness};
use pool::Options;
use pool::attach::target::TargetBase;
use prometheus_client::registry::Registry;
use proto::admin::admin_server::AdminServer;
use proto::csi::v1::identity_server::IdentityServer;
use proto::csi::v1::node_server::NodeServer;
use proto::errors::Failure;
use telemetry::grpc::GrpcLayer;
use telemetry::http::{Endpoints, Server as HttpServer};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tonic::transport::Server;

use super::events::Events;
use super::metrics::{Operations, PoolGauges};
use super::objects::Running;
use super::registration::{self, Plugin, Registered};
use super::standing::Standing;
use super::{Agent, PoolInit, Settings, connect, work};
use crate::pool_handle::PoolHandle;
use crate::{AdminService, LocalNode, NodeService};

/// How often the pool is looked after when nobody asks for anything.
const MAINTENANCE: Duration = Duration::from_secs(5);
/// How long a stop waits for calls and operations. Kubernetes kills after 30 s.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many changes of mounts may wait to be looked at.
const CHANGES: usize = 1024;

/// Serves until SIGTERM or SIGINT. What is mounted goes on working afterwards.
///
/// # Errors
/// When it cannot start: a socket or port is taken, or there is no way to the API server at all (one that does not answer is
/// no reason). When a part of it ends, which only a fault of ours can bring about.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut registry = telemetry::registry("csi-node", env!("CARGO_PKG_VERSION"));
    let layer = GrpcLayer::register(&mut registry);
    let agent = Arc::new(agent(&settings, &mut registry).await?);
    let node = agent.node.clone();
    let registered = Registered::default();
    let http = http(&settings, &agent, &registered, registry).await?;
    let (changes, changed) = mpsc::channel(CHANGES);
    let served = grpc(&settings, node.clone(), changes, layer)?;
    tracing::info!(listen = settings.listen, node = settings.node, "serving");
    let may_init = settings.init == PoolInit::Auto;
    let mut parts = Parts::default();
    parts.run("metrics and probes", async move { match http.await {} });
    parts.run("the upkeep of the pool", {
        let node = node.clone();
        async move { node.maintain(MAINTENANCE).await }
    });
    parts.run("the verification of snapshots", {
        let (node, scrub) = (node.clone(), settings.scrub);
        async move { node.look_after_snapshots(scrub).await }
    });
    parts.run("the work on objects", work(agent, may_init, changed));
    parts.run("the registration", register(&settings, registered)?);
    let Served {
        server,
        stop,
        socket,
    } = served;
    let mut server = tokio::spawn(server);
    let ended = tokio::select! {
        signal = wait_for_signal() => signal,
        ended = &mut server => {
            ended.context("the server ended")?.context("serve")?;
            anyhow::bail!("the server ended by itself");
        }
        ended = parts.first_end() => Err(ended),
    };
    tracing::info!("stopping");
    drop(parts);
    stop.send(()).ok();
    let (drained, ()) = tokio::join!(tokio::time::timeout(PATIENCE, server), node.stop(PATIENCE));
    drop(socket);
    match drained {
        Ok(served) => served.context("the server ended")?.context("serve")?,
        // A client keeps a call open; the operation itself was waited for.
        Err(_patience_is_over) => {}
    }
    ended
}

/// What runs as long as the agent does. With a part of it gone the rest would look healthy and not do its work: then the
/// agent ends, and kubelet starts it again; what is mounted goes on meanwhile.
#[derive(Debug, Default)]
struct Parts {
    tasks: JoinSet<()>,
    names: HashMap<tokio::task::Id, &'static str>,
}

impl Parts {
    fn run(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(part);
        self.names.insert(task.id(), name);
    }

    /// Waits until one of them ends, which none does by itself.
    async fn first_end(&mut self) -> anyhow::Error {
        let (id, how) = match self.tasks.join_next_with_id().await {
            None => return anyhow::anyhow!("there is nothing to run"),
            Some(Ok((id, ()))) => (id, "ended".to_owned()),
            Some(Err(error)) => (error.id(), error.to_string()),
        };
        let name = self.names.get(&id).copied().unwrap_or_default();
        anyhow::anyhow!("{name}: {how}")
    }
}

async fn agent(settings: &Settings, registry: &mut Registry) -> anyhow::Result<Agent> {
    let options = Options {
        node: Some(settings.node.clone()),
        uuid: None,
        policy: settings.policy,
    };
    let handle = PoolHandle::new(settings.pool.clone(), options);
    let client = connect::client(settings.kubeconfig.as_deref()).await?;
    Ok(Agent {
        node: LocalNode::new(settings.node.clone(), handle),
        events: Events::new(client.clone(), settings.driver.as_str(), &settings.node),
        client,
        operations: Operations::register(registry),
        pool_gauges: PoolGauges::register(registry),
        standing: Arc::new(Standing::default()),
        running: Running::default(),
        changed: Notify::new(),
        synced: AtomicUsize::new(0),
    })
}

struct Served<F> {
    server: F,
    stop: tokio::sync::oneshot::Sender<()>,
    socket: Socket,
}

/// Identity and Node on kubelet's socket, and what `vdctl` asks for.
fn grpc(
    settings: &Settings,
    node: LocalNode,
    changes: mpsc::Sender<String>,
    layer: GrpcLayer,
) -> anyhow::Result<Served<impl Future<Output = Result<(), tonic::transport::Error>> + use<>>> {
    let (socket, connections) = Socket::bind(&settings.listen)?;
    let identity = IdentityService::new(
        settings.driver.clone(),
        env!("CARGO_PKG_VERSION"),
        Ready(node.clone()),
    );
    let targets = TargetBase::kubelet(settings.kubelet_dir.clone());
    let admin = AdminService::new(node.clone());
    let service = NodeService::new(settings.driver.as_str(), node, targets).telling(changes);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let server = Server::builder()
        .layer(layer)
        .add_service(IdentityServer::new(identity))
        .add_service(NodeServer::new(service))
        .add_service(AdminServer::new(admin))
        .serve_with_incoming_shutdown(connections, async {
            stopped.await.ok();
        });
    Ok(Served {
        server,
        stop,
        socket,
    })
}

/// Metrics and probes. Neither probe asks the API server: without it the node's work goes on. Ready is an agent that kubelet
/// knows and that no other one keeps from its pool; how the pool is, LocalPool and its alert say. Were it a matter of readiness,
/// one broken disk would keep the version of all other nodes from being changed.
async fn http(
    settings: &Settings,
    agent: &Arc<Agent>,
    registered: &Registered,
    registry: Registry,
) -> anyhow::Result<impl Future<Output = std::convert::Infallible> + use<>> {
    let server = HttpServer::bind(settings.metrics)
        .await
        .with_context(|| format!("listen on {} for metrics and probes", settings.metrics))?;
    let (standing, registered) = (Arc::clone(&agent.standing), registered.clone());
    let gauge = agent.pool_gauges.registered.clone();
    let endpoints = Endpoints {
        registry,
        // That it answers at all is what a restart could mend.
        healthy: Box::new(|| Ok(())),
        ready: Box::new(move || {
            let kubelet = registered.get();
            gauge.set(i64::from(kubelet.is_ok()));
            standing.at_work()?;
            kubelet
        }),
    };
    Ok(server.run(endpoints))
}

fn register(
    settings: &Settings,
    registered: Registered,
) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let endpoint = settings
        .listen
        .strip_prefix("unix://")
        .context("--listen: give unix:// and a path")?;
    let plugin = Plugin {
        driver: settings.driver.as_str().to_owned(),
        endpoint: endpoint.to_owned(),
    };
    Ok(registration::keep(
        settings.registry.clone(),
        plugin,
        registered,
    ))
}

/// Ready means that the pool is open.
#[derive(Debug)]
struct Ready(LocalNode);

#[tonic::async_trait]
impl Readiness for Ready {
    async fn ready(&self) -> Result<(), Failure> {
        self.0.probe().await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_or_returns_is_the_end_of_all() {
        for (panics, how) in [(true, "panicked"), (false, "ended")] {
            let mut parts = Parts::default();
            parts.run("what goes on", std::future::pending());
            parts.run("what does not", async move { assert!(!panics, "a fault") });
            let error = parts.first_end().await.to_string();
            assert!(
                error.contains("what does not") && error.contains(how),
                "{error}"
            );
        }
    }
}
