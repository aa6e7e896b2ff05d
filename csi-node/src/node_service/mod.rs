//! The CSI Node service: what kubelet calls.
//!
//! Nothing is remembered between calls. What is staged and published is read from the kernel each time, because kubelet
//! repeats calls, forgets calls, and expects after a reboot or a restart of ours that they all still hold
//! (the table below is what it really does).
//!
//! | kubelet | we |
//! |---|---|
//! | stages or publishes again what is there | answer OK and stack nothing |
//! | publishes after a reboot without staging | stage it ourselves |
//! | never unstages | a deletion releases what nobody uses |
//! | unpublishes or unstages what is gone | answer OK |
//! | finds its old folders after a reboot | use what is empty, refuse what is not |
//!
//! Each call claims its volume, so two calls for one volume never meet, and goes on when kubelet hangs up.

mod expand;
mod health;
mod occupant;
mod publish;
mod request;
mod rollback;
mod stage;
mod stats;
mod take_down;
mod unpublish;
mod unstage;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pool::attach::target::TargetBase;
use pool::{Pool, VolumeId};
use proto::csi::v1::node_server::Node;
use proto::csi::v1::node_service_capability::rpc::Type as Capability;
use proto::csi::v1::volume_usage::Unit;
use proto::csi::v1::{self, VolumeUsage};
use proto::errors::{Failure, Kind, Rpc, code, status};
use proto::topology;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};
use tracing::{Instrument as _, debug, info_span, warn};

use self::take_down::LostVolume;
use crate::blocking::Work;
use crate::claims::{Claimed, Hold, Object};
use crate::failure;
use crate::local_node::LocalNode;

/// How long a call waits for another one on its volume. kubelet gives up after two minutes and asks again after up to
/// two more; a snapshot of the volume takes well under a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything the service can do, as it announces it.
const CAPABILITIES: [Capability; 6] = [
    Capability::StageUnstageVolume,
    Capability::GetVolumeStats,
    Capability::ExpandVolume,
    Capability::SingleNodeMultiWriter,
    Capability::GetVolumeHealth,
    Capability::GetStorageHealth,
];

/// The Node service of one node.
#[derive(Clone, Debug)]
pub struct NodeService {
    node: LocalNode,
    targets: TargetBase,
    topology_key: String,
    changes: Option<mpsc::Sender<String>>,
}

impl NodeService {
    /// The service of driver `driver` on `node`, for paths below `targets`.
    #[must_use]
    pub fn new(driver: &str, node: LocalNode, targets: TargetBase) -> Self {
        Self {
            node,
            targets,
            topology_key: topology::key(driver),
            changes: None,
        }
    }

    /// The service tells `changes` the id of each volume that was staged, published, grown, or the reverse. A listener
    /// that does not keep up misses some.
    #[must_use]
    pub fn telling(mut self, changes: mpsc::Sender<String>) -> Self {
        self.changes = Some(changes);
        self
    }

