//! One of several copies works: the one that holds the Lease.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;

use super::decide::{Decision, Sight};

/// How long a Lease is good for that is not renewed: client-go's times, as of all sidecars.
const GOOD_FOR: Duration = Duration::from_secs(15);
/// How long renewing may fail before this copy stops.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(2);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);

/// A wish to hold a Lease.
#[derive(Debug)]
pub(crate) struct Election {
    api: Api<Lease>,
    name: String,
    me: String,
    sight: Sight,
}

/// The Lease, while it is held.
#[derive(Debug)]
pub(crate) struct Held {
    election: Election,
}

impl Election {
    /// `me` has to be another name in each copy, and after each start.
    pub(crate) fn new(client: Client, namespace: &str, name: String, me: String) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name,
            me,
            sight: Sight::default(),
        }
    }

    /// Returns once the Lease is held.
    pub(crate) async fn win(mut self) -> Held {
        let mut told = false;
        loop {
            match self.attempt().await {
                Ok(true) => return Held { election: self },
                Ok(false) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!(
                            lease = self.name,
                            "another copy works; waiting for its Lease"
                        );
                    }
                }
                Err(error) => tracing::warn!(
                    lease = self.name,
                    error,
                    "cannot look at the Lease; trying again"
                ),
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Whether the Lease is held after this.
    async fn attempt(&mut self) -> Result<bool, String> {
        let Some(mut lease) = within(self.api.get_opt(&self.name)).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.taken(0)),
            };
            return decided(within(self.api.create(&PostParams::default(), &lease)).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let transitions = spec.lease_transitions.unwrap_or_default();
        lease.spec = match self.sight.decide(&spec, &self.me, GOOD_FOR, Instant::now()) {
            Decision::Wait => return Ok(false),
            Decision::Renew => Some(LeaseSpec {
                renew_time: Some(now()),
                ..spec
            }),
            Decision::Take => Some(self.taken(transitions.saturating_add(1))),
        };
        // With the version that was read: if another copy was faster, this is refused.
        let parameters = PostParams::default();
        decided(within(self.api.replace(&self.name, &parameters, &lease)).await)
    }

    fn taken(&self, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(GOOD_FOR.as_secs()).ok(),
            acquire_time: Some(now()),
            renew_time: Some(now()),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

impl Held {
    /// Renews the Lease until that has failed for too long, or somebody else has it. Then why.
    pub(crate) async fn keep(&mut self) -> String {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(EVERY).await;
            let why = match self.election.attempt().await {
                Ok(true) => {
                    renewed = Instant::now();
                    continue;
                }
                Ok(false) => {
                    return format!("another copy has taken the Lease {}", self.election.name);
                }
                Err(error) => error,
            };
            tracing::warn!(
                lease = self.election.name,
                error = why,
                "cannot renew the Lease; trying again"
            );
            if renewed.elapsed() >= DEADLINE {
                return format!(
                    "the Lease {} could not be renewed: {why}",
                    self.election.name
                );
            }
        }
    }

    /// Lets another copy begin at once.
    pub(crate) async fn give_back(mut self) {
        let election = &mut self.election;
        let Ok(Some(mut lease)) = within(election.api.get_opt(&election.name)).await else {
            return;
        };
        let spec = lease.spec.take().unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(&election.me) {
            return;
        }
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            renew_time: Some(now()),
            ..spec
        });
        let parameters = PostParams::default();
        if let Err(error) = within(election.api.replace(&election.name, &parameters, &lease)).await
        {
            tracing::debug!(%error, "the Lease is not given back; it runs out");
        }
    }
}

/// Whether a write won. One that lost against another copy is no error.
fn decided<T>(written: Result<T, String>) -> Result<bool, String> {
    match written {
        Ok(_lease) => Ok(true),
        Err(error) if error == LOST => Ok(false),
        Err(error) => Err(error),
    }
}

const LOST: &str = "somebody else was faster";

async fn within<T>(work: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(REQUEST, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_already_exists() => {
            Err(LOST.to_owned())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err(format!("no answer within {} s", REQUEST.as_secs())),
    }
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}
