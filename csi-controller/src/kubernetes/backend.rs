//! The Controller service's backend over custom resources.

use std::collections::BTreeMap;

use api::{LocalSnapshot, LocalVolume};
use kube::{Client, ResourceExt};
use proto::errors::{Failure, Kind};

use super::convert;
use super::managed::{Managed, Stage};
use super::objects::Objects;
use super::pools::Pools;
use super::room;
use super::snapshots::Snapshots;
use super::volumes::{Volumes, existing, missing};
use super::wait::Patience;
use crate::backend::{
    Backend, Capacity, CapacityQuery, CreateSnapshot, CreateVolume, ExpandVolume, Page, Result,
    SnapshotFilter, VolumeDetail,
};
use crate::model::{Snapshot, Volume, VolumeHealth};

/// Volumes and snapshots as custom resources that node agents act on.
#[derive(Clone)]
pub struct KubernetesBackend {
    volumes: Volumes,
    snapshots: Snapshots,
}

impl std::fmt::Debug for KubernetesBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesBackend").finish_non_exhaustive()
    }
}

impl KubernetesBackend {
    /// A backend that knows nothing yet; [`KubernetesBackend::run`] makes it learn.
    #[must_use]
    pub fn new(client: Client, patience: Patience) -> Self {
        let volumes = Volumes {
            volumes: Objects::new(client.clone()),
            snapshots: Objects::new(client.clone()),
            pools: Pools::new(client.clone()),
            client,
            patience,
        };
        let snapshots = Snapshots {
            volumes: volumes.clone(),
        };
        Self { volumes, snapshots }
    }

    /// Follows the API server: one watch per kind. Never ends; dropping it stops the watches.
    pub async fn run(&self) {
        // Without one of them the others are of no use.
        tokio::select! {
            () = self.volumes.volumes.follow() => {}
            () = self.volumes.snapshots.follow() => {}
            () = self.volumes.pools.follow() => {}
        }
    }

    /// Whether all watches have their first list and the watches stand.
    ///
    /// # Errors
    /// `Unavailable` with what is missing.
    pub fn check_ready(&self) -> std::result::Result<(), Failure> {
        let watches = [
            ("LocalVolumes", self.volumes.volumes.mirror().is_current()),
            (
                "LocalSnapshots",
                self.volumes.snapshots.mirror().is_current(),
            ),
            ("LocalPools", self.volumes.pools.mirror().is_current()),
        ];
        match watches.iter().find(|(_, current)| !current) {
            None => Ok(()),
            Some((kind, _)) => Err(Failure::new(
                Kind::Unavailable,
                format!(
                    "the {kind} cannot be watched at the API server now; see the log, and whether the API server is reachable and \
                     knows the definitions of this driver"
                ),
            )),
        }
    }

    /// Returns once every watch has its first list.
    pub async fn ready(&self) {
        self.volumes.volumes.mirror().synced().await;
        self.volumes.snapshots.mirror().synced().await;
        self.volumes.pools.mirror().synced().await;
    }

    pub(crate) fn parts(&self) -> &Volumes {
        &self.volumes
    }

    fn pool_troubles(&self) -> BTreeMap<String, String> {
        let pools = self.volumes.pools.mirror().all_with_age();
        pools
            .iter()
            .filter_map(|(pool, age)| Some((pool.name_any(), room::trouble(pool, *age)?)))
            .collect()
    }
}

#[tonic::async_trait]
impl Backend for KubernetesBackend {
    async fn probe(&self) -> Result<()> {
        self.check_ready()
    }

    async fn create_volume(&self, request: CreateVolume) -> Result<Volume> {
        self.volumes.create(&request).await
    }

    async fn delete_volume(&self, id: &str) -> Result<()> {
        self.volumes.delete(id).await
    }

    async fn get_volume(&self, id: &str) -> Result<VolumeDetail> {
        let object = existing(self.volumes.volumes.get(id).await?, id)?;
        Ok(convert::detail(&object))
    }

    async fn list_volumes(&self, after: Option<&str>, max: usize) -> Result<Page<Volume>> {
        let objects = self.volumes.volumes.list(None).await?;
        Ok(page(&objects, after, max, convert::volume, |_| true))
    }

    async fn capacity(&self, query: CapacityQuery) -> Result<Capacity> {
        self.volumes.pools.check_synced()?;
        let mut rooms = self.volumes.rooms();
        self.volumes.pools.pass_over_silent(&mut rooms);
        Ok(room::capacity(&rooms, query.node.as_deref()))
    }

    async fn expand_volume(&self, request: ExpandVolume) -> Result<Volume> {
        self.volumes.expand(&request).await
    }

    async fn create_snapshot(&self, request: CreateSnapshot) -> Result<Snapshot> {
        self.snapshots.create(&request).await
    }

    async fn delete_snapshot(&self, id: &str) -> Result<()> {
        self.snapshots.delete(id).await
    }

    async fn get_snapshot(&self, id: &str) -> Result<Snapshot> {
        let object = existing(self.volumes.snapshots.get(id).await?, id)?;
        Ok(convert::snapshot(&object))
    }

    async fn list_snapshots(
        &self,
        filter: &SnapshotFilter,
        after: Option<&str>,
        max: usize,
    ) -> Result<Page<Snapshot>> {
        let objects = match (&filter.snapshot_id, &filter.source_volume_id) {
            (Some(id), _) => self.volumes.snapshots.get(id).await?.into_iter().collect(),
            (None, Some(source)) => {
                let selector = format!("spec.sourceVolume={source}");
                self.volumes.snapshots.list(Some(&selector)).await?
            }
            (None, None) => self.volumes.snapshots.list(None).await?,
        };
        let wanted = |snapshot: &LocalSnapshot| {
            let source = filter.source_volume_id.as_deref();
            source.is_none_or(|id| id == snapshot.spec.source_volume)
        };
        Ok(page(&objects, after, max, convert::snapshot, wanted))
    }

    async fn volume_health(&self, id: &str) -> Result<VolumeHealth> {
        let object = self.volumes.volumes.get(id).await?;
        let object = object
            .filter(Managed::was_made)
            .ok_or_else(|| missing::<LocalVolume>(id))?;
        let pool = self.pool_troubles().remove(&object.spec.node_name);
        Ok(convert::health(&object, pool))
    }

    async fn list_volume_health(
        &self,
        after: Option<&str>,
        max: usize,
    ) -> Result<Page<VolumeHealth>> {
        let troubles = self.pool_troubles();
        let objects = self.volumes.volumes.list(None).await?;
        let health = |object: &LocalVolume| {
            convert::health(object, troubles.get(&object.spec.node_name).cloned())
        };
        let ill = |object: &LocalVolume| !health(object).problems.is_empty();
        Ok(page(&objects, after, max, health, ill))
    }
}

/// Of objects in order of their names, those that exist and match.
fn page<K: Managed, T>(
    objects: &[K],
    after: Option<&str>,
    max: usize,
    convert: impl Fn(&K) -> T,
    wanted: impl Fn(&K) -> bool,
) -> Page<T> {
    let mut matching = objects
        .iter()
        .filter(|object| after.is_none_or(|after| object.name_any().as_str() > after))
        .filter(|object| object.was_made() && object.stage() != Stage::Deleted)
        .filter(|object| wanted(object))
        .peekable();
    let chosen: Vec<&K> = matching.by_ref().take(max).collect();
    let more = matching.peek().is_some();
    Page {
        next: chosen
            .last()
            .filter(|_| more)
            .map(|object| object.name_any()),
        items: chosen.into_iter().map(convert).collect(),
    }
}
