//! Carries out what was decided about contents: one call of the driver, then what it has said.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use kube::Client;
use serde_json::{Value, json};

use super::answer::{self, Refusal, Snapshot};
use super::csi::Driver;
use super::plan::{Observed, Step, plan};
use super::unsettled::Unsettled;
use crate::events::Events;
use crate::lease::Hold;
use crate::names::{BEING_CREATED, BEING_DELETED, CONTENT_FINALIZER, YES, csi_name_of};
use crate::objects::{Meta, VolumeSnapshotClass, VolumeSnapshotContent};
use crate::queue::Outcome;
use crate::requests::{Failure, Part};
use crate::time;
use crate::world::{Origin, World};

/// How often it is decided anew about one content at a time.
const ROUNDS: usize = 24;

/// The reasons of events, and how their messages begin.
const CREATING: (&str, &str) = ("SnapshotCreationFailed", "Failed to create snapshot");
const CHECKING: (&str, &str) = (
    "SnapshotContentCheckandUpdateFailed",
    "Failed to check and update snapshot content",
);

type Content = Arc<VolumeSnapshotContent>;

/// The driver's half.
pub(crate) struct Sidecar {
    pub(crate) client: Client,
    pub(crate) world: Arc<World>,
    pub(crate) events: Events,
    pub(crate) driver: Driver,
    /// The driver's id of a snapshot is the name by which it is asked for.
    pub(crate) ids_are_names: bool,
    pub(crate) hold: Hold,
    /// Name the user's objects in CreateSnapshot.
    pub(crate) extra_metadata: bool,
    pub(crate) unsettled: Unsettled,
}

/// What to do after a step.
enum Then {
    /// Decide anew.
    Again,
    /// The driver's snapshot is gone: decide anew, knowing that.
    Deleted,
    /// Enough for now.
    Rest(Outcome),
}

impl Sidecar {
    /// Looks at a content until nothing is left to do.
    pub(crate) async fn call(&self, name: &str) -> Outcome {
        let mut deleted = false;
        for _round in 0..ROUNDS {
            let Some(content) = self.world.contents.get(name) else {
                return Outcome::Settled;
            };
            let class = content.spec.volume_snapshot_class_name.as_deref();
            let class = class.and_then(|class| self.world.classes.get(class));
            let uid = Meta::uid(content.as_ref());
            let left = self.unsettled.time_left(uid, content.is_being_created());
            let seen = Observed {
                driver: &self.world.driver,
                ids_are_names: self.ids_are_names,
                content: &content,
                class: class.as_deref(),
                unsettled: left.is_some(),
            };
            let step = plan(seen, deleted);
            let makes = matches!(step, Step::Create { .. });
            let doing = doing(&step);
            let then = match step {
                Step::Nothing => return Outcome::Settled,
                Step::DeleteUnknown { id } => {
                    match (self.delete(&content, id, false).await, left) {
                        // Once more when the driver is surely done with what it was asked before.
                        (Ok(Then::Deleted), Some(left)) => return Outcome::After(left),
                        (then, _) => then,
                    }
                }
                step => self.take(&content, class.as_deref(), step).await,
            };
            match then {
                // What is deleted stays so, however often the content has changed, until it is made again.
                Ok(Then::Again) | Err(Failure::Changed) => deleted &= !makes,
                Ok(Then::Deleted) => deleted = true,
                Ok(Then::Rest(outcome)) => return outcome,
                Err(failure) => {
                    let refused = matches!(failure, Failure::Refused(_));
                    let message = failure.message();
                    tracing::warn!(
                        content = name,
                        error = message,
                        "cannot go on with a content; trying again"
                    );
                    if refused && let Some((reason, doing)) = doing {
                        let message = format!("{doing}: {message}");
                        // If that is refused too, there is nothing left to tell it by.
                        drop(self.failed(&content, reason, message).await);
                    }
                    return Outcome::Failed;
                }
            }
        }
        Outcome::Failed
    }

    async fn take(
        &self,
        content: &Content,
        class: Option<&VolumeSnapshotClass>,
        step: Step,
    ) -> Result<Then, Failure> {
        match step {
            Step::Create { again } => self.create(content, class, again).await,
            Step::Check { id } => self.check(content, class, id).await,
            Step::Unmark => {
                self.unmark(content).await?;
                Ok(Then::Again)
            }
            Step::Delete { id } => self.delete(content, id, true).await,
            Step::DeleteUnknown { id } => self.delete(content, id, false).await,
            Step::Release => {
                let mut finalizers = content.finalizers_now().to_vec();
                finalizers.retain(|name| name != CONTENT_FINALIZER);
                let change = json!({"metadata": {"finalizers": finalizers}});
                self.change(content, Part::Object, change).await?;
                self.unsettled.forget(Meta::uid(content.as_ref()));
                Ok(Then::Rest(Outcome::Settled))
            }
            Step::Nothing => Ok(Then::Rest(Outcome::Settled)),
        }
    }

