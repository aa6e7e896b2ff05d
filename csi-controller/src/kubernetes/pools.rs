//! The pools of all nodes, as their agents report them.

use api::LocalPool;
use kube::{Api, Client};
use proto::errors::{Failure, Kind};

use super::mirror::Mirror;

/// All pools. Only their agents write them.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    api: Api<LocalPool>,
    mirror: Mirror<LocalPool>,
}

impl Pools {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            api: Api::all(client),
            mirror: Mirror::default(),
        }
    }

    pub(crate) fn mirror(&self) -> &Mirror<LocalPool> {
        &self.mirror
    }

    /// Keeps the mirror. Never ends.
    pub(crate) async fn follow(&self) {
        self.mirror.follow(self.api.clone()).await;
    }

    /// # Errors
    /// `Unavailable` until every pool is known once: a choice among some of them would be a wrong one.
    pub(crate) fn check_synced(&self) -> Result<(), Failure> {
        if self.mirror.is_synced() {
            return Ok(());
        }
        Err(Failure::new(
            Kind::Unavailable,
            "csi-controller has just started and does not know all pools yet; it is tried again",
        ))
    }
}
