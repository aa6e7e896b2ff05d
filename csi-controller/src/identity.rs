//! The Identity service: who the driver is, what it serves, whether it is ready.
//!
//! It knows nothing of the Controller service, so that a node agent can serve it on its own
//! socket too.

use std::sync::{Arc, Mutex, PoisonError};

use proto::csi::v1::identity_server::Identity;
use proto::csi::v1::plugin_capability::service::Type as ServiceType;
use proto::csi::v1::plugin_capability::volume_expansion::Type as ExpansionType;
use proto::csi::v1::plugin_capability::{Service, Type, VolumeExpansion};
use proto::csi::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, PluginCapability, ProbeRequest, ProbeResponse,
};
use proto::errors::{Failure, Rpc, is_success};
use tonic::{Request, Response, Status};
use tracing::{info, info_span, warn};

use crate::backend::Backend;
use crate::endpoint::serve;

/// The longest name that CSI allows a driver, in bytes.
const NAME_LIMIT: usize = 63;

/// The driver's name: a domain name, which is also its API group and part of its topology key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverName(String);

impl DriverName {
    /// Checks a name.
    ///
    /// # Errors
    /// `InvalidArgument` unless it is at most 63 bytes of lower-case letters, digits, dots and
    /// dashes, begins with a letter and ends with one. CSI and Kubernetes allow a little more;
    /// csi-sanity does not.
    pub fn new(name: impl Into<String>) -> Result<DriverName, Failure> {
        let name = name.into();
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-')
        };
        let letter = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_lowercase);
        let bytes = name.as_bytes();
        let good = bytes.len() <= NAME_LIMIT
            && bytes.iter().copied().all(allowed)
            && letter(bytes.first())
            && letter(bytes.last());
        if good {
            return Ok(DriverName(name));
        }
        Err(Failure::invalid(
            "the driver name must be a domain name of at most 63 lower-case letters, digits, dots \
             and dashes that begins and ends with a letter, like vd.csi.io",
        ))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The driver's topology key.
    #[must_use]
    pub fn topology_key(&self) -> String {
        proto::topology::key(&self.0)
    }
}

/// Which services are on the same socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// Controller, with or without Node.
    Controller,
    /// Node only, as on kubelet's socket.
    NodeOnly,
}

/// Says whether volumes can be served now.
#[tonic::async_trait]
pub trait Readiness: Send + Sync + 'static {
    /// Called for every Probe, so it must be cheap and must not block.
    ///
    /// # Errors
    /// `Unavailable`, `Precondition` or `Busy` mean "not ready, and this is why"; other kinds
    /// mean that it will not become ready by itself.
    async fn ready(&self) -> Result<(), Failure>;
}

#[tonic::async_trait]
impl<B: Backend> Readiness for Arc<B> {
    async fn ready(&self) -> Result<(), Failure> {
        self.probe().await
    }
}

/// The Identity service.
#[derive(Debug)]
pub struct IdentityService<R> {
    name: DriverName,
    version: String,
    serves: Serves,
    readiness: R,
    /// Why it was not ready at the last Probe, so that a change is logged and a state is not.
    last_reason: Mutex<Option<String>>,
}

impl<R: Readiness> IdentityService<R> {
    /// The service of a driver of this name and version.
    #[must_use]
    pub fn new(
        name: DriverName,
        version: impl Into<String>,
        serves: Serves,
        readiness: R,
    ) -> IdentityService<R> {
        let version = version.into();
        IdentityService {
            name,
            version,
            serves,
            readiness,
            last_reason: Mutex::new(None),
        }
    }

    fn capabilities(&self) -> Vec<PluginCapability> {
        let service = |service: ServiceType| {
            Type::Service(Service {
                r#type: service.into(),
            })
        };
        let mut types = Vec::new();
        if self.serves == Serves::Controller {
            types.push(service(ServiceType::ControllerService));
        }
        types.push(service(ServiceType::VolumeAccessibilityConstraints));
        types.push(Type::VolumeExpansion(VolumeExpansion {
            r#type: ExpansionType::Online.into(),
        }));
        types
            .into_iter()
            .map(|r#type| PluginCapability {
                r#type: Some(r#type),
            })
            .collect()
    }

    async fn ready(&self) -> Result<bool, Failure> {
        match self.readiness.ready().await {
            Ok(()) => {
                self.note(None);
                Ok(true)
            }
            Err(reason) if is_success(Rpc::Probe, reason.kind) => {
                self.note(Some(reason.message));
                Ok(false)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Logs readiness when it changes: a probe comes every few seconds.
    fn note(&self, reason: Option<String>) {
        let mut last = self
            .last_reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *last == reason {
            return;
        }
        match &reason {
            None => info!("ready"),
            Some(reason) => warn!(%reason, "not ready"),
        }
        *last = reason;
    }
}

#[tonic::async_trait]
impl<R: Readiness> Identity for IdentityService<R> {
    async fn get_plugin_info(
        &self,
        _request: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: self.name.as_str().to_owned(),
            vendor_version: self.version.clone(),
            manifest: std::collections::HashMap::new(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _request: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        Ok(Response::new(GetPluginCapabilitiesResponse {
            capabilities: self.capabilities(),
        }))
    }

    async fn probe(
        &self,
        _request: Request<ProbeRequest>,
    ) -> Result<Response<ProbeResponse>, Status> {
        serve(Rpc::Probe, info_span!("Probe"), async {
            Ok(ProbeResponse {
                ready: Some(self.ready().await?),
            })
        })
        .await
    }
}
