//! What the pools have room for, less what was promised since they last reported: pure functions.

use std::time::Duration;

use api::{LocalPool, LocalVolume, READY_CONDITION, pool_condition};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::convert::to_unsigned;
use super::managed::{Managed, Stage};
use super::placement::Pool;
use super::verdict;
use crate::backend::Capacity;

/// An agent reports at least every five minutes; one that has missed three is taken for gone. By our own clock, since when
/// this process has seen a change: the clocks of nodes may differ.
const STALE: Duration = Duration::from_secs(16 * 60);

/// The pools as placement sees them.
pub(crate) fn pools<'a>(
    pools: impl IntoIterator<Item = (&'a LocalPool, Duration)>,
    volumes: &[impl AsRef<LocalVolume>],
) -> Vec<Pool> {
    pools
        .into_iter()
        .map(|(pool, age)| Pool {
            node: pool.name_any(),
            topology: topology(pool),
            available_bytes: available(pool, volumes),
            trouble: trouble(pool, age),
        })
        .collect()
}

/// The room in the pools that match, for GetCapacity.
pub(crate) fn capacity(pools: &[Pool], topology: Option<&str>) -> Capacity {
    let mut capacity = Capacity::default();
    for pool in pools {
        let asked_for = topology.is_none_or(|value| value == pool.topology);
        if asked_for && pool.trouble.is_none() {
            capacity.available_bytes = capacity
                .available_bytes
                .saturating_add(pool.available_bytes);
            capacity.maximum_bytes = capacity.maximum_bytes.max(pool.available_bytes);
        }
    }
    capacity
}

/// Why a pool takes no volumes now.
pub(crate) fn trouble(pool: &LocalPool, age: Duration) -> Option<String> {
    if age > STALE {
        return Some(format!(
            "its csi-node has reported nothing for {} minutes",
            age.as_secs() / 60
        ));
    }
    let conditions = pool.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions
        .into_iter()
        .find(|condition| condition.type_ == pool_condition::READY);
    match ready {
        Some(condition) if condition.status == "True" => None,
        Some(condition) if !condition.message.is_empty() => Some(condition.message.clone()),
        Some(_) => Some("its csi-node says that it is not ready, and gives no reason".to_owned()),
        None => Some("its csi-node has not reported yet".to_owned()),
    }
}

fn topology(pool: &LocalPool) -> String {
    let told = pool
        .status
        .as_ref()
        .and_then(|status| status.topology.clone());
    told.unwrap_or_else(|| proto::topology::value(&pool.spec.node_name))
}

fn available(pool: &LocalPool, volumes: &[impl AsRef<LocalVolume>]) -> u64 {
    let Some(status) = &pool.status else {
        return 0;
    };
    let observed = status.observed_time.as_ref().map(|time| time.0);
    let promised = volumes
        .iter()
        .map(AsRef::as_ref)
        .filter(|volume| volume.spec.node_name == pool.spec.node_name)
        .map(|volume| promised_since(volume, observed))
        .fold(0, u64::saturating_add);
    to_unsigned(status.available_bytes).saturating_sub(promised)
}

/// What a volume will take that the pool's figure of this time does not contain.
fn promised_since(volume: &LocalVolume, observed: Option<Timestamp>) -> u64 {
    let status = volume.status.as_ref();
    let has = status
        .and_then(|status| status.size_bytes)
        .map_or(0, to_unsigned);
    let wanted = if verdict::found_no_room(volume) {
        has
    } else {
        to_unsigned(volume.spec.size_bytes)
    };
    match volume.stage() {
        Stage::Pending if volume.spec.delete => 0,
        Stage::Pending => wanted,
        Stage::Ready if is_newer(volume, observed) => wanted,
        Stage::Ready => wanted.saturating_sub(has),
        Stage::Failed | Stage::DataMissing | Stage::Deleting | Stage::Deleted => 0,
    }
}

/// Whether it became ready after the pool was looked at. Both times are of the same node's clock.
fn is_newer(volume: &LocalVolume, observed: Option<Timestamp>) -> bool {
    let mut conditions = volume.conditions().iter();
    let ready = conditions.find(|condition| condition.type_ == READY_CONDITION);
    match (ready, observed) {
        (Some(ready), Some(observed)) => ready.last_transition_time.0 > observed,
        _ => false,
    }
}

#[cfg(test)]
#[path = "room_tests.rs"]
mod tests;
