//! A backend in memory, to see what the service makes of its answers. Tests only.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::errors::Failure;

use crate::backend::{
    Backend, Capacity, CapacityQuery, CreateSnapshot, CreateVolume, ExpandVolume, Page, Result,
    SnapshotFilter, VolumeDetail,
};
use crate::model::{HealthProblem, HealthStatus, Snapshot, Volume, VolumeHealth, VolumeMode};

/// The one node of this backend.
pub(super) const NODE: &str = "edge-1";

#[derive(Debug, Default)]
pub(super) struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    volumes: BTreeMap<String, Volume>,
    snapshots: BTreeMap<String, Snapshot>,
    fail_next: Option<Failure>,
    calls: usize,
    last_query: Option<CapacityQuery>,
}

impl Memory {
    /// Makes the next call fail with this.
    pub(super) fn fail_next(&self, failure: Failure) {
        self.lock().fail_next = Some(failure);
    }

    /// How many calls came through.
    pub(super) fn calls(&self) -> usize {
        self.lock().calls
    }

    pub(super) fn last_query(&self) -> Option<CapacityQuery> {
        self.lock().last_query.clone()
    }

    pub(super) fn remove_snapshot(&self, id: &str) {
        self.lock().snapshots.remove(id);
    }

    pub(super) fn damage_snapshot(&self, id: &str) {
        if let Some(snapshot) = self.lock().snapshots.get_mut(id) {
            snapshot.ready_to_use = false;
            snapshot.damage = Some("a bit has flipped".to_owned());
        }
    }

    pub(super) fn remove_volume(&self, id: &str) {
        self.lock().volumes.remove(id);
    }

    pub(super) fn set_ready(&self, id: &str, ready: bool) {
        if let Some(snapshot) = self.lock().snapshots.get_mut(id) {
            snapshot.ready_to_use = ready;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        state.calls += 1;
        match state.fail_next.take() {
            Some(failure) => Err(failure),
            None => Ok(state),
        }
    }
}

fn page<T: Clone>(
    all: &BTreeMap<String, T>,
    after: Option<&str>,
    max: usize,
    wanted: impl Fn(&T) -> bool,
) -> Page<T> {
    let after = after.unwrap_or_default();
    let mut found: Vec<(&String, &T)> = all
        .iter()
        .filter(|(id, item)| id.as_str() > after && wanted(item))
        .collect();
    let more = found.len() > max;
    found.truncate(max);
    let next = found.last().filter(|_| more).map(|(id, _)| (*id).clone());
    Page {
        items: found.into_iter().map(|(_, item)| item.clone()).collect(),
        next,
    }
}

fn missing(id: &str) -> Failure {
    Failure::not_found(format!("{id} does not exist"))
}

fn ill(id: &str) -> VolumeHealth {
    let problem = HealthProblem {
        status: HealthStatus::Degraded,
        reason: "Fragmented".to_owned(),
        message: "copy it".to_owned(),
    };
    VolumeHealth {
        volume_id: id.to_owned(),
        problems: vec![problem],
    }
}

#[tonic::async_trait]
impl Backend for Memory {
    async fn probe(&self) -> Result<()> {
        self.enter().map(|_| ())
    }

    async fn create_volume(&self, request: CreateVolume) -> Result<Volume> {
        let mut state = self.enter()?;
        let made = Volume {
            id: request.id.clone(),
            requested_bytes: request.requested_bytes,
            capacity_bytes: request.capacity_bytes,
            mode: request.mode,
            provisioning: request.provisioning,
            source: request.source,
            nodes: vec![NODE.to_owned()],
        };
        Ok(state.volumes.entry(request.id).or_insert(made).clone())
    }

    async fn delete_volume(&self, id: &str) -> Result<()> {
        // Harsher than a backend must be: the service takes it for success.
        self.enter()?
            .volumes
            .remove(id)
            .map(|_| ())
            .ok_or_else(|| missing(id))
    }

