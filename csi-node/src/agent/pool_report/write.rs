//! Reading and writing the LocalPool.

use api::{LocalPool, LocalPoolSpec, LocalPoolStatus};
use kube::api::{Api, PostParams};

use crate::agent::Agent;
use crate::agent::objects::{Error, answer, replace_status};

fn pools(agent: &Agent) -> Api<LocalPool> {
    Api::all(agent.client.clone())
}

/// The LocalPool of this node, made if it is not there.
pub(super) async fn get_or_create(agent: &Agent) -> Result<LocalPool, Error> {
    let node = agent.node.name();
    let pools = pools(agent);
    if let Some(found) = answer(pools.get_opt(node)).await? {
        return Ok(found);
    }
    let spec = LocalPoolSpec {
        node_name: node.to_owned(),
    };
    let new = LocalPool::new(node, spec);
    answer(pools.create(&PostParams::default(), &new)).await
}

/// Writes the status of `object`, and of no other that has taken its name.
pub(super) async fn status(
    agent: &Agent,
    object: &LocalPool,
    status: &LocalPoolStatus,
) -> Result<LocalPool, Error> {
    let status = serde_json::to_value(status).map_err(Error::Status)?;
    replace_status(&pools(agent), object, &status).await
}
