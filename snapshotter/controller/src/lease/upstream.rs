//! Whether the upstream snapshot-controller serves the cluster. Its Lease is only looked at: taking it would stop that one for all
//! other drivers.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client};
use tokio::time::Instant;

use super::decide::Sight;

/// The upstream controller's.
const NAME: &str = "snapshot-controller-leader";
/// What it is good for if it does not say so.
const USUAL: Duration = Duration::from_secs(15);
/// A Lease that is so old when it is first seen was left behind, as far as clocks can tell: then nothing is waited for at a start. One
/// that is seen to change is held, whatever its times and the own clock say.
const LEFT_BEHIND: i64 = 600;
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);

/// Looks at the upstream controller's Lease.
#[derive(Debug)]
pub(crate) struct Upstream {
    api: Api<Lease>,
    sight: Sight,
}

impl Upstream {
    /// `namespace`: where the upstream controller keeps its Lease.
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            sight: Sight::default(),
        }
    }

    /// Who serves the cluster now, if anybody.
    pub(crate) async fn holder(&mut self) -> Result<Option<String>, String> {
        let found = tokio::time::timeout(REQUEST, self.api.get_opt(NAME));
        let lease = match found.await {
            Ok(Ok(lease)) => lease,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_elapsed) => return Err(format!("no answer within {} s", REQUEST.as_secs())),
        };
        Ok(holder(
            &mut self.sight,
            lease,
            Instant::now(),
            Timestamp::now(),
        ))
    }
}

fn holder(
    sight: &mut Sight,
    lease: Option<Lease>,
    now: Instant,
    time: Timestamp,
) -> Option<String> {
    let spec = lease?.spec?;
    let fresh = sight.is_fresh(&spec, USUAL, now);
    let renewed = spec.renew_time.as_ref();
    let is_old =
        renewed.is_some_and(|renewed| time.as_second() - renewed.0.as_second() > LEFT_BEHIND);
    let left_behind = is_old && !sight.has_changed();
    let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
    holder.filter(|_| fresh && !left_behind)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use k8s_openapi::jiff::Timestamp;
    use tokio::time::Instant;

    use super::super::decide::Sight;
    use super::holder;

    fn lease(of: &str, renewed: i64) -> Option<Lease> {
        let spec = LeaseSpec {
            holder_identity: Some(of.to_owned()),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        };
        Some(Lease {
            spec: Some(spec),
            ..Lease::default()
        })
    }

    #[test]
    fn it_serves_while_its_lease_is_held_and_changes() {
        let mut sight = Sight::default();
        let begun = Instant::now();
        let time = Timestamp::from_second(1000).unwrap();
        assert_eq!(
            holder(&mut sight, lease("up", 1000), begun, time).as_deref(),
            Some("up")
        );
        let later = begun + Duration::from_secs(15);
        assert_eq!(holder(&mut sight, lease("up", 1000), later, time), None);
        assert_eq!(
            holder(&mut sight, lease("up", 1001), later, time).as_deref(),
            Some("up")
        );
        assert_eq!(holder(&mut sight, lease("", 1002), later, time), None);
        assert_eq!(holder(&mut sight, None, later, time), None);
    }

    #[test]
    fn a_lease_that_was_left_behind_long_ago_holds_nobody_up() {
        let mut sight = Sight::default();
        let time = Timestamp::from_second(10_000).unwrap();
        assert_eq!(
            holder(&mut sight, lease("up", 1000), Instant::now(), time),
            None
        );
        // A clock that is behind the other's is no reason either way.
        assert!(holder(&mut sight, lease("up", 20_000), Instant::now(), time).is_some());
    }

    #[test]
    fn a_clock_that_jumps_hides_no_controller_that_renews_its_lease() {
        let mut sight = Sight::default();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let time = |seconds| Timestamp::from_second(seconds).unwrap();
        let hour = 3600;
        // Seen for the first time after the jump, it looks as if it had been left behind.
        assert_eq!(
            holder(&mut sight, lease("up", 1000), at(0), time(1000 + hour)),
            None
        );
        for (seconds, jump) in [(5, hour), (10, -hour), (15, 24 * hour)] {
            let renewed = 1000 + i64::try_from(seconds).unwrap();
            let now = time(renewed + jump);
            let found = holder(&mut sight, lease("up", renewed), at(seconds), now);
            assert_eq!(found.as_deref(), Some("up"), "{seconds}");
        }
        let now = time(1031);
        assert_eq!(holder(&mut sight, lease("up", 1015), at(30), now), None);
    }
}
