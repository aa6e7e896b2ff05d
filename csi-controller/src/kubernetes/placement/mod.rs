//! On which node a new volume is made: a pure function of what was asked for and what the pools report.
//!
//! The agent of the chosen node has the last word: only it knows to the byte. A node that has refused is named in `refused`,
//! and the next choice is made without it.

use proto::errors::{Failure, Kind};

use crate::model::Placement;

/// One node's pool, as far as placement cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The Kubernetes node.
    pub node: String,
    /// Its value of the topology key.
    pub topology: String,
    /// What one new volume may come to, in bytes, less what is promised to volumes that the figure does not contain yet.
    pub available_bytes: u64,
    /// Why it takes no volumes now.
    pub trouble: Option<String>,
}

/// What decides between the allowed nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The node that holds the content source: content does not move between nodes.
    Source {
        /// What the source is: `snapshot snapshot-...`.
        source: String,
        /// The Kubernetes node that holds it.
        node: String,
    },
    /// The Kubernetes node that the scheduler has chosen for the consumer (WaitForFirstConsumer).
    Selected(String),
    /// Nothing is known of a consumer and the claim binds at once: most free space.
    MostFree,
    /// The caller is not Kubernetes, or does not name the claim: its order of preference, then most free space.
    Preferred,
}

/// A node that was asked and refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The Kubernetes node.
    pub node: String,
    /// Why, from its agent.
    pub message: String,
}

/// The node for a volume of this size.
///
/// # Errors
/// `NoSpace` if no allowed node is left that could have room, so that the scheduler chooses anew; `Unavailable` if the only
/// node that is possible, the source's, cannot serve now.
pub fn place(
    wish: &Wish,
    placement: &Placement,
    pools: &[Pool],
    size_bytes: u64,
    refused: &[Refusal],
) -> Result<String, Failure> {
    match wish {
        Wish::Source { source, node } => beside_source(source, node, placement, pools, refused),
        Wish::Selected(node) => on_selected(node, placement, pools, refused),
        Wish::MostFree => among(&[], placement, pools, size_bytes, refused),
        Wish::Preferred => among(&placement.preferred, placement, pools, size_bytes, refused),
    }
}

fn beside_source(
    source: &str,
    node: &str,
    placement: &Placement,
    pools: &[Pool],
    refused: &[Refusal],
) -> Result<String, Failure> {
    let topology = proto::topology::value(node);
    if !placement.allows(&topology) {
        return Err(no_space(format!(
            "{source} is on node {node}, and a copy of it can only be made there; the claim may only be on {}. Let its pod run on \
             node {node}",
            listed(&placement.requisite)
        )));
    }
    refusal_of(node, refused)?;
    match pools.iter().find(|pool| pool.node == node) {
        Some(Pool { trouble: None, .. }) => Ok(node.to_owned()),
        Some(Pool {
            trouble: Some(why), ..
        }) => Err(unavailable(format!(
            "{source} is on node {node}, whose pool takes no volumes now: {why}"
        ))),
        None => Err(unavailable(format!(
            "{source} is on node {node}, which has no pool: its csi-node has not started, or the node was removed"
        ))),
    }
}

/// Never another node than the scheduler's: with no room there, the scheduler has to choose anew.
fn on_selected(
    node: &str,
    placement: &Placement,
    pools: &[Pool],
    refused: &[Refusal],
) -> Result<String, Failure> {
    if !placement.allows(&proto::topology::value(node)) {
        return Err(no_space(format!(
            "the scheduler chose node {node}, and the volume may only be on {}",
            listed(&placement.requisite)
        )));
    }
    refusal_of(node, refused)?;
    match pools.iter().find(|pool| pool.node == node) {
        Some(Pool { trouble: None, .. }) => Ok(node.to_owned()),
        Some(Pool {
            trouble: Some(why), ..
        }) => Err(no_space(format!(
            "the scheduler chose node {node}, whose pool takes no volumes now: {why}"
        ))),
        None => Err(no_space(format!(
            "the scheduler chose node {node}, which has no pool: csi-node does not run there"
        ))),
    }
}

fn among(
    preferred: &[String],
    placement: &Placement,
    pools: &[Pool],
    size_bytes: u64,
    refused: &[Refusal],
) -> Result<String, Failure> {
    let rank = |pool: &Pool| {
        let place = preferred.iter().position(|value| *value == pool.topology);
        place.unwrap_or(preferred.len())
    };
    let untried = |pool: &&Pool| refused.iter().all(|refusal| refusal.node != pool.node);
    let fits = |pool: &&Pool| pool.trouble.is_none() && pool.available_bytes >= size_bytes;
    let mut candidates: Vec<&Pool> = pools
        .iter()
        .filter(|pool| placement.allows(&pool.topology))
        .filter(untried)
        .filter(fits)
        .collect();
    candidates.sort_by(|a, b| {
        let by_room = b.available_bytes.cmp(&a.available_bytes);
        rank(a)
            .cmp(&rank(b))
            .then(by_room)
            .then(a.node.cmp(&b.node))
    });
    match candidates.first() {
        Some(pool) => Ok(pool.node.clone()),
        None => Err(nowhere(placement, pools, size_bytes, refused)),
    }
}

fn refusal_of(node: &str, refused: &[Refusal]) -> Result<(), Failure> {
    match refused.iter().find(|refusal| refusal.node == node) {
        Some(refusal) => Err(no_space(refusal.message.clone())),
        None => Ok(()),
    }
}

/// How many nodes a message names.
const NAMED: usize = 5;

fn nowhere(placement: &Placement, pools: &[Pool], size_bytes: u64, refused: &[Refusal]) -> Failure {
    let mut reasons: Vec<String> = pools
        .iter()
        .filter(|pool| placement.allows(&pool.topology))
        .map(|pool| {
            let refusal = refused.iter().find(|refusal| refusal.node == pool.node);
            match (refusal, &pool.trouble) {
                (Some(refusal), _) => refusal.message.clone(),
                (None, Some(why)) => format!("node {}: {why}", pool.node),
                (None, None) => format!(
                    "node {} has {} bytes free for new volumes",
                    pool.node, pool.available_bytes
                ),
            }
        })
        .collect();
    if reasons.is_empty() {
        return no_space(format!(
            "no allowed node has a pool; allowed are {}",
            listed(&placement.requisite)
        ));
    }
    let more = reasons.len().saturating_sub(NAMED);
    reasons.truncate(NAMED);
    let mut message = format!(
        "no allowed node has room for {size_bytes} bytes: {}",
        reasons.join("; ")
    );
    if more > 0 {
        message.push_str(&format!("; and {more} more"));
    }
    no_space(message)
}

fn listed(topology: &[String]) -> String {
    if topology.is_empty() {
        return "any node".to_owned();
    }
    let named: Vec<&str> = topology.iter().take(NAMED).map(String::as_str).collect();
    let more = topology.len().saturating_sub(NAMED);
    if more > 0 {
        return format!("{} and {more} more", named.join(", "));
    }
    named.join(", ")
}

fn no_space(message: String) -> Failure {
    Failure::new(Kind::NoSpace, message)
}

fn unavailable(message: String) -> Failure {
    Failure::new(Kind::Unavailable, message)
}

#[cfg(test)]
mod tests;
