//! Whether the upstream snapshot-controller serves the cluster. Its Lease is only looked at: taking it would stop that one for all
//! other drivers.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::Instant;

use super::decide::Sight;
use crate::objects::Meta;

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
    /// By namespace. It keeps its Lease where it runs, so one that was moved has left another one behind.
    sights: HashMap<String, Sight>,
}

impl Upstream {
    /// `namespace`: the only one in which it can be.
    pub(crate) fn new(client: Client, namespace: Option<&str>) -> Self {
        Self {
            api: match namespace {
                Some(namespace) => Api::namespaced(client, namespace),
                None => Api::all(client),
            },
            sights: HashMap::new(),
        }
    }

    /// Who serves the cluster now, if anybody.
    pub(crate) async fn holder(&mut self) -> Result<Option<String>, String> {
        // By the name alone, so that the right to list Leases of this name is enough.
        let named = ListParams::default().fields(&format!("metadata.name={NAME}"));
        let found = tokio::time::timeout(REQUEST, self.api.list(&named));
        let leases = match found.await {
            Ok(Ok(leases)) => leases.items,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_elapsed) => return Err(format!("no answer within {} s", REQUEST.as_secs())),
        };
        Ok(self.among(leases, Instant::now(), Timestamp::now()))
    }

    fn among(&mut self, leases: Vec<Lease>, now: Instant, time: Timestamp) -> Option<String> {
        let mut before = std::mem::take(&mut self.sights);
        let mut found = None;
        for lease in leases {
            let namespace = Meta::namespace(&lease).to_owned();
            let mut sight = before.remove(&namespace).unwrap_or_default();
            let holder = holder(&mut sight, lease, now, time);
            found = found.or(holder.map(|holder| format!("{holder} in namespace {namespace}")));
            self.sights.insert(namespace, sight);
        }
        found
    }
}

fn holder(sight: &mut Sight, lease: Lease, now: Instant, time: Timestamp) -> Option<String> {
    let spec = lease.spec?;
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
    use kube::{Client, Config};
    use tokio::time::Instant;

    use super::super::decide::Sight;
    use super::{Upstream, holder};

    fn lease(of: &str, renewed: i64) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(of.to_owned()),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        };
        Lease {
            spec: Some(spec),
            ..Lease::default()
        }
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
    }

    #[tokio::test]
    async fn it_is_found_in_any_namespace_beside_leases_that_were_left_behind() {
        let client = Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let mut upstream = Upstream::new(client, None);
        let begun = Instant::now();
        let time = Timestamp::from_second(1000).unwrap();
        let within = |namespace: &str, renewed| {
            let mut lease = lease("up", renewed);
            lease.metadata.namespace = Some(namespace.to_owned());
            lease
        };
        let later = begun + Duration::from_secs(15);
        let before = vec![within("a", 1000), within("b", 1000)];
        assert!(upstream.among(before, begun, time).is_some());
        let after = vec![within("a", 1000), within("b", 1001)];
        assert_eq!(
            upstream.among(after.clone(), later, time).as_deref(),
            Some("up in namespace b")
        );
        let end = later + Duration::from_secs(15);
        assert_eq!(upstream.among(after, end, time), None);
        assert_eq!(upstream.among(Vec::new(), end, time), None);
        assert!(upstream.sights.is_empty());
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
