//! One object, until there is nothing to do for it now.

use std::sync::Arc;
use std::time::Duration;

use api::{AGENT_FINALIZER, CREATED_ANNOTATION};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::controller::Action;
use proto::errors::{Failure, Kind};

use super::managed::{Managed, Report, Seen};
use super::operation::{Asked, Ended};
use super::patch::{self, Error};
use super::plan::{Facts, Plan, Step, View, pause, plan, rest};
use super::{failure, watch};
use crate::agent::Agent;

/// How long a reconciliation waits for an operation before it reports progress and waits again.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often an object is looked at when nothing happens: what it uses on the disk changes without a word.
const REFRESH: Duration = Duration::from_secs(300);
/// How soon after the pool went away it is looked at again; its return is told at once.
const AWAY: Duration = Duration::from_secs(60);
/// No object needs more steps than these, deletion included. More would be two writers that undo each other.
const STEPS: usize = 12;

/// Reconciles `object`.
pub(super) async fn reconcile<K: Managed>(
    object: Arc<K>,
    agent: Arc<Agent>,
) -> Result<Action, Error> {
    let one = One {
        api: Api::all(agent.client.clone()),
        agent,
    };
    match one.run(K::clone(&object)).await {
        Err(error) if one.is_gone(&object, &error).await => {
            // Deleted by force, perhaps; its data, if any was made, is an orphan and reported as one.
            one.agent.running.forget(&object.uid().unwrap_or_default());
            Ok(Action::await_change())
        }
        other => other,
    }
}

struct One<K: Managed> {
    api: Api<K>,
    agent: Arc<Agent>,
}

/// What a step led to.
enum Next<K> {
    /// The object as it is after the step.
    Look(K),
    /// It is looked at again after this time, or when something happens.
    Later(Duration),
}

impl<K: Managed> One<K> {
    /// Whether an error means that there is no such object any more. A status that names another uid is refused like a wrong one.
    async fn is_gone(&self, object: &K, error: &Error) -> bool {
        let gone = |error: Error| error.is_gone();
        error.is_gone()
            || error.is_refusal() && patch::get(&self.api, object).await.is_err_and(gone)
    }

    async fn run(&self, mut object: K) -> Result<Action, Error> {
        if object.node_name() != self.agent.node.name() {
            // The watch is for our objects only; this is the last line of defence.
            return Ok(Action::await_change());
        }
        if self.agent.standing.another_reports() {
            return Ok(Action::await_change());
        }
        let mut fresh = false;
        if let Some(operation) = self.finish(&object, &mut fresh).await? {
            match operation {
                Next::Look(read) => object = read,
                Next::Later(after) => return Ok(Action::requeue(after)),
            }
        }
        for _ in 0..STEPS {
            let seen = object.look(&self.agent.node).await;
            let facts = self.facts(&object, &seen);
            let plan = plan(&facts);
            if plan.step.touches_data() && !fresh {
                // What is done to data must not follow from a wish that was taken back.
                (object, fresh) = (patch::get(&self.api, &object).await?, true);
                continue;
            }
            match self.step(&object, &seen, &facts, plan).await? {
                Next::Look(changed) => object = changed,
                Next::Later(after) if after.is_zero() => return Ok(Action::await_change()),
                Next::Later(after) => return Ok(Action::requeue(after)),
            }
        }
        tracing::warn!(
            name = object.name_any(),
            what = K::WHAT,
            "it does not come to rest: is somebody else changing it? It is looked at again in a minute"
        );
        Ok(Action::requeue(AWAY))
    }

    /// What became of the operation that an earlier reconciliation began.
    async fn finish(&self, object: &K, fresh: &mut bool) -> Result<Option<Next<K>>, Error> {
        let uid = object.uid().unwrap_or_default();
        let Some(waited) = self.agent.running.wait(&uid, PATIENCE).await else {
            return Ok(None);
        };
        *fresh = true;
        let object = patch::get(&self.api, object).await?;
        match waited {
            None => self.progress(&object).await.map(Some),
            Some(ended) => self.ended(&object, ended).await.map(Some),
        }
    }