    /// Runs blocking work on a volume that nobody else works on meanwhile. The claim is given back when the work is
    /// over, and not when kubelet stops waiting for it.
    async fn alone<T: Send + 'static>(
        &self,
        operation: &'static str,
        volume: &str,
        work: impl FnOnce(&Pool, &TargetBase) -> pool::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let claimed = self.claim(operation, volume).await?;
        let done = self.blocking(Work::Mount, Some(claimed), work).await;
        self.tell(volume);
        done
    }

    /// Claims a volume alone. A copy of it that runs is given up.
    async fn claim(&self, operation: &'static str, volume: &str) -> Result<Claimed, Failure> {
        let wanted = [(Object::Volume(volume.to_owned()), Hold::Alone)];
        let _no_copy_goes_on = self.node.want(volume);
        self.node.claims().claim(operation, &wanted, PATIENCE).await
    }

    /// Nobody who mounts waits for somebody who looks on.
    fn tell(&self, volume: &str) {
        if let Some(changes) = &self.changes {
            changes.try_send(volume.to_owned()).ok();
        }
    }

    /// As [`Self::alone`], for work that a lost pool must not keep from being done.
    async fn taken_down<T: Send + 'static>(
        &self,
        operation: &'static str,
        volume: &str,
        work: impl FnOnce(Result<&Pool, &LostVolume>, &TargetBase) -> pool::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let claimed = self.claim(operation, volume).await?;
        let (node, targets) = (self.node.clone(), self.targets.clone());
        let id = volume.to_owned();
        let work = move || {
            let _claimed = claimed;
            let pool = node.pool().and_then(|pool| {
                take_down::can_be_read(&pool, &id).map_err(failure::of)?;
                Ok(pool)
            });
            match pool {
                Ok(pool) => work(Ok(&*pool), &targets),
                Err(failure) => {
                    warn!(error = %failure, "the pool cannot be used; the volume is taken down by its devices");
                    let lost = LostVolume::new(node.pool_path(), &id);
                    work(Err(&lost), &targets)
                }
            }
            .map_err(failure::of)
        };
        let done = self.node.blocking().run(Work::Short, work).await;
        self.tell(volume);
        done
    }

    /// All node calls are short, but for the check of a damaged filesystem: a mkfs on a sparse image takes milliseconds. So none of
    /// them waits behind a copy.
    async fn blocking<T: Send + 'static>(
        &self,
        kind: Work,
        claimed: Option<Claimed>,
        work: impl FnOnce(&Pool, &TargetBase) -> pool::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let (node, targets) = (self.node.clone(), self.targets.clone());
        self.node
            .blocking()
            .run(kind, move || {
                let _claimed = claimed;
                work(&*node.pool()?, &targets).map_err(failure::of)
            })
            .await
    }

    async fn volume_health(
        &self,
        request: v1::NodeGetVolumeHealthRequest,
    ) -> Result<v1::NodeGetVolumeHealthResponse, Failure> {
        let volume = request::volume_id(request.volume_id)?;
        let id = VolumeId::parse(&volume).map_err(failure::of)?;
        let problems = self.node.volume_problems(&id).await?;
        let mut entries: Vec<_> = problems.into_iter().map(health::entry).collect();
        // A volume that is known to be ill is an answer; looking closer would only fail.
        if entries.is_empty() {
            let place = request::Place {
                volume: volume.clone(),
                path: request.volume_publish_path,
            };
            entries = self
                .blocking(Work::Short, None, move |pool, targets| {
                    health::on_node(pool, targets, &place)
                })
                .await?;
        }
        Ok(v1::NodeGetVolumeHealthResponse {
            volume_health: Some(v1::VolumeHealth {
                volume_id: volume,
                health_statuses: entries,
            }),
        })
    }

    async fn storage_health(&self) -> Result<v1::NodeGetStorageHealthResponse, Failure> {
        let node = self.node.clone();
        let work = move || {
            let pool = node.pool().map_err(|failure| failure.message);
            let pool = pool.as_ref().map(Arc::as_ref).map_err(Clone::clone);
            health::storage(pool).map_err(failure::of)
        };
        let backend_health = self.node.blocking().run(Work::Short, work).await?;
        Ok(v1::NodeGetStorageHealthResponse { backend_health })
    }

    fn info(&self) -> v1::NodeGetInfoResponse {
        let value = topology::value(self.node.name());
        v1::NodeGetInfoResponse {
            node_id: self.node.name().to_owned(),
            max_volumes_per_node: 0,
            accessible_topology: Some(v1::Topology {
                segments: [(self.topology_key.clone(), value)].into(),
            }),
        }
    }
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<v1::NodeStageVolumeRequest>,
    ) -> Result<Response<v1::NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = request.volume_id.clone();
        serve(Rpc::NodeStageVolume, &volume, async {
            let request = request::stage(request)?;
            self.alone("staging", &volume, move |pool, targets| {
                stage::stage(pool, targets, &request)
            })
            .await?;
            Ok(v1::NodeStageVolumeResponse {})
        })
        .await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<v1::NodeUnstageVolumeRequest>,
    ) -> Result<Response<v1::NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = request.volume_id.clone();
        serve(Rpc::NodeUnstageVolume, &volume, async {
            let path = request.staging_target_path;
            let place = request::place(request.volume_id, "staging_target_path", path)?;
            self.taken_down("unstaging", &volume, move |pool, targets| match pool {
                Ok(pool) => unstage::unstage(pool, targets, &place),
                Err(lost) => take_down::unstage(lost, targets, &place),
            })
            .await?;
            Ok(v1::NodeUnstageVolumeResponse {})
        })
        .await
    }

    async fn node_publish_volume(
        &self,
        request: Request<v1::NodePublishVolumeRequest>,
    ) -> Result<Response<v1::NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = request.volume_id.clone();
        serve(Rpc::NodePublishVolume, &volume, async {
            let request = request::publish(request)?;
            self.alone("publishing", &volume, move |pool, targets| {
                publish::publish(pool, targets, &request)
            })
            .await?;
            Ok(v1::NodePublishVolumeResponse {})
        })
        .await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<v1::NodeUnpublishVolumeRequest>,
    ) -> Result<Response<v1::NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = request.volume_id.clone();
        serve(Rpc::NodeUnpublishVolume, &volume, async {
            let path = request.target_path;
            let place = request::place(request.volume_id, "target_path", path)?;
            self.taken_down("unpublishing", &volume, move |pool, targets| match pool {
                Ok(pool) => unpublish::unpublish(pool, targets, &place),
                Err(lost) => take_down::unpublish(lost, targets, &place),
            })
            .await?;
            Ok(v1::NodeUnpublishVolumeResponse {})
        })
        .await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<v1::NodeGetVolumeStatsRequest>,
    ) -> Result<Response<v1::NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        let volume = request.volume_id.clone();
        serve(Rpc::NodeGetVolumeStats, &volume, async {
            let path = request.volume_path;
            let place = request::place(request.volume_id, "volume_path", path)?;
            let found = self
                .blocking(Work::Short, None, move |pool, targets| {
                    stats::stats(pool, targets, &place)
                })
                .await?;
            Ok(v1::NodeGetVolumeStatsResponse {
                usage: usage(found),
            })
        })
        .await
    }

    async fn node_expand_volume(
        &self,
        request: Request<v1::NodeExpandVolumeRequest>,
    ) -> Result<Response<v1::NodeExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = request.volume_id.clone();
        serve(Rpc::NodeExpandVolume, &volume, async {
            let request = request::expand(request)?;
            let bytes = self
                .alone("expansion", &volume, move |pool, targets| {
                    expand::expand(pool, targets, &request)
                })
                .await?;
            Ok(v1::NodeExpandVolumeResponse {
                capacity_bytes: signed(bytes),
            })
        })
        .await
    }

    async fn node_get_volume_health(
        &self,
        request: Request<v1::NodeGetVolumeHealthRequest>,
    ) -> Result<Response<v1::NodeGetVolumeHealthResponse>, Status> {
        let request = request.into_inner();
        let volume = request.volume_id.clone();
        serve(
            Rpc::NodeGetVolumeHealth,
            &volume,
            self.volume_health(request),
        )
        .await
    }

    async fn node_get_storage_health(
        &self,
        _request: Request<v1::NodeGetStorageHealthRequest>,
    ) -> Result<Response<v1::NodeGetStorageHealthResponse>, Status> {
        serve(Rpc::NodeGetStorageHealth, "", self.storage_health()).await
    }

    async fn node_get_capabilities(
        &self,
        _request: Request<v1::NodeGetCapabilitiesRequest>,
    ) -> Result<Response<v1::NodeGetCapabilitiesResponse>, Status> {
        let capabilities = CAPABILITIES.iter().map(|capability| {
            let rpc = v1::node_service_capability::Rpc {
                r#type: (*capability).into(),
            };
            v1::NodeServiceCapability {
                r#type: Some(v1::node_service_capability::Type::Rpc(rpc)),
            }
        });
        Ok(Response::new(v1::NodeGetCapabilitiesResponse {
            capabilities: capabilities.collect(),
        }))
    }

    async fn node_get_info(
        &self,
        _request: Request<v1::NodeGetInfoRequest>,
    ) -> Result<Response<v1::NodeGetInfoResponse>, Status> {
        Ok(Response::new(self.info()))
    }
}

