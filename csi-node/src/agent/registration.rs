//! How kubelet learns of the driver: a socket in its folder of plugins, on which we say who we are.
//!
//! kubelet calls when the socket appears, and each time it starts. If it refuses the driver it does not ask again before the
//! socket is made anew, so that is what we do, ever less often.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use csi_controller::socket::Socket;
use futures::StreamExt as _;
use proto::pluginregistration::registration_server::{Registration, RegistrationServer};
use proto::pluginregistration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use tokio::sync::mpsc;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::authority::ForLocalhost;

/// How long to wait before the socket is made anew, after the first refusal and at most.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// How often we look whether the socket is still there: somebody may have cleaned the folder.
const LOOK: Duration = Duration::from_secs(10);

/// Whether kubelet has the driver; if not, why.
#[derive(Clone, Debug)]
pub struct Registered(Arc<Mutex<Result<(), String>>>);

impl Default for Registered {
    fn default() -> Self {
        let unasked = "kubelet has not asked for the driver yet";
        Self(Arc::new(Mutex::new(Err(unasked.to_owned()))))
    }
}

impl Registered {
    /// Whether kubelet has the driver.
    ///
    /// # Errors
    /// Why not.
    pub fn get(&self) -> Result<(), String> {
        let registered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        registered.clone()
    }

    fn set(&self, registered: Result<(), String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = registered;
    }
}

/// What kubelet is told.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// The driver's name.
    pub driver: String,
    /// The path of the driver's socket, as kubelet sees it.
    pub endpoint: String,
}

/// Keeps the driver registered in the folder `registry` until it is dropped, which removes the socket: kubelet then forgets
/// the driver.
pub async fn keep(registry: PathBuf, plugin: Plugin, registered: Registered) {
    let path = registry.join(format!("{}-reg.sock", plugin.driver));
    let mut pause = FIRST;
    loop {
        match offer(&path, &plugin, &registered).await {
            Ok(Ended::Refused) => {}
            Ok(Ended::Gone) => {
                tracing::warn!(socket = %path.display(), "the registration socket was removed; it is made again");
                pause = FIRST;
                continue;
            }
            Err(error) => {
                let reason = format!("{error:#}");
                tracing::error!(
                    reason,
                    "kubelet cannot be told of the driver; it is tried again"
                );
                registered.set(Err(reason));
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}

enum Ended {
    Refused,
    Gone,
}

/// Serves the registration socket until kubelet refuses the driver or the socket is gone.
async fn offer(path: &Path, plugin: &Plugin, registered: &Registered) -> anyhow::Result<Ended> {
    let (socket, connections) = Socket::bind(&format!("unix://{}", path.display()))?;
    let (refuse, mut refused) = mpsc::channel(1);
    let service = Service {
        plugin: plugin.clone(),
        registered: registered.clone(),
        refuse,
    };
    let serving = Server::builder()
        .add_service(RegistrationServer::new(service))
        .serve_with_incoming(connections.map(|connection| connection.map(ForLocalhost::new)));
    let mut serving = std::pin::pin!(serving);
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            served = &mut serving => {
                served?;
                anyhow::bail!("the registration server ended");
            }
            Some(()) = refused.recv() => return Ok(Ended::Refused),
            _ = look.tick() => {
                if !socket.is_in_place() {
                    return Ok(Ended::Gone);
                }
            }
        }
    }
}

#[derive(Debug)]
struct Service {
    plugin: Plugin,
    registered: Registered,
    refuse: mpsc::Sender<()>,
}

#[tonic::async_trait]
impl Registration for Service {
    async fn get_info(
        &self,
        _request: Request<InfoRequest>,
    ) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: self.plugin.driver.clone(),
            endpoint: self.plugin.endpoint.clone(),
            // The version of the CSI protocol as kubelet counts it, which is not that of the specification.
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            tracing::info!("kubelet registered the driver");
            self.registered.set(Ok(()));
        } else {
            tracing::error!(reason = status.error, "kubelet refused the driver");
            self.registered
                .set(Err(format!("kubelet refused the driver: {}", status.error)));
            self.refuse.try_send(()).ok();
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
