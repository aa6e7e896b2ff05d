//! Where an object is to be: topology of CSI to nodes of ours.

use std::collections::HashSet;

use proto::csi::v1::{Topology, TopologyRequirement};
use proto::errors::Failure;

use super::text::shown;
use crate::model::Placement;

/// Kubernetes is made for 5000 nodes. Whoever places an object looks at each of them for each pool.
const MOST: usize = 16_384;

/// Reads a requirement; an absent or empty one allows every node.
///
/// `key` is the driver's topology key, the only one there is.
pub(crate) fn parse_requirement(
    key: &str,
    requirement: Option<&TopologyRequirement>,
) -> Result<Placement, Failure> {
    let Some(requirement) = requirement else {
        return Ok(Placement::default());
    };
    let requisite = nodes(key, &requirement.requisite)?;
    let preferred = nodes(key, &requirement.preferred)?;
    let allowed: HashSet<&str> = requisite.iter().copied().collect();
    let stranger = preferred
        .iter()
        .find(|node| !allowed.is_empty() && !allowed.contains(*node));
    if let Some(node) = stranger {
        return Err(Failure::invalid(format!(
            "accessibility_requirements: node {} is preferred but not among the requisite ones",
            shown(node)
        )));
    }
    let owned = |nodes: Vec<&str>| nodes.into_iter().map(str::to_owned).collect();
    Ok(Placement {
        requisite: owned(requisite),
        preferred: owned(preferred),
    })
}

/// The nodes of a list in its order, each once.
fn nodes<'a>(key: &str, list: &'a [Topology]) -> Result<Vec<&'a str>, Failure> {
    if list.len() > MOST {
        return Err(Failure::invalid(format!(
            "accessibility_requirements: {} topologies are more than any cluster has nodes; {MOST} are allowed",
            list.len()
        )));
    }
    let mut seen = HashSet::new();
    let mut nodes = Vec::new();
    for topology in list {
        let node = node(key, topology)?;
        if seen.insert(node) {
            nodes.push(node);
        }
    }
    Ok(nodes)
}

/// The node that a topology names.
pub(crate) fn node<'a>(key: &str, topology: &'a Topology) -> Result<&'a str, Failure> {
    match topology.segments.iter().next() {
        Some((only, node)) if topology.segments.len() == 1 && only == key && !node.is_empty() => {
            Ok(node)
        }
        _ => Err(Failure::invalid(format!(
            "a topology must name a node by the key {key} and nothing else"
        ))),
    }
}
