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
use proto::manifest;
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
    readiness: R,
    /// Why it was not ready at the last Probe, so that a change is logged and a state is not.
    last_reason: Mutex<Option<String>>,
}

impl<R: Readiness> IdentityService<R> {
    /// The service of a driver of this name and version.
    #[must_use]
    pub fn new(name: DriverName, version: impl Into<String>, readiness: R) -> IdentityService<R> {
        let version = version.into();
        IdentityService {
            name,
            version,
            readiness,
            last_reason: Mutex::new(None),
        }
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

/// Of the driver as a whole: CSI wants the same answer from each instance, whichever services are on its socket. A client that
/// finds no Controller here takes the driver for one without.
fn capabilities() -> Vec<PluginCapability> {
    let service = |service: ServiceType| {
        Type::Service(Service {
            r#type: service.into(),
        })
    };
    let expansion = Type::VolumeExpansion(VolumeExpansion {
        r#type: ExpansionType::Online.into(),
    });
    [
        service(ServiceType::ControllerService),
        service(ServiceType::VolumeAccessibilityConstraints),
        expansion,
    ]
    .into_iter()
    .map(|r#type| PluginCapability {
        r#type: Some(r#type),
    })
    .collect()
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
            // By `crate::ids::snapshot_id`, whichever services are on this socket.
            manifest: [(
                manifest::SNAPSHOT_ID.to_owned(),
                manifest::IS_NAME.to_owned(),
            )]
            .into(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _request: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        Ok(Response::new(GetPluginCapabilitiesResponse {
            capabilities: capabilities(),
        }))
    }

    async fn probe(
        &self,
        _request: Request<ProbeRequest>,
    ) -> Result<Response<ProbeResponse>, Status> {
        serve(Rpc::Probe, info_span!("rpc", rpc = %Rpc::Probe), async {
            Ok(ProbeResponse {
                ready: Some(self.ready().await?),
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proto::csi::v1::identity_server::Identity;
    use proto::csi::v1::plugin_capability::Type;
    use proto::csi::v1::{GetPluginCapabilitiesRequest, GetPluginInfoRequest, ProbeRequest};
    use proto::errors::{Failure, Kind};
    use tonic::{Code, Request};

    use super::{DriverName, IdentityService, Readiness};

    /// Answers what it was told to.
    struct Told(Mutex<Result<(), Failure>>);

    #[tonic::async_trait]
    impl Readiness for Told {
        async fn ready(&self) -> Result<(), Failure> {
            self.0.lock().expect("lock").clone()
        }
    }

    fn service(ready: Result<(), Failure>) -> IdentityService<Told> {
        let name = DriverName::new("vd.csi.io").expect("name");
        IdentityService::new(name, "0.1.0", Told(Mutex::new(ready)))
    }

    async fn probe(ready: Result<(), Failure>) -> Result<Option<bool>, Code> {
        let service = service(ready);
        match service.probe(Request::new(ProbeRequest {})).await {
            Ok(answer) => Ok(answer.into_inner().ready),
            Err(status) => Err(status.code()),
        }
    }

    #[tokio::test]
    async fn a_pool_that_is_away_is_not_ready_and_no_error() {
        assert_eq!(probe(Ok(())).await, Ok(Some(true)));
        for kind in [Kind::Unavailable, Kind::Precondition] {
            assert_eq!(
                probe(Err(Failure::new(kind, "not mounted"))).await,
                Ok(Some(false))
            );
        }
        let damaged = Err(Failure::new(Kind::Corrupt, "marker"));
        assert_eq!(probe(damaged).await, Err(Code::FailedPrecondition));
    }

    #[tokio::test]
    async fn the_driver_says_its_name_and_version() {
        let service = service(Ok(()));
        let answer = service
            .get_plugin_info(Request::new(GetPluginInfoRequest {}))
            .await;
        let info = answer.expect("info").into_inner();
        assert_eq!(
            (info.name.as_str(), info.vendor_version.as_str()),
            ("vd.csi.io", "0.1.0")
        );
        assert_eq!(info.manifest["vd.csi.io/snapshot-id"], "name");
    }

    #[tokio::test]
    async fn every_socket_announces_the_whole_driver() {
        let request = Request::new(GetPluginCapabilitiesRequest {});
        let answer = service(Ok(())).get_plugin_capabilities(request).await;
        let numbers: Vec<i32> = answer
            .expect("capabilities")
            .into_inner()
            .capabilities
            .into_iter()
            .map(|capability| match capability.r#type {
                Some(Type::Service(service)) => service.r#type,
                Some(Type::VolumeExpansion(expansion)) => expansion.r#type,
                None => 0,
            })
            .collect();
        assert_eq!(numbers, [1, 2, 1]);
    }

    #[test]
    fn a_driver_name_is_a_domain_name() {
        for name in ["vd.csi.io", "a", "disk-2.example.org"] {
            assert_eq!(DriverName::new(name).expect(name).as_str(), name);
        }
        let long = "a".repeat(64);
        for name in [
            "",
            "2.io",
            "vd.csi.io2",
            ".io",
            "Vd.csi.io",
            "a/b",
            "a b",
            "a\n",
            &long,
        ] {
            assert!(DriverName::new(name).is_err(), "{name:?}");
        }
        let name = DriverName::new("vd.csi.io").expect("name");
        assert_eq!(name.topology_key(), "topology.vd.csi.io/node");
    }
}
