//! An object for data that has none, from what its agent reports of it.
//!
//! It carries the mark that its data exists, so that no agent ever makes an empty one in its place.

use std::sync::Arc;

use api::{CREATED_ANNOTATION, LocalPool, LocalSnapshot, LocalVolume, Orphan};
use kube::ResourceExt;
use proto::errors::Failure;

use super::managed::Managed;
use super::mirror::Mirror;
use super::objects::Objects;
use crate::ids;

/// What came of an adoption.
#[derive(Debug)]
pub(crate) enum Adopted {
    /// It has an object now.
    Yes,
    /// It had one already; the report is old.
    Already,
    /// It cannot have one, because of this.
    No(String),
}

/// The report of the orphan of this id, if a pool has one.
pub(crate) fn find(pools: &Mirror<LocalPool>, id: &str) -> Option<(Arc<LocalPool>, Orphan)> {
    pools.all().into_iter().find_map(|pool| {
        let orphans = &pool.status.as_ref()?.orphans;
        let orphan = orphans.iter().find(|orphan| orphan.id == id)?.clone();
        Some((pool, orphan))
    })
}

/// Gives an orphan its object.
pub(crate) async fn adopt(
    volumes: &Objects<LocalVolume>,
    snapshots: &Objects<LocalSnapshot>,
    pool: &LocalPool,
    orphan: &Orphan,
) -> Result<Adopted, Failure> {
    let mark = pool
        .status
        .as_ref()
        .and_then(|status| status.pool_uuid.clone());
    let Some(mark) = mark else {
        return Ok(Adopted::No(
            "its pool does not say which one it is".to_owned(),
        ));
    };
    let adopted = match (&orphan.volume, &orphan.snapshot) {
        (Some(spec), _) if ids::is_volume_id(&orphan.id) => {
            let mut spec = spec.clone();
            spec.delete = false;
            create(volumes, LocalVolume::new(&orphan.id, spec), pool, mark).await?
        }
        (None, Some(spec)) if ids::is_snapshot_id(&orphan.id) => {
            let mut spec = spec.clone();
            spec.delete = false;
            create(snapshots, LocalSnapshot::new(&orphan.id, spec), pool, mark).await?
        }
        _ => Adopted::No("its id or its description is not one that this driver makes".to_owned()),
    };
    if let Adopted::Yes = adopted {
        tracing::info!(id = orphan.id, node = pool.name_any(), "adopted");
    }
    Ok(adopted)
}

async fn create<K: Managed>(
    objects: &Objects<K>,
    mut object: K,
    pool: &LocalPool,
    mark: String,
) -> Result<Adopted, Failure> {
    let node = &pool.spec.node_name;
    // An agent speaks for its own node only.
    if object.node() != node {
        return Ok(Adopted::No(format!(
            "it is described as one of node {}",
            object.node()
        )));
    }
    object
        .annotations_mut()
        .insert(CREATED_ANNOTATION.to_owned(), mark);
    if objects.create(&object).await?.is_some() {
        return Ok(Adopted::Yes);
    }
    match objects.get(&object.name_any()).await? {
        Some(other) if other.node() != node => Ok(Adopted::No(format!(
            "there is a {} of that name on node {}",
            K::WORD,
            other.node()
        ))),
        _ => Ok(Adopted::Already),
    }
}