    fn facts(&self, object: &K, seen: &Seen<K::Record>) -> Facts {
        let meta = object.meta();
        Facts {
            what: K::WHAT,
            named: object.named(),
            delete: object.wants_deletion(),
            going: meta.deletion_timestamp.is_some(),
            held: object.finalizers().iter().any(|one| one == AGENT_FINALIZER),
            created: object.annotations().get(CREATED_ANNOTATION).cloned(),
            state: object.state(),
            satisfied: object.satisfied(),
            resting: self.rest(object).is_some(),
            pool: self.agent.standing.pool(),
            data: seen.data.clone(),
        }
    }

    fn rest(&self, object: &K) -> Option<i64> {
        rest(object.failure(), generation(object), &now())
    }

    async fn step(
        &self,
        object: &K,
        seen: &Seen<K::Record>,
        facts: &Facts,
        plan: Plan,
    ) -> Result<Next<K>, Error> {
        match plan.step {
            Step::Leave => Ok(Next::Later(Duration::ZERO)),
            Step::Hold => patch::hold(&self.api, object).await.map(Next::Look),
            Step::Release => {
                patch::release(&self.api, object).await?;
                self.agent.changed.notify_one();
                Ok(Next::Later(Duration::ZERO))
            }
            Step::MarkMade => match &facts.pool {
                Ok(uuid) => patch::mark_made(&self.api, object, uuid)
                    .await
                    .map(Next::Look),
                Err(_it_went_away) => Ok(Next::Later(AWAY)),
            },
            Step::Make | Step::Grow | Step::Remove => self.operate(object, plan.step).await,
            Step::Rest => {
                let left = self.rest(object).unwrap_or(1);
                Ok(Next::Later(Duration::from_secs(left.unsigned_abs())))
            }
            Step::Report => self.report(object, seen, facts, &plan.view).await,
        }
    }

    async fn report(
        &self,
        object: &K,
        seen: &Seen<K::Record>,
        facts: &Facts,
        view: &View,
    ) -> Result<Next<K>, Error> {
        let (generation, now) = (generation(object), now());
        let standing = view
            .failure
            .as_ref()
            .map(|failure| failure::standing(object.failure(), failure, generation, &now));
        let report = Report {
            state: view.state,
            pool_uuid: facts.pool.as_ref().ok().cloned(),
            generation,
            failure: standing,
            condition: failure::ready(object.conditions(), view, generation, &now),
            progress: None,
        };
        let after = object.status(report, seen.record.as_ref(), &now);
        self.tell(object, view).await;
        let deleted = facts.delete && facts.held && view.state == super::State::Deleted;
        let written = patch::status(&self.api, object, after).await?;
        if deleted {
            return Ok(Next::Look(written));
        }
        Ok(Next::Later(if facts.pool.is_ok() {
            watch::spread(REFRESH, &object.name_any())
        } else {
            watch::spread(AWAY, &object.name_any())
        }))
    }

    async fn operate(&self, object: &K, step: Step) -> Result<Next<K>, Error> {
        let uid = object.uid().unwrap_or_default();
        let (node, wanted) = (self.agent.node.clone(), object.clone());
        let (running, operations) = (&self.agent.running, &self.agent.operations);
        let asked = Asked {
            uid: &uid,
            generation: generation(object),
            step,
        };
        match step {
            Step::Make => {
                running.begin(asked, object.making(), operations, wanted.make(node));
            }
            Step::Grow => {
                running.begin(asked, "expand_volume", operations, wanted.grow(node));
            }
            _ => {
                let name = match K::WHAT {
                    "volume" => "delete_volume",
                    _ => "delete_snapshot",
                };
                running.begin(asked, name, operations, wanted.remove(node));
            }
        }
        match running.wait(&uid, PATIENCE).await {
            Some(Some(ended)) => self.ended(object, ended).await,
            Some(None) => self.progress(object).await,
            // Somebody else waits for it.
            None => Ok(Next::Later(PATIENCE)),
        }
    }

