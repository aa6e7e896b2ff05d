//! One of several copies works: the one that holds the Lease.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;

use super::decide::{Decision, Sight};
use super::hold::Hold;

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
    /// When the request was begun that has renewed it last.
    renewed: Instant,
    hold: Hold,
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
            let asked = Instant::now();
            match self.attempt().await {
                Ok(true) => {
                    let hold = Hold::default();
                    hold.set(asked + DEADLINE);
                    return Held {
                        election: self,
                        renewed: asked,
                        hold,
                    };
                }
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
            let made = within(self.api.create(&PostParams::default(), &lease)).await;
            return made.map(|_lease| true);
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
        // With the version that was read: if somebody else was faster, this is refused, and the next attempt sees what he wrote.
        let parameters = PostParams::default();
        let written = within(self.api.replace(&self.name, &parameters, &lease)).await;
        written.map(|_lease| true)
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
    /// How long this copy may act.
    pub(crate) fn hold(&self) -> Hold {
        self.hold.clone()
    }

    /// Renews the Lease until that has failed for too long, or somebody else has it. Then why.
    pub(crate) async fn keep(&mut self) -> String {
        let election = &mut self.election;
        let name = election.name.clone();
        let attempt = async || election.attempt().await;
        keep(&name, self.renewed, &self.hold, attempt).await
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

/// Renews until that has failed for [`DEADLINE`] since the last attempt that succeeded was begun, however long one takes.
async fn keep(
    name: &str,
    mut renewed: Instant,
    hold: &Hold,
    mut attempt: impl AsyncFnMut() -> Result<bool, String>,
) -> String {
    loop {
        let end = renewed + DEADLINE;
        tokio::time::sleep_until(end.min(Instant::now() + EVERY)).await;
        let asked = Instant::now();
        let why = match tokio::time::timeout_at(end, attempt()).await {
            Ok(Ok(true)) => {
                renewed = asked;
                hold.set(renewed + DEADLINE);
                continue;
            }
            Ok(Ok(false)) => {
                hold.set(asked);
                return format!("another copy has taken the Lease {name}");
            }
            Ok(Err(error)) => error,
            Err(_elapsed) => "no answer in time".to_owned(),
        };
        tracing::warn!(
            lease = name,
            error = why,
            "cannot renew the Lease; trying again"
        );
        if Instant::now() >= end {
            let limit = DEADLINE.as_secs();
            return format!("the Lease {name} could not be renewed for {limit} s: {why}");
        }
    }
}

async fn within<T>(work: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(REQUEST, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_already_exists() => {
            Err("somebody else was faster".to_owned())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err(format!("no answer within {} s", REQUEST.as_secs())),
    }
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::{DEADLINE, EVERY, GOOD_FOR, Hold, keep};

    /// How long it takes until keeping ends, if it ends.
    async fn ends(
        attempt: impl AsyncFnMut() -> Result<bool, String>,
    ) -> Option<(Duration, String)> {
        let begun = Instant::now();
        let hold = Hold::default();
        hold.set(begun + DEADLINE);
        let keeping = keep("a", begun, &hold, attempt);
        let why = tokio::time::timeout(Duration::from_secs(3600), keeping).await;
        // Whoever keeps it for ever has it, and who does not has not.
        assert_eq!(hold.is_good(), why.is_err());
        why.ok().map(|why| (begun.elapsed(), why))
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_renewed_is_kept() {
        assert_eq!(ends(async || Ok(true)).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_cannot_be_renewed_is_let_go_at_the_deadline() {
        let (after, why) = ends(async || Err("refused".to_owned())).await.unwrap();
        assert_eq!(after, DEADLINE);
        assert!(why.contains("refused"), "{why}");
        assert!(after + EVERY < GOOD_FOR, "nobody else has it before that");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_takes_long_does_not_put_the_deadline_off() {
        let (after, _why) = ends(async || std::future::pending().await).await.unwrap();
        assert_eq!(after, DEADLINE);
        let slow = async || {
            sleep(Duration::from_secs(7)).await;
            Err("slow".to_owned())
        };
        let (after, _why) = ends(slow).await.unwrap();
        assert_eq!(after, DEADLINE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_counts_from_before_the_request() {
        let mut first = true;
        let (after, _why) = ends(async || {
            // The answer comes late; what it says was so when it was asked at the earliest.
            sleep(Duration::from_secs(5)).await;
            if std::mem::take(&mut first) {
                Ok(true)
            } else {
                Err("refused".to_owned())
            }
        })
        .await
        .unwrap();
        assert_eq!(after, EVERY + DEADLINE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_race_is_no_lost_lease() {
        let mut attempts = 0;
        let ended = ends(async || {
            attempts += 1;
            match attempts {
                2 => Err("somebody else was faster".to_owned()),
                5 => Ok(false),
                _ => Ok(true),
            }
        });
        let (after, why) = ended.await.unwrap();
        assert_eq!(after, EVERY * 5);
        assert!(why.contains("another copy"), "{why}");
    }
}