    async fn create(
        &self,
        content: &Content,
        class: Option<&VolumeSnapshotClass>,
        again: bool,
    ) -> Result<Then, Failure> {
        let (reason, doing) = if again { CHECKING } else { CREATING };
        let (parameters, secrets) = match self.input(content, class).await {
            Ok(input) => input,
            Err(message) => {
                return self
                    .failed(content, reason, format!("{doing}: {message}"))
                    .await;
            }
        };
        let uid = Meta::uid(content.as_ref());
        if content.is_being_created() {
            self.unsettled.marked(uid);
        }
        let marked = self.mark(content).await?;
        self.may_call()?;
        let source = content
            .spec
            .source
            .volume_handle
            .clone()
            .unwrap_or_default();
        let name = csi_name_of(content.ref_uid());
        // If this is dropped at a stop, the mark tells the next process that the end is not known.
        let call = self.driver.create(name, source, parameters, secrets);
        let answer = tokio::select! {
            answer = call => answer,
            () = self.doomed(&marked) => {
                self.unsettled.abandoned(uid);
                return Ok(Then::Again);
            }
        };
        match answer {
            Ok(made) => {
                let made = self.made(&marked, &made).await?;
                self.unmark(&made).await?;
                Ok(rest_or_again(&made))
            }
            Err(refusal) => {
                if refusal.may_be_at_work() {
                    self.unsettled.abandoned(uid);
                }
                let marked = if refusal.is_final() {
                    self.unmark(&marked).await?
                } else {
                    marked
                };
                let message = format!("{doing}: {}", refusal.message);
                match self.failed(&marked, reason, message).await? {
                    Then::Rest(_) if refusal.is_final() => Ok(Then::Rest(Outcome::Refused)),
                    then => Ok(then),
                }
            }
        }
    }

    async fn check(
        &self,
        content: &Content,
        class: Option<&VolumeSnapshotClass>,
        id: String,
    ) -> Result<Then, Failure> {
        self.may_call()?;
        match self.status(content, class, id).await {
            Ok(made) => {
                let now = self.made(content, &made).await?;
                Ok(rest_or_again(&now))
            }
            Err(message) => {
                let (reason, doing) = CHECKING;
                let message = format!("{doing}: {message}");
                self.failed(content, reason, message).await
            }
        }
    }

    async fn status(
        &self,
        content: &Content,
        class: Option<&VolumeSnapshotClass>,
        id: String,
    ) -> Result<Snapshot, String> {
        let secrets = self.secrets_to_list(content, class).await?;
        let found = self.driver.status(id, secrets).await;
        found.map_err(|refusal: Refusal| refusal.message)
    }

    async fn delete(&self, content: &Content, id: String, known: bool) -> Result<Then, Failure> {
        let tell = |message: &str| {
            self.events.tell(
                content.as_ref(),
                true,
                "SnapshotDeleteError",
                message.to_owned(),
            );
        };
        let secrets = match self.annotated_secrets(content).await {
            Ok(secrets) => secrets,
            // Of what may not be there at all nothing is worth more than that it goes. Perhaps it was never made for want of this Secret.
            Err(_message) if !known => HashMap::new(),
            Err(message) => {
                tell("Failed to get snapshot credentials");
                return Err(Failure::Failed(message));
            }
        };
        self.may_call()?;
        if let Err(refusal) = self.driver.delete(id.clone(), secrets).await {
            tell(&format!("Failed to delete snapshot: {}", refusal.message));
            return Err(Failure::Failed(format!(
                "DeleteSnapshot {id}: {}",
                refusal.message
            )));
        }
        tracing::info!(
            content = Meta::name(content.as_ref()),
            snapshot_id = id,
            "the driver's snapshot is deleted"
        );
        if known {
            let due = |content: &VolumeSnapshotContent| {
                content
                    .handle()
                    .map(|_known| json!({"status": answer::deleted()}))
            };
            let cleared = self.insist(content, Part::Status, due).await;
            if let Err(Failure::Refused(message)) = &cleared {
                tell(&format!("Failed to clear content status: {message}"));
            }
            cleared?;
        }
        Ok(Then::Deleted)
    }

    /// Whatever has held this process up meanwhile: another copy may work by now, and the driver is called by one.
    fn may_call(&self) -> Result<(), Failure> {
        if self.hold.is_good() {
            Ok(())
        } else {
            Err(Failure::Failed(
                "the Lease was not renewed in time".to_owned(),
            ))
        }
    }

