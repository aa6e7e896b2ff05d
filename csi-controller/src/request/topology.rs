//! Where an object is to be: topology of CSI to nodes of ours.

use proto::csi::v1::{Topology, TopologyRequirement};
use proto::errors::Failure;

use super::text::shown;
use crate::model::Placement;

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
    let nodes = |list: &[Topology]| -> Result<Vec<String>, Failure> {
        let mut nodes: Vec<String> = Vec::with_capacity(list.len());
        for topology in list {
            let node = node(key, topology)?;
            if !nodes.iter().any(|seen| seen == node) {
                nodes.push(node.to_owned());
            }
        }
        Ok(nodes)
    };
    let requisite = nodes(&requirement.requisite)?;
    let preferred = nodes(&requirement.preferred)?;
    let placement = Placement {
        requisite,
        preferred,
    };
    match placement
        .preferred
        .iter()
        .find(|node| !placement.allows(node))
    {
        None => Ok(placement),
        Some(node) => Err(Failure::invalid(format!(
            "accessibility_requirements: node {} is preferred but not among the requisite ones",
            shown(node)
        ))),
    }
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
