//! Adoption: objects for data that has none.
//!
//! Agents report such data and touch nothing. It gets an object again, from what its record says, when a PersistentVolume (or
//! VolumeSnapshotContent) of this driver names it, or when an administrator asks for it on the LocalPool.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{ADOPT_ANNOTATION, LocalPool, Orphan};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use proto::errors::Failure;
use serde_json::json;

use super::events::Events;
use super::foreign::VolumeSnapshotContent;
use crate::kubernetes::adopt::{Adopted, adopt};
use crate::kubernetes::objects::{FIELD_MANAGER, within};
use crate::kubernetes::volumes::Volumes;

/// How often it is asked whether something names an orphan by now, while there are the same ones.
const AGAIN: Duration = Duration::from_secs(60);
/// Pools report in bursts.
const REST: Duration = Duration::from_secs(1);
const PAGE: u32 = 500;

/// Keeps until dropped.
pub(super) async fn keep(client: &Client, volumes: &Volumes, events: &Events, driver: &str) {
    let keeper = Keeper {
        client,
        volumes,
        events,
        driver,
    };
    let mut known = Known::default();
    loop {
        let pools = volumes.pools.mirror().all();
        let waiting: Vec<_> = pools.iter().filter(|pool| concerns(pool)).collect();
        let pause = if waiting.is_empty() {
            Duration::MAX
        } else {
            AGAIN
        };
        if let Err(error) = keeper.learn(&mut known, orphans(&pools)).await {
            tracing::warn!(%error, "cannot see what names orphans; trying again");
        }
        for pool in waiting {
            if let Err(error) = keeper.look_after(pool, &known.named).await {
                tracing::warn!(%error, node = pool.name_any(), "cannot adopt; trying again");
            }
        }
        tokio::time::sleep(REST).await;
        let changed = volumes.pools.mirror().changed();
        // A change that came while this was busy is not missed: it rings for the next one who waits.
        if tokio::time::timeout(pause, changed).await.is_err() {
            tracing::debug!("looking at orphans again");
        }
    }
}

/// Which orphans are named by something of Kubernetes, and when that was asked for which orphans.
#[derive(Debug, Default)]
struct Known {
    asked: Option<Instant>,
    orphans: BTreeSet<String>,
    named: BTreeSet<String>,
}

/// The ids of all orphans.
fn orphans(pools: &[Arc<LocalPool>]) -> BTreeSet<String> {
    let statuses = pools.iter().filter_map(|pool| pool.status.as_ref());
    statuses
        .flat_map(|status| &status.orphans)
        .map(|orphan| orphan.id.clone())
        .collect()
}

fn concerns(pool: &LocalPool) -> bool {
    let orphans = pool
        .status
        .as_ref()
        .map_or(0, |status| status.orphans.len());
    orphans > 0 || pool.annotations().contains_key(ADOPT_ANNOTATION)
}

/// What an administrator asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    All,
    Ids(BTreeSet<String>),
}

fn wish(pool: &LocalPool) -> Wish {
    let Some(text) = pool.annotations().get(ADOPT_ANNOTATION) else {
        return Wish::Nothing;
    };
    let ids: BTreeSet<String> = text.split_whitespace().map(str::to_owned).collect();
    if ids.contains("*") {
        return Wish::All;
    }
    Wish::Ids(ids)
}

/// Whether nothing that was asked for is an orphan any more.
fn is_done(wish: &Wish, pool: &LocalPool) -> bool {
    let status = pool.status.clone().unwrap_or_default();
    match wish {
        Wish::Nothing => false,
        Wish::All => status.orphan_count == 0 && status.orphans.is_empty(),
        Wish::Ids(ids) => {
            // The report is cut at its end; one that is not in it may still be an orphan.
            let whole =
                usize::try_from(status.orphan_count).is_ok_and(|all| all <= status.orphans.len());
            whole
                && status
                    .orphans
                    .iter()
                    .all(|orphan| !ids.contains(&orphan.id))
        }
    }
}

struct Keeper<'a> {
    client: &'a Client,
    volumes: &'a Volumes,
    events: &'a Events,
    driver: &'a str,
}

