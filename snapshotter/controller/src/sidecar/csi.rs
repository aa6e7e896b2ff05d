//! The driver on its socket.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use proto::csi::v1::controller_client::ControllerClient;
use proto::csi::v1::controller_service_capability::Type;
use proto::csi::v1::controller_service_capability::rpc::Type as Rpc;
use proto::csi::v1::identity_client::IdentityClient;
use proto::csi::v1::{
    ControllerGetCapabilitiesRequest, CreateSnapshotRequest, DeleteSnapshotRequest,
    GetPluginInfoRequest, ListSnapshotsRequest, Snapshot as CsiSnapshot,
};
use proto::manifest;
use tokio::sync::OnceCell;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::answer::{Refusal, Snapshot};

/// How long a call may take that only asks.
const SHORT: Duration = Duration::from_secs(60);
const BUCKETS: [f64; 12] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0,
];

type Secrets = HashMap<String, String>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    driver_name: String,
    method_name: &'static str,
    grpc_status_code: String,
}

/// How long calls took, by the name that the stock sidecars give it.
#[derive(Clone, Debug)]
pub(crate) struct Measures(Family<Labels, Histogram>);

impl Measures {
    /// Registers `csi_sidecar_operations_seconds`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let seconds: Family<Labels, Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        registry.register(
            "csi_sidecar_operations_seconds",
            "How long calls of the driver took, in seconds",
            seconds.clone(),
        );
        Self(seconds)
    }
}

/// What a driver says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) name: String,
    /// Its id of a snapshot is the name by which it was asked for.
    pub(crate) ids_are_names: bool,
}

/// The driver. Clones share one connection.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    channel: Channel,
    name: String,
    timeout: Duration,
    lists: Arc<OnceCell<bool>>,
    measures: Measures,
}

impl Driver {
    /// The driver of this name at `unix:///path`. It is connected to when it is first called, and again whenever it was away.
    pub(crate) fn new(
        address: &str,
        name: &str,
        timeout: Duration,
        measures: Measures,
    ) -> Result<Self, String> {
        let endpoint = Endpoint::from_shared(address.to_owned())
            .map_err(|error| format!("{address}: {error}"))?;
        Ok(Self {
            channel: endpoint.connect_lazy(),
            name: name.to_owned(),
            timeout,
            lists: Arc::default(),
            measures,
        })
    }

    /// What the driver calls itself, and what it promises.
    pub(crate) async fn identify(&self) -> Result<Identity, String> {
        let mut client = IdentityClient::new(self.channel.clone());
        let call = client.get_plugin_info(GetPluginInfoRequest {});
        let answer = self
            .measured("/csi.v1.Identity/GetPluginInfo", SHORT, call)
            .await;
        let info = answer.map_err(|refusal| refusal.message)?;
        let promised = info.manifest.get(manifest::SNAPSHOT_ID);
        Ok(Identity {
            ids_are_names: promised.is_some_and(|id| id == manifest::IS_NAME),
            name: info.name,
        })
    }

    /// Whether it makes snapshots.
    pub(crate) async fn makes_snapshots(&self) -> Result<bool, String> {
        let has = self.has(Rpc::CreateDeleteSnapshot).await;
        has.map_err(|refusal| refusal.message)
    }

    pub(super) async fn create(
        &self,
        name: String,
        source: String,
        parameters: HashMap<String, String>,
        secrets: Secrets,
    ) -> Result<Snapshot, Refusal> {
        let mut request = Request::new(CreateSnapshotRequest {
            source_volume_id: source,
            name,
            secrets,
            parameters,
            ..CreateSnapshotRequest::default()
        });
        request.set_timeout(self.timeout);
        let mut client = ControllerClient::new(self.channel.clone());
        let call = client.create_snapshot(request);
        let answer = self
            .measured("/csi.v1.Controller/CreateSnapshot", self.timeout, call)
            .await?;
        answer.snapshot.map(described).ok_or_else(|| Refusal {
            // As good as no answer: there may be one.
            code: Code::Unavailable,
            message: "the driver's answer to CreateSnapshot has no snapshot in it".to_owned(),
        })
    }

    pub(super) async fn delete(&self, id: String, secrets: Secrets) -> Result<(), Refusal> {
        let mut request = Request::new(DeleteSnapshotRequest {
            snapshot_id: id,
            secrets,
        });
        request.set_timeout(self.timeout);
        let mut client = ControllerClient::new(self.channel.clone());
        let call = client.delete_snapshot(request);
        self.measured("/csi.v1.Controller/DeleteSnapshot", self.timeout, call)
            .await?;
        Ok(())
    }

