//! The Controller service's backend in the same process: the pool of this node.

use std::time::Duration;

use csi_controller::backend::{
    Backend, Capacity, CapacityQuery, CreateSnapshot, CreateVolume, ExpandVolume, Page, Result,
    SnapshotFilter, VolumeDetail,
};
use csi_controller::model::{Placement, Snapshot, Volume, VolumeHealth};
use csi_node::LocalNode;
use pool::{SnapshotId, VolumeId};
use proto::errors::{Failure, Kind};

use super::{convert, health};

/// How long a call waits for a snapshot that has to be copied. Sidecars give up after a minute, by default.
const PATIENCE: Duration = Duration::from_secs(20);

/// One node's pool as a backend.
#[derive(Debug)]
pub(super) struct InProcess {
    node: LocalNode,
    /// The node's value of the topology key.
    topology: String,
}

impl InProcess {
    pub(super) fn new(node: LocalNode) -> Self {
        let topology = proto::topology::value(node.name());
        Self { node, topology }
    }

    fn volume(&self, record: &pool::record::VolumeRecord) -> Volume {
        convert::volume(record, self.node.name())
    }

    fn snapshot(&self, record: &pool::record::SnapshotRecord) -> Snapshot {
        convert::snapshot(record, self.node.name())
    }

    /// There is one node; a request for others cannot be placed.
    fn place(&self, placement: &Placement) -> Result<()> {
        if placement.allows(&self.topology) {
            return Ok(());
        }
        Err(Failure::new(
            Kind::NoSpace,
            format!(
                "no allowed node has a pool: this driver serves the node {} only",
                self.topology
            ),
        ))
    }
}

#[tonic::async_trait]
impl Backend for InProcess {
    async fn probe(&self) -> Result<()> {
        self.node.probe().await
    }

    async fn create_volume(&self, request: CreateVolume) -> Result<Volume> {
        self.place(&request.placement)?;
        let record = self
            .node
            .create_volume(convert::volume_request(request)?)
            .await?;
        Ok(self.volume(&record))
    }

    async fn delete_volume(&self, id: &str) -> Result<()> {
        match VolumeId::parse(id) {
            Ok(id) => self.node.delete_volume(&id).await,
            Err(_names_nothing) => Ok(()),
        }
    }

    async fn get_volume(&self, id: &str) -> Result<VolumeDetail> {
        let id = convert::volume_id(id)?;
        let record = self.node.volume(&id).await?;
        // A volume whose image is gone is published nowhere; its health says the rest.
        let published = self.node.is_published(&id).await.unwrap_or(false);
        Ok(VolumeDetail {
            volume: self.volume(&record),
            published_node_ids: if published {
                vec![self.node.name().to_owned()]
            } else {
                Vec::new()
            },
        })
    }

    async fn list_volumes(&self, after: Option<&str>, max: usize) -> Result<Page<Volume>> {
        let after = after.map(convert::volume_id).transpose()?;
        let (records, more) = self.node.volumes(after, max).await?;
        Ok(page(
            records.iter().map(|record| self.volume(record)).collect(),
            more,
            |volume| &volume.id,
        ))
    }

    async fn capacity(&self, query: CapacityQuery) -> Result<Capacity> {
        if query.node.is_some_and(|node| node != self.topology) {
            return Ok(Capacity::default());
        }
        let available = self.node.usage().await?.available();
        Ok(Capacity {
            available_bytes: available,
            maximum_bytes: available,
        })
    }

    async fn expand_volume(&self, request: ExpandVolume) -> Result<Volume> {
        let id = convert::volume_id(&request.id)?;
        let record = self
            .node
            .expand_volume(&id, request.requested_bytes, request.capacity_bytes)
            .await?;
        Ok(self.volume(&record))
    }

    async fn create_snapshot(&self, request: CreateSnapshot) -> Result<Snapshot> {
        let id = request.id.clone();
        let made = self
            .node
            .create_snapshot(convert::snapshot_request(request)?);
        match tokio::time::timeout(PATIENCE, made).await {
            Ok(record) => Ok(self.snapshot(&record?)),
            // It goes on, and the next call joins it.
            Err(_elapsed) => Err(being_made(&id, self.node.progress(&id))),
        }
    }

    async fn delete_snapshot(&self, id: &str) -> Result<()> {
        match SnapshotId::parse(id) {
            Ok(id) => self.node.delete_snapshot(&id).await,
            Err(_names_nothing) => Ok(()),
        }
    }

    async fn get_snapshot(&self, id: &str) -> Result<Snapshot> {
        let record = self.node.snapshot(&convert::snapshot_id(id)?).await?;
        Ok(self.snapshot(&record))
    }

    async fn list_snapshots(
        &self,
        filter: &SnapshotFilter,
        after: Option<&str>,
        max: usize,
    ) -> Result<Page<Snapshot>> {
        let after = after.map(convert::snapshot_id).transpose()?;
        let filter = filter.clone();
        let wanted = move |record: &pool::record::SnapshotRecord| {
            let volume = filter.source_volume_id.as_deref();
            let snapshot = filter.snapshot_id.as_deref();
            volume.is_none_or(|id| id == record.source_volume.as_str())
                && snapshot.is_none_or(|id| id == record.id.as_str())
        };
        let (records, more) = self.node.snapshots(after, max, wanted).await?;
        Ok(page(
            records.iter().map(|record| self.snapshot(record)).collect(),
            more,
            |snapshot| &snapshot.id,
        ))
    }

    async fn volume_health(&self, id: &str) -> Result<VolumeHealth> {
        let problems = self.node.volume_problems(&convert::volume_id(id)?).await?;
        Ok(health::volume_health(id.to_owned(), problems))
    }

    async fn list_volume_health(
        &self,
        after: Option<&str>,
        max: usize,
    ) -> Result<Page<VolumeHealth>> {
        let mut items: Vec<VolumeHealth> = self
            .node
            .troubled_volumes()
            .await?
            .into_iter()
            .map(|(id, problems)| health::volume_health(id.to_string(), problems))
            .filter(|health| after.is_none_or(|after| health.volume_id.as_str() > after))
            .collect();
        let more = items.len() > max;
        items.truncate(max);
        Ok(page(items, more, |health| &health.volume_id))
    }
}

/// A cut is never answered before it is made: on success the caller lets the guest write again.
fn being_made(id: &str, percent: Option<i32>) -> Failure {
    let progress = percent.map_or(String::new(), |percent| format!(", {percent} % so far"));
    Failure::new(
        Kind::Busy,
        format!("the snapshot {id} is still being made{progress}; call again to wait for it"),
    )
}

fn page<T>(items: Vec<T>, more: bool, id: impl Fn(&T) -> &String) -> Page<T> {
    let next = items.last().filter(|_| more).map(|last| id(last).clone());
    Page { items, next }
}