impl Keeper<'_> {
    /// Asks what names orphans: everything is listed for it, so only where there are other orphans than before, or after a while.
    async fn learn(&self, known: &mut Known, orphans: BTreeSet<String>) -> Result<(), Failure> {
        let fresh = known.asked.is_some_and(|asked| asked.elapsed() < AGAIN);
        if orphans.is_empty() || (fresh && orphans == known.orphans) {
            return Ok(());
        }
        let mut named = self.named().await?;
        named.retain(|id| orphans.contains(id));
        *known = Known {
            asked: Some(Instant::now()),
            orphans,
            named,
        };
        Ok(())
    }

    async fn look_after(&self, pool: &LocalPool, named: &BTreeSet<String>) -> Result<(), Failure> {
        let wish = wish(pool);
        if is_done(&wish, pool) {
            return self.take_off(pool).await;
        }
        let orphans = pool.status.iter().flat_map(|status| &status.orphans);
        for orphan in orphans {
            let wanted = match &wish {
                Wish::All => true,
                Wish::Ids(ids) => ids.contains(&orphan.id) || named.contains(&orphan.id),
                Wish::Nothing => named.contains(&orphan.id),
            };
            if wanted {
                self.adopt(pool, orphan).await?;
            }
        }
        Ok(())
    }

    async fn adopt(&self, pool: &LocalPool, orphan: &Orphan) -> Result<(), Failure> {
        let adopted = adopt(&self.volumes.volumes, &self.volumes.snapshots, pool, orphan).await?;
        let on = pool.object_ref(&());
        match adopted {
            Adopted::Yes => {
                let note = format!("{} has an object again", orphan.id);
                self.events.normal(&on, "Adopted", note).await;
            }
            Adopted::Already => {}
            Adopted::No(why) => {
                let note = format!("{} cannot be adopted: {why}", orphan.id);
                self.events.warning(&on, "NotAdopted", note).await;
            }
        }
        Ok(())
    }

    /// The ids that PersistentVolumes and VolumeSnapshotContents of this driver name.
    async fn named(&self) -> Result<BTreeSet<String>, Failure> {
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let mut parameters = ListParams::default().limit(PAGE);
        let mut named = BTreeSet::new();
        loop {
            let page = within("list PersistentVolumes", api.list(&parameters)).await?;
            let ours = page.items.into_iter().filter_map(|volume| volume.spec?.csi);
            named.extend(
                ours.filter(|csi| csi.driver == self.driver)
                    .map(|csi| csi.volume_handle),
            );
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters.continue_token = Some(token),
                None => break,
            }
        }
        let api: Api<VolumeSnapshotContent> = Api::all(self.client.clone());
        let mut parameters = ListParams::default().limit(PAGE);
        loop {
            let work = async {
                match api.list(&parameters).await {
                    // The cluster has no snapshots. The reason of such an answer is not `NotFound`: it is no Status at all.
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                    answer => answer.map(Some),
                }
            };
            let Some(page) = within("list VolumeSnapshotContents", work).await? else {
                return Ok(named);
            };
            let handles = page.items.iter().filter_map(|one| one.handle(self.driver));
            named.extend(handles.map(str::to_owned));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters.continue_token = Some(token),
                None => return Ok(named),
            }
        }
    }

    async fn take_off(&self, pool: &LocalPool) -> Result<(), Failure> {
        let api: Api<LocalPool> = Api::all(self.client.clone());
        let name = pool.name_any();
        let patch = json!({"metadata": {
            "resourceVersion": pool.resource_version(), "annotations": {ADOPT_ANNOTATION: null},
        }});
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let work = async {
            match api.patch(&name, &parameters, &Patch::Merge(&patch)).await {
                // It has changed: looked at again because of that.
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                    Ok(())
                }
                answer => answer.map(|_pool| ()),
            }
        };
        within(
            &format!("take the request for adoption off LocalPool {name}"),
            work,
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use api::LocalPool;
    use serde_json::json;

    use super::{Wish, is_done, wish};

    fn pool(adopt: Option<&str>, orphans: &[&str], count: usize) -> LocalPool {
        let orphans: Vec<_> = orphans
            .iter()
            .map(|id| json!({"id": id, "since": "2026-01-01T00:00:00Z"}))
            .collect();
        let annotations = adopt.map(|ids| json!({"vd.csi.io/adopt": ids}));
        serde_json::from_value(json!({
            "apiVersion": "vd.csi.io/v1alpha1", "kind": "LocalPool", "spec": {"nodeName": "n"},
            "metadata": {"name": "n", "annotations": annotations},
            "status": {"orphans": orphans, "orphanCount": count},
        }))
        .unwrap()
    }

    #[test]
    fn an_administrator_names_ids_or_all() {
        assert_eq!(wish(&pool(None, &[], 0)), Wish::Nothing);
        assert_eq!(wish(&pool(Some("*"), &[], 0)), Wish::All);
        let ids = Wish::Ids(["a".to_owned(), "b".to_owned()].into());
        assert_eq!(wish(&pool(Some(" a  b\n"), &[], 0)), ids);
    }

    #[test]
    fn a_request_is_done_once_nothing_of_it_is_an_orphan() {
        let done = |pool: &LocalPool| is_done(&wish(pool), pool);
        assert!(done(&pool(Some("a"), &["b"], 1)));
        assert!(!done(&pool(Some("a"), &["a"], 1)));
        assert!(
            !done(&pool(Some("a"), &["b"], 200)),
            "the report is not whole"
        );
        assert!(!done(&pool(Some("*"), &["b"], 1)));
        assert!(done(&pool(Some("*"), &[], 0)));
        assert!(!done(&pool(None, &[], 0)), "there is no request");
    }
}
