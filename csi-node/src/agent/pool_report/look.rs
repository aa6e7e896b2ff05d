//! Looking at the pool: which one it is, how full, what is in it.

use std::sync::Arc;

use pool::record::{SnapshotRecord, VolumeRecord};
use pool::{ErrorKind, Filesystem, Found, Usage, View};
use proto::errors::Failure;

use crate::LocalNode;
use crate::blocking::Work;
use crate::local_node::Problem;

/// Another process owns the pool.
pub(super) const OWNED: &str = "OwnedByAnother";

/// What was seen.
#[derive(Clone, Debug)]
pub(super) enum Look {
    /// The right pool is open.
    Open(Arc<Open>),
    /// It is not.
    Away {
        /// One word for it.
        reason: &'static str,
        /// Why, and what to do.
        message: String,
    },
}

/// An open pool.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) uuid: String,
    pub(super) usage: Usage,
    pub(super) filesystem: Filesystem,
    pub(super) reflink: bool,
    pub(super) direct_io: bool,
    pub(super) alone: bool,
    pub(super) volumes: Vec<Arc<VolumeRecord>>,
    pub(super) snapshots: Vec<Arc<SnapshotRecord>>,
    /// Paths within the pool, and what is wrong there.
    pub(super) damaged: Vec<(String, String)>,
}

/// Looks at the pool of `node`. `expected` is the UUID that the LocalPool has; it was not read yet if that is `None`. A pool
/// is made only if `may_init`, the LocalPool has no UUID, and nothing of ours is there.
pub(super) async fn look(
    node: &LocalNode,
    expected: Option<Option<String>>,
    may_init: bool,
) -> Look {
    let work = {
        let node = node.clone();
        move || Ok(open_pool(&node, expected.as_ref(), may_init))
    };
    match node.blocking().run(Work::Short, work).await {
        Err(failure) => away("Internal", failure.message),
        Ok(Err(away)) => away,
        Ok(Ok(())) => match measure(node).await {
            Ok(open) => Look::Open(Arc::new(open)),
            Err(failure) => away("PoolUnavailable", failure.message),
        },
    }
}

fn away(reason: &'static str, message: String) -> Look {
    Look::Away { reason, message }
}

fn open_pool(
    node: &LocalNode,
    expected: Option<&Option<String>>,
    may_init: bool,
) -> Result<(), Look> {
    let handle = node.handle();
    let path = handle.path();
    if let Some(expected) = expected {
        handle.expect(expected.as_deref());
        let found = match pool::look(path) {
            Ok(found) => found,
            Err(error) => return Err(away("PoolUnavailable", error.to_string())),
        };
        match (&found, expected) {
            (Found::Pool(marker), Some(uuid)) if marker.uuid != *uuid => {
                return Err(away(
                    "WrongPool",
                    format!(
                        "{} holds the pool {}, and the pool of this node is {uuid}: another disk is mounted there. Mount the right one. If that one is lost for good, delete the LocalPool {} to go on with this one: its volumes stay DataMissing",
                        path.display(),
                        marker.uuid,
                        node.name()
                    ),
                ));
            }
            (Found::Pool(_), _) => {}
            (_, Some(uuid)) => {
                return Err(away(
                    "PoolMissing",
                    format!(
                        "{} holds no pool, and the pool of this node is {uuid}: is its disk mounted? Nothing is made in its place. If it is lost for good, delete the LocalPool {} to begin anew",
                        path.display(),
                        node.name()
                    ),
                ));
            }
            (found, None) => initialise(node, found, may_init)?,
        }
    }
    match node.pool() {
        Ok(_open) => Ok(()),
        Err(failure) => Err(closed(node, failure)),
    }
}

fn initialise(node: &LocalNode, found: &Found, may_init: bool) -> Result<(), Look> {
    let path = node.handle().path();
    match found {
        Found::Nothing if may_init => match pool::init(path, node.name()) {
            Ok(marker) => {
                tracing::info!(pool = %path.display(), uuid = marker.uuid, "made a pool");
                Ok(())
            }
            Err(error) => Err(away("NotInitialised", error.to_string())),
        },
        Found::Remains(folders) => Err(away(
            "NotInitialised",
            format!(
                "{} has no marker but the folders {folders:?}: this may be a damaged pool, so nothing was changed. If they are empty, `vdctl pool init` makes a pool of it",
                path.display()
            ),
        )),
        Found::Nothing | Found::Pool(_) => Err(away(
            "NotInitialised",
            format!(
                "{} is not a pool: mount its disk there, or make one with `vdctl pool init {} --node {}`",
                path.display(),
                path.display(),
                node.name()
            ),
        )),
    }
}

/// Why a pool that seems to be the right one cannot be opened.
fn closed(node: &LocalNode, failure: Failure) -> Look {
    let owned = View::open(node.handle().path()).and_then(|view| view.is_owned());
    if matches!(owned, Ok(true)) {
        return away(OWNED, failure.message);
    }
    away("PoolUnavailable", failure.message)
}

async fn measure(node: &LocalNode) -> Result<Open, Failure> {
    // Images that are damaged are as bad as records that are.
    let troubled = node.troubled_volumes().await?;
    node.short(move |node| {
        let pool = node.pool()?;
        let of = crate::failure::of;
        let mut damaged: Vec<(String, String)> = pool
            .quarantined()
            .into_iter()
            .map(|folder| (folder.path, folder.reason))
            .collect();
        for (id, problems) in troubled {
            for problem in problems {
                if let Problem::ImageDamaged(reason) = problem {
                    damaged.push((format!("volumes/{id}"), reason));
                }
            }
        }
        damaged.sort_unstable();
        Ok(Open {
            uuid: pool.marker().uuid.clone(),
            usage: pool.usage().map_err(of)?,
            filesystem: pool.filesystem().map_err(of)?,
            reflink: tolerate(pool.reflink())?,
            direct_io: tolerate(pool.direct_io())?,
            alone: tolerate(pool.is_alone())?,
            volumes: pool.volumes(None, usize::MAX).0,
            snapshots: pool.snapshots(None, usize::MAX, |_| true).0,
            damaged,
        })
    })
    .await
}

/// A probe that finds no space answers no for now; everything else of the pool is still worth telling.
fn tolerate(probed: pool::Result<bool>) -> Result<bool, Failure> {
    match probed {
        Ok(answer) => Ok(answer),
        Err(error) if error.kind() == ErrorKind::NoSpace => Ok(false),
        Err(error) => Err(crate::failure::of(error)),
    }
}