    /// How a snapshot stands. Of a driver that cannot tell, every id is one that is ready.
    pub(super) async fn status(&self, id: String, secrets: Secrets) -> Result<Snapshot, Refusal> {
        let lists = self
            .lists
            .get_or_try_init(|| self.has(Rpc::ListSnapshots))
            .await?;
        if !lists {
            return Ok(Snapshot {
                id,
                creation_time: None,
                size_bytes: 0,
                ready: true,
                group: String::new(),
            });
        }
        let mut request = Request::new(ListSnapshotsRequest {
            snapshot_id: id.clone(),
            secrets,
            ..ListSnapshotsRequest::default()
        });
        request.set_timeout(self.timeout);
        let mut client = ControllerClient::new(self.channel.clone());
        let call = client.list_snapshots(request);
        let answer = self
            .measured("/csi.v1.Controller/ListSnapshots", self.timeout, call)
            .await?;
        let first = answer
            .entries
            .into_iter()
            .next()
            .and_then(|entry| entry.snapshot);
        first.map(described).ok_or_else(|| Refusal {
            code: Code::NotFound,
            message: format!("the driver has no snapshot {id}"),
        })
    }

    async fn has(&self, wanted: Rpc) -> Result<bool, Refusal> {
        let mut client = ControllerClient::new(self.channel.clone());
        let call = client.controller_get_capabilities(ControllerGetCapabilitiesRequest {});
        let answer = self
            .measured("/csi.v1.Controller/ControllerGetCapabilities", SHORT, call)
            .await?;
        Ok(answer.capabilities.iter().any(|capability| {
            matches!(&capability.r#type, Some(Type::Rpc(rpc)) if rpc.r#type == i32::from(wanted))
        }))
    }

    async fn measured<T>(
        &self,
        method: &'static str,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Refusal> {
        let begun = Instant::now();
        let answer = match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => {
                let code = code_of(&status);
                Err(Refusal {
                    code,
                    message: format!("{}: {}", code_name(code), status.message()),
                })
            }
            Err(_elapsed) => Err(Refusal {
                code: Code::DeadlineExceeded,
                message: format!(
                    "{}: no answer within {} s",
                    code_name(Code::DeadlineExceeded),
                    limit.as_secs()
                ),
            }),
        };
        let code = answer
            .as_ref()
            .err()
            .map_or(Code::Ok, |refusal| refusal.code);
        let labels = Labels {
            driver_name: self.name.clone(),
            method_name: method,
            grpc_status_code: code_name(code),
        };
        let seconds = begun.elapsed().as_secs_f64();
        self.measures.0.get_or_create(&labels).observe(seconds);
        answer
    }
}

/// What the driver has said; or, where it has said nothing because the connection was lost, what Go's gRPC says then. Here that would
/// be `Unknown`, which is an answer, and one that is final.
fn code_of(status: &Status) -> Code {
    // What has come over the wire has no source.
    let said = std::error::Error::source(status).is_none();
    match status.code() {
        code @ (Code::Cancelled | Code::DeadlineExceeded) => code,
        code if said => code,
        _lost => Code::Unavailable,
    }
}

/// As Go's gRPC writes codes.
fn code_name(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        other => format!("{other:?}"),
    }
}

fn described(snapshot: CsiSnapshot) -> Snapshot {
    let time = snapshot.creation_time.map(|time| {
        let seconds = time.seconds.saturating_mul(1_000_000_000);
        seconds.saturating_add(i64::from(time.nanos))
    });
    Snapshot {
        id: snapshot.snapshot_id,
        creation_time: time,
        size_bytes: snapshot.size_bytes,
        ready: snapshot.ready_to_use,
        group: snapshot.group_snapshot_id,
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};

    use super::code_of;

    #[test]
    fn a_lost_connection_is_no_answer() {
        let lost = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let lost = Status::from_error(Box::new(lost));
        assert_eq!(lost.code(), Code::Unknown);
        assert_eq!(code_of(&lost), Code::Unavailable);
        for code in (1..=16).map(Code::from_i32) {
            assert_eq!(code_of(&Status::new(code, "said")), code);
        }
    }
}
