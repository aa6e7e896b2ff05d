//! Which operations may run at the same time.
//!
//! An operation that changes an object claims it alone; one that only reads it (the source of a snapshot, a restore, a
//! clone) shares it. A claim that cannot be had is answered at once with `Busy`, which the orchestrator hears as ABORTED
//! and repeats, as CSI asks for operations pending on one volume. Node calls wait a little first: kubelet's next try
//! would come much later than the end of a snapshot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::errors::{Failure, Kind};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// What can be claimed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// A volume, by id.
    Volume(String),
    /// A snapshot, by id.
    Snapshot(String),
    /// The right to freeze and cut a volume: two freezes of one filesystem would undo each other.
    Cut(String),
}

/// How an object is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// With others that share.
    Shared,
    /// Alone.
    Alone,
}

/// The claims of all running operations.
#[derive(Clone, Debug, Default)]
pub struct Claims(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    held: Mutex<HashMap<Object, Holders>>,
    released: Notify,
}

#[derive(Debug)]
struct Holders {
    hold: Hold,
    count: usize,
    operation: &'static str,
}

/// Claims that are given back when dropped.
#[derive(Debug)]
pub struct Claimed {
    claims: Claims,
    objects: Vec<Object>,
}

impl Claims {
    /// Claims all of `wanted` for `operation`, or none, waiting at most `patience`.
    ///
    /// # Errors
    /// `Busy`, naming the operation that is in the way.
    pub async fn claim(
        &self,
        operation: &'static str,
        wanted: &[(Object, Hold)],
        patience: Duration,
    ) -> Result<Claimed, Failure> {
        let deadline = Instant::now() + patience;
        loop {
            let released = self.0.released.notified();
            tokio::pin!(released);
            // From here on no release is missed.
            released.as_mut().enable();
            let failure = match self.try_claim(operation, wanted) {
                Ok(claimed) => return Ok(claimed),
                Err(failure) => failure,
            };
            if timeout_at(deadline, released).await.is_err() {
                return Err(failure);
            }
        }
    }

    /// Claims all of `wanted` for `operation`, or none, without waiting.
    ///
    /// # Errors
    /// `Busy`, naming the operation that is in the way.
    pub fn try_claim(
        &self,
        operation: &'static str,
        wanted: &[(Object, Hold)],
    ) -> Result<Claimed, Failure> {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        for (object, hold) in wanted {
            if let Some(holders) = held.get(object)
                && (*hold == Hold::Alone || holders.hold == Hold::Alone)
            {
                return Err(busy(operation, object, holders.operation));
            }
        }
        for (object, hold) in wanted {
            let holders = held.entry(object.clone()).or_insert(Holders {
                hold: *hold,
                count: 0,
                operation,
            });
            holders.count += 1;
        }
        let objects = wanted.iter().map(|(object, _)| object.clone()).collect();
        Ok(Claimed {
            claims: self.clone(),
            objects,
        })
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let mut held = self
            .claims
            .0
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for object in &self.objects {
            if let Some(holders) = held.get_mut(object) {
                holders.count -= 1;
                if holders.count == 0 {
                    held.remove(object);
                }
            }
        }
        drop(held);
        self.claims.0.released.notify_waiters();
    }
}

fn busy(operation: &str, object: &Object, running: &str) -> Failure {
    let what = match object {
        Object::Volume(id) | Object::Cut(id) => format!("volume {id}"),
        Object::Snapshot(id) => format!("snapshot {id}"),
    };
    Failure::new(
        Kind::Busy,
        format!("{operation} has to wait: {running} of {what} is running; try again"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(id: &str, hold: Hold) -> (Object, Hold) {
        (Object::Volume(id.to_owned()), hold)
    }

    #[test]
    fn an_object_is_claimed_by_one_alone_or_shared_by_many() {
        let claims = Claims::default();
        let first = claims
            .try_claim("clone", &[volume("a", Hold::Shared)])
            .unwrap();
        let second = claims
            .try_claim("clone", &[volume("a", Hold::Shared)])
            .unwrap();
        let refused = claims
            .try_claim("deletion", &[volume("a", Hold::Alone)])
            .unwrap_err();
        assert_eq!(refused.kind, Kind::Busy);
        assert!(refused.message.contains("clone of volume a"), "{refused}");
        drop(first);
        assert!(
            claims
                .try_claim("deletion", &[volume("a", Hold::Alone)])
                .is_err()
        );
        drop(second);
        let alone = claims
            .try_claim("deletion", &[volume("a", Hold::Alone)])
            .unwrap();
        assert!(
            claims
                .try_claim("clone", &[volume("a", Hold::Shared)])
                .is_err()
        );
        drop(alone);
    }

    #[test]
    fn a_claim_of_several_objects_takes_all_or_none() {
        let claims = Claims::default();
        let held = claims.try_claim("x", &[volume("b", Hold::Alone)]).unwrap();
        let both = [volume("a", Hold::Alone), volume("b", Hold::Alone)];
        assert!(claims.try_claim("y", &both).is_err());
        assert!(claims.try_claim("y", &[volume("a", Hold::Alone)]).is_ok());
        drop(held);
        assert!(claims.try_claim("y", &both).is_ok());
    }

    #[tokio::test]
    async fn who_waits_gets_the_claim_when_it_is_given_back() {
        let claims = Claims::default();
        let held = claims.try_claim("x", &[volume("a", Hold::Alone)]).unwrap();
        let waiting = tokio::spawn({
            let claims = claims.clone();
            async move {
                let wanted = [volume("a", Hold::Alone)];
                claims
                    .claim("y", &wanted, Duration::from_secs(60))
                    .await
                    .is_ok()
            }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waiting.await.unwrap());
    }
}