    async fn get_volume(&self, id: &str) -> Result<VolumeDetail> {
        let volume = self
            .enter()?
            .volumes
            .get(id)
            .cloned()
            .ok_or_else(|| missing(id))?;
        Ok(VolumeDetail {
            volume,
            published_node_ids: vec![NODE.to_owned()],
        })
    }

    async fn list_volumes(&self, after: Option<&str>, max: usize) -> Result<Page<Volume>> {
        Ok(page(&self.enter()?.volumes, after, max, |_| true))
    }

    async fn capacity(&self, query: CapacityQuery) -> Result<Capacity> {
        let mut state = self.enter()?;
        let here = query.node.as_deref().is_none_or(|node| node == NODE);
        state.last_query = Some(query);
        let bytes = if here { (10 << 30) + 1 } else { 0 };
        Ok(Capacity {
            available_bytes: bytes,
            maximum_bytes: bytes,
        })
    }

    async fn expand_volume(&self, request: ExpandVolume) -> Result<Volume> {
        let mut state = self.enter()?;
        let volume = state
            .volumes
            .get_mut(&request.id)
            .ok_or_else(|| missing(&request.id))?;
        volume.capacity_bytes = volume.capacity_bytes.max(request.capacity_bytes);
        Ok(volume.clone())
    }

    async fn create_snapshot(&self, request: CreateSnapshot) -> Result<Snapshot> {
        let mut state = self.enter()?;
        if let Some(snapshot) = state.snapshots.get(&request.id) {
            return Ok(snapshot.clone());
        }
        let source_id = request.source_volume_id;
        let source = state
            .volumes
            .get(&source_id)
            .ok_or_else(|| missing(&source_id))?;
        let snapshot = Snapshot {
            id: request.id.clone(),
            source_volume_id: source_id,
            requested_bytes: source.requested_bytes,
            image_bytes: source.capacity_bytes,
            created_unix_ns: 1_700_000_000_000_000_001,
            ready_to_use: true,
            damage: None,
            compression: request.compression,
            checksum: request.checksum,
            mode: source.mode,
            nodes: source.nodes.clone(),
        };
        state.snapshots.insert(request.id, snapshot.clone());
        Ok(snapshot)
    }

    async fn delete_snapshot(&self, id: &str) -> Result<()> {
        self.enter()?
            .snapshots
            .remove(id)
            .map(|_| ())
            .ok_or_else(|| missing(id))
    }

    async fn get_snapshot(&self, id: &str) -> Result<Snapshot> {
        self.enter()?
            .snapshots
            .get(id)
            .cloned()
            .ok_or_else(|| missing(id))
    }

    async fn list_snapshots(
        &self,
        filter: &SnapshotFilter,
        after: Option<&str>,
        max: usize,
    ) -> Result<Page<Snapshot>> {
        let source = filter.source_volume_id.as_deref();
        let id = filter.snapshot_id.as_deref();
        let wanted = |snapshot: &Snapshot| {
            source.is_none_or(|source| source == snapshot.source_volume_id)
                && id.is_none_or(|id| id == snapshot.id)
        };
        Ok(page(&self.enter()?.snapshots, after, max, wanted))
    }

    async fn volume_health(&self, id: &str) -> Result<VolumeHealth> {
        let state = self.enter()?;
        let volume = state.volumes.get(id).ok_or_else(|| missing(id))?;
        match volume.mode {
            VolumeMode::Block => Ok(ill(id)),
            VolumeMode::Filesystem(_) => Ok(VolumeHealth {
                volume_id: id.to_owned(),
                problems: vec![],
            }),
        }
    }

    async fn list_volume_health(
        &self,
        after: Option<&str>,
        max: usize,
    ) -> Result<Page<VolumeHealth>> {
        let block = |volume: &Volume| volume.mode == VolumeMode::Block;
        let found = page(&self.enter()?.volumes, after, max, block);
        Ok(Page {
            items: found.items.iter().map(|volume| ill(&volume.id)).collect(),
            next: found.next,
        })
    }
}
