//! What to do about a Lease, given when it was last seen to change.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;
use tokio::time::Instant;

/// What one copy has seen of a Lease.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight {
    last: Option<(String, Instant)>,
    changed: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is free: take it.
    Take,
    /// It is ours: renew it.
    Renew,
    /// Somebody else has it.
    Wait,
}

impl Sight {
    /// Looks at a Lease that somebody else may hold. `usual`: how long it is good for if it does not say so.
    pub(super) fn is_fresh(&mut self, spec: &LeaseSpec, usual: Duration, now: Instant) -> bool {
        let seen = format!(
            "{:?} {:?} {:?}",
            spec.holder_identity, spec.renew_time, spec.acquire_time
        );
        let since = match &self.last {
            Some((last, since)) if *last == seen => *since,
            last => {
                self.changed |= last.is_some();
                self.last = Some((seen, now));
                now
            }
        };
        let seconds = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok());
        let good_for = seconds.map_or(usual, Duration::from_secs);
        now.saturating_duration_since(since) < good_for
    }

    /// Whether somebody was seen to write it.
    pub(super) fn has_changed(&self) -> bool {
        self.changed
    }

    /// Decides about a Lease that this copy wants.
    pub(super) fn decide(
        &mut self,
        spec: &LeaseSpec,
        me: &str,
        usual: Duration,
        now: Instant,
    ) -> Decision {
        match spec.holder_identity.as_deref() {
            Some(holder) if holder == me => Decision::Renew,
            None | Some("") => Decision::Take,
            Some(_other) if self.is_fresh(spec, usual, now) => Decision::Wait,
            Some(_dead) => Decision::Take,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use k8s_openapi::jiff::Timestamp;
    use tokio::time::Instant;

    use super::{Decision, Sight};

    const USUAL: Duration = Duration::from_secs(15);

    fn lease(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_of_nobody_is_taken_and_an_own_one_renewed() {
        let mut sight = Sight::default();
        let now = Instant::now();
        assert_eq!(
            sight.decide(&LeaseSpec::default(), "me", USUAL, now),
            Decision::Take
        );
        assert_eq!(
            sight.decide(&lease("", 1), "me", USUAL, now),
            Decision::Take
        );
        assert_eq!(
            sight.decide(&lease("me", 1), "me", USUAL, now),
            Decision::Renew
        );
    }

    #[test]
    fn a_lease_of_another_is_taken_only_after_it_was_seen_not_to_change_for_its_time() {
        let mut sight = Sight::default();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        // Its times are those of another clock: years ago, or years ahead, says nothing.
        for renewed in [0, 4_000_000_000] {
            assert_eq!(
                sight.decide(&lease("other", renewed), "me", USUAL, at(0)),
                Decision::Wait
            );
        }
        assert_eq!(
            sight.decide(&lease("other", 4_000_000_000), "me", USUAL, at(14)),
            Decision::Wait
        );
        assert_eq!(
            sight.decide(&lease("other", 5), "me", USUAL, at(14)),
            Decision::Wait
        );
        assert_eq!(
            sight.decide(&lease("other", 5), "me", USUAL, at(28)),
            Decision::Wait
        );
        assert_eq!(
            sight.decide(&lease("other", 5), "me", USUAL, at(29)),
            Decision::Take
        );
    }

    #[test]
    fn a_lease_that_does_not_say_how_long_it_is_good_for_is_so_for_the_usual_time() {
        for seconds in [None, Some(-1)] {
            let mut sight = Sight::default();
            let spec = LeaseSpec {
                lease_duration_seconds: seconds,
                ..lease("other", 1)
            };
            let begun = Instant::now();
            assert!(sight.is_fresh(&spec, USUAL, begun));
            assert!(!sight.is_fresh(&spec, USUAL, begun + USUAL));
        }
    }
}