    async fn made(&self, content: &Content, made: &Snapshot) -> Result<Content, Failure> {
        let now = time::nanoseconds_now();
        let due = |content: &VolumeSnapshotContent| {
            let status = answer::status(content, made, now)?;
            Some(json!({"status": status}))
        };
        self.insist(content, Part::Status, due).await
    }

    async fn failed(
        &self,
        content: &Content,
        reason: &'static str,
        message: String,
    ) -> Result<Then, Failure> {
        let now = time::now();
        if answer::error(content, &message, &now).is_some() {
            tracing::warn!(
                content = Meta::name(content.as_ref()),
                reason,
                message,
                "a snapshot waits"
            );
            self.events
                .tell(content.as_ref(), true, reason, message.clone());
        }
        let due = |content: &VolumeSnapshotContent| {
            let status = answer::error(content, &message, &now)?;
            Some(json!({"status": status}))
        };
        let now = self.insist(content, Part::Status, due).await?;
        Ok(if is_doomed(&now) {
            Then::Again
        } else {
            Then::Rest(Outcome::Failed)
        })
    }

    /// From here on it is known that there may be a snapshot, and the content does not go before that is settled. With one write: the
    /// upstream controller, which protects contents too, may come later than the driver is called.
    async fn mark(&self, content: &Content) -> Result<Content, Failure> {
        let protection = content.protection();
        if content.is_being_created() && protection.is_none() {
            return Ok(Arc::clone(content));
        }
        // Not insisted on: who deletes the content meanwhile wants no snapshot any more.
        let mut change = json!({"metadata": {"annotations": {BEING_CREATED: YES}}});
        if let Some(finalizers) = protection {
            change["metadata"]["finalizers"] = finalizers.into();
        }
        self.change(content, Part::Object, change).await
    }

    async fn unmark(&self, content: &Content) -> Result<Content, Failure> {
        let due = |content: &VolumeSnapshotContent| {
            let change = json!({"metadata": {"annotations": {BEING_CREATED: Value::Null}}});
            content.is_being_created().then_some(change)
        };
        self.insist(content, Part::Object, due).await
    }

    /// Writes what the driver has said, whatever others have changed meanwhile.
    async fn insist(
        &self,
        content: &Content,
        part: Part,
        due: impl Fn(&VolumeSnapshotContent) -> Option<Value>,
    ) -> Result<Content, Failure> {
        let mut newest = Arc::clone(content);
        for _round in 0..ROUNDS {
            let Some(change) = due(&newest) else {
                return Ok(newest);
            };
            match self.change(&newest, part, change).await {
                Err(Failure::Changed) => newest = self.newest(content)?,
                done => return done,
            }
        }
        // Not decided anew at once: the driver would be called again each time.
        Err(Failure::Failed(
            "somebody else changes the content without end".to_owned(),
        ))
    }

    fn newest(&self, content: &Content) -> Result<Content, Failure> {
        let newest = self.world.contents.get(Meta::name(content.as_ref()));
        let same = newest.filter(|newest| newest.metadata.uid == content.metadata.uid);
        same.ok_or(Failure::Changed)
    }

    /// Changes a content, and gives it as it is then.
    async fn change(
        &self,
        content: &Content,
        part: Part,
        change: Value,
    ) -> Result<Content, Failure> {
        let place = self.world.contents_by(&self.client, Origin::Sidecar);
        match place.change(content, part, change).await? {
            Some(newest) => Ok(newest),
            // Somebody has changed it once more, and that is known already.
            None => self.newest(content),
        }
    }

    /// Returns once the content is to go, if a call for it can be given up then.
    async fn doomed(&self, content: &Content) {
        loop {
            let mut bell = pin!(self.world.bell.notified());
            // From here on no change is missed.
            bell.as_mut().enable();
            let given_up = match self.newest(content) {
                Ok(newest) => is_doomed(&newest),
                Err(_gone) => true,
            };
            if given_up && self.ids_are_names {
                return;
            }
            bell.await;
        }
    }
}

/// What a step is for its user; `None`: nothing, or it is told where it fails.
fn doing(step: &Step) -> Option<(&'static str, &'static str)> {
    match step {
        Step::Create { again: false } => Some(CREATING),
        Step::Create { again: true } | Step::Check { .. } => Some(CHECKING),
        _ => None,
    }
}

/// Whether the driver's snapshot is not wanted any more.
fn is_doomed(content: &VolumeSnapshotContent) -> bool {
    content.is_going() && content.annotation(BEING_DELETED).is_some()
}

/// Asks again later for what is not ready yet; what is may have been deleted meanwhile.
fn rest_or_again(content: &VolumeSnapshotContent) -> Then {
    if content.is_ready() || is_doomed(content) {
        Then::Again
    } else {
        Then::Rest(Outcome::Failed)
    }
}
