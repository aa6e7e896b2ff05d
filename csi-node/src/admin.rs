//! What `vdctl` asks of the process that owns a pool, because only that may change it.

use pool::SnapshotId;
use proto::admin::admin_server::Admin;
use proto::admin::{VerifySnapshotRequest, VerifySnapshotResponse};
use proto::errors::{Failure, Kind, Rpc, status};
use tonic::{Request, Response, Status};

use crate::{LocalNode, failure};

/// The service, on the same socket as CSI, which only root can open.
#[derive(Clone, Debug)]
pub struct AdminService {
    node: LocalNode,
}

impl AdminService {
    /// The service of `node`.
    #[must_use]
    pub fn new(node: LocalNode) -> Self {
        Self { node }
    }

    async fn verify(
        &self,
        request: VerifySnapshotRequest,
    ) -> Result<VerifySnapshotResponse, Failure> {
        let id = SnapshotId::parse(&request.snapshot_id).map_err(failure::of)?;
        self.right_pool(&request.pool_uuid).await?;
        let verdict = self.node.verify_snapshot(&id).await?;
        Ok(VerifySnapshotResponse {
            problems: verdict.problems,
            more: verdict.more,
            data_checked: verdict.data_checked,
        })
    }

    async fn right_pool(&self, uuid: &str) -> Result<(), Failure> {
        let ours = self
            .node
            .short(|node| Ok(node.pool()?.marker().uuid.clone()))
            .await?;
        if ours == uuid {
            return Ok(());
        }
        Err(Failure::new(
            Kind::Unavailable,
            format!("this process owns the pool {ours}, not {uuid}: name the socket of its owner"),
        ))
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn verify_snapshot(
        &self,
        request: Request<VerifySnapshotRequest>,
    ) -> Result<Response<VerifySnapshotResponse>, Status> {
        // Nobody but a person acts on the code, and the answers are those of reading a snapshot.
        self.verify(request.into_inner())
            .await
            .map(Response::new)
            .map_err(|failure| status(Rpc::GetSnapshot, &failure))
    }
}