    /// The operation is over: the disk says what came of it, or status says why nothing did.
    async fn ended(&self, object: &K, ended: Ended) -> Result<Next<K>, Error> {
        self.agent.changed.notify_one();
        let name = object.name_any();
        let failure = match ended.result {
            Ok(()) => {
                tracing::info!(name, what = K::WHAT, step = ?ended.step, "done");
                return Ok(Next::Look(object.clone()));
            }
            Err(failure) => failure,
        };
        tracing::warn!(name, what = K::WHAT, step = ?ended.step, kind = ?failure.kind, error = %failure, "failed; it is tried again");
        if generation(object) != ended.generation {
            // Something else is asked for by now, which has not failed.
            return Ok(Next::Look(object.clone()));
        }
        let written = self.write_failure(object, &failure).await?;
        let attempts = written.failure().map_or(1, |failure| failure.attempts);
        let pause = pause(&format!("{:?}", failure.kind), attempts);
        Ok(Next::Later(Duration::from_secs(pause.unsigned_abs())))
    }

    async fn write_failure(&self, object: &K, failure: &Failure) -> Result<K, Error> {
        let (generation, now) = (generation(object), now());
        let state = object.state();
        let view = View {
            state,
            ready: Some(state == super::State::Ready),
            reason: reason(failure.kind),
            message: failure.message.clone(),
            failure: Some(failure.clone()),
        };
        let report = Report {
            state,
            pool_uuid: None,
            generation,
            failure: Some(failure::attempt(
                object.failure(),
                failure,
                generation,
                &now,
            )),
            condition: failure::ready(object.conditions(), &view, generation, &now),
            progress: None,
        };
        let seen = object.look(&self.agent.node).await;
        let after = object.status(report, seen.record.as_ref(), &now);
        self.tell(object, &view).await;
        patch::status(&self.api, object, after).await
    }

    /// The operation goes on.
    async fn progress(&self, object: &K) -> Result<Next<K>, Error> {
        let done = self.agent.node.progress(&object.name_any());
        let (generation, now) = (generation(object), now());
        let view = View {
            state: object.state(),
            ready: Some(object.state() == super::State::Ready),
            reason: "Running",
            message: "the operation is running".to_owned(),
            failure: None,
        };
        let report = Report {
            state: object.state(),
            pool_uuid: None,
            generation,
            failure: object.failure().cloned(),
            condition: failure::ready(object.conditions(), &view, generation, &now),
            progress: done,
        };
        let after = object.status(report, None, &now);
        patch::status(&self.api, object, after).await?;
        Ok(Next::Later(Duration::from_millis(1)))
    }

    /// Tells the owner of the claim, or whoever looks at the object, of a failure that somebody has to do something about, once per failure.
    async fn tell(&self, object: &K, view: &View) {
        let Some(failure) = &view.failure else { return };
        let passing = matches!(
            failure.kind,
            Kind::Busy | Kind::Unavailable | Kind::InUse | Kind::Uncertain
        );
        let told = object.failure().is_some_and(|last| {
            last.kind == format!("{:?}", failure.kind) && last.message == failure.message
        });
        if passing || told {
            return;
        }
        let (events, reason) = (&self.agent.events, reason(failure.kind));
        match object.claim() {
            Some((claim, uid)) => events.claim(&claim, uid, reason, &failure.message).await,
            // Nobody's claim: the object itself is where a person looks.
            None => {
                let reference = object.object_ref(&());
                events.object(&reference, reason, &failure.message).await;
            }
        }
    }
}

fn generation<K: Managed>(object: &K) -> i64 {
    object.meta().generation.unwrap_or(0)
}

/// A kind of failure as the reason of a condition and of an event.
fn reason(kind: Kind) -> &'static str {
    match kind {
        Kind::InvalidArgument => "InvalidArgument",
        Kind::NotFound => "SourceNotFound",
        Kind::Conflict => "Differs",
        Kind::Busy => "Busy",
        Kind::InUse => "InUse",
        Kind::NoSpace => "NoSpace",
        Kind::OutOfRange => "OutOfRange",
        Kind::Precondition => "PreconditionFailed",
        Kind::Unavailable => "PoolUnavailable",
        Kind::Corrupt => "Damaged",
        Kind::Io => "DiskError",
        Kind::Uncertain => "Interrupted",
        Kind::BadToken | Kind::Unimplemented | Kind::Internal => "Internal",
    }
}

fn now() -> Time {
    // Whole seconds, as the API server keeps them: else what was written would never equal what is read.
    let now = Timestamp::now().as_second();
    Time(Timestamp::from_second(now).unwrap_or_default())
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