/// The frame around an RPC: its span, its one line in the log, its code.
async fn serve<T: Default>(
    rpc: Rpc,
    volume: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<Response<T>, Status> {
    let shown: String = volume.chars().take(64).collect();
    let span = info_span!("rpc", %rpc, volume_id = ?shown);
    let started = Instant::now();
    let result = work.instrument(span.clone()).await;
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let _entered = span.enter();
    match result {
        Ok(answer) => {
            debug!(elapsed_ms, "done");
            Ok(Response::new(answer))
        }
        Err(failure) => {
            let (kind, code) = (failure.kind, code(rpc, failure.kind));
            match kind {
                Kind::Corrupt | Kind::Io | Kind::Uncertain | Kind::Internal => {
                    tracing::error!(elapsed_ms, ?kind, ?code, error = %failure, "failed");
                }
                Kind::NotFound | Kind::Busy => {
                    debug!(elapsed_ms, ?kind, ?code, error = %failure, "refused");
                }
                _ => warn!(elapsed_ms, ?kind, ?code, error = %failure, "refused"),
            }
            // What is gone need not be undone.
            if code == tonic::Code::Ok {
                return Ok(Response::new(T::default()));
            }
            Err(status(rpc, &failure))
        }
    }
}

fn usage(found: stats::Stats) -> Vec<VolumeUsage> {
    match found {
        stats::Stats::Device(bytes) => vec![VolumeUsage {
            total: signed(bytes),
            unit: Unit::Bytes.into(),
            ..Default::default()
        }],
        stats::Stats::Filesystem(found) => vec![
            VolumeUsage {
                available: signed(found.available_bytes),
                total: signed(found.total_bytes),
                used: signed(found.used_bytes),
                unit: Unit::Bytes.into(),
            },
            VolumeUsage {
                available: signed(found.free_inodes),
                total: signed(found.total_inodes),
                used: signed(found.used_inodes),
                unit: Unit::Inodes.into(),
            },
        ],
    }
}

/// Bytes as CSI counts them; what no disk has is told as the largest number.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
