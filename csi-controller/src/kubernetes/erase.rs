//! Deleting an object with its data, and giving up a creation.
//!
//! ```text
//! spec.delete=true ──> the agent removes the data ──> state Deleted, finalizer off ──> DELETE
//! ```
//! An object that no agent has taken on has no data and goes at once. Each step says which state it is about, so that an agent
//! that takes the object on in between is not overtaken.

use kube::ResourceExt;
use proto::errors::{Failure, Kind};
use serde_json::json;

use super::managed::Managed;
use super::objects::Objects;
use super::verdict::{self, Deletion, Seen, is_erased, is_refusal};
use super::wait::Deadline;

/// Deletes an object and its data; returns once it is gone. That there is none is a success.
pub(crate) async fn erase<K: Managed>(
    objects: &Objects<K>,
    mut object: K,
    deadline: Deadline,
) -> Result<(), Failure> {
    let name = object.name_any();
    loop {
        object = step(objects, object).await?;
        let seen = Seen::of(&object);
        let judge = |now: Option<&K>| verdict::deletion(now, &seen);
        match objects.wait(&name, deadline, judge).await {
            Ok(Deletion::Gone) => return Ok(()),
            Ok(Deletion::Again) => {}
            Ok(Deletion::Failed(refused, failure)) if is_refusal(failure.kind) => {
                if take_back(objects, &refused).await? {
                    return Err(failure);
                }
            }
            Ok(Deletion::Failed(_, failure)) => return Err(failure),
            Err(gave_up) => {
                let now = objects.mirror().get(&name);
                let now = now.as_deref().unwrap_or(&object);
                return Err(verdict::overdue(now, gave_up.working, "deleted"));
            }
        }
        match objects.get(&name).await? {
            Some(now) if now.uid() == object.uid() => object = now,
            _ => return Ok(()),
        }
        if deadline.is_over() {
            return Err(verdict::deleting(&object));
        }
    }
}

/// Gives up a creation that failed, if the object is still as it was judged. `false`: it is not, look again.
pub(crate) async fn withdraw<K: Managed>(
    objects: &Objects<K>,
    judged: K,
    deadline: Deadline,
) -> Result<bool, Failure> {
    // Not as `erase` does it, which goes on when the object has changed: by now it may be made, and another caller told so.
    let begun = if judged.delete() {
        judged
    } else if judged.taken_on() {
        match objects.patch(&judged, json!({"delete": true})).await? {
            Some(begun) => begun,
            None => return Ok(false),
        }
    } else if objects.remove(&judged).await? {
        judged
    } else {
        return Ok(false);
    };
    match erase(objects, begun, deadline).await {
        Ok(()) => Ok(true),
        Err(failure) => Err(Failure::new(
            match failure.kind {
                Kind::Busy | Kind::Unavailable => failure.kind,
                // Something may be left, so the caller must come again.
                _ => Kind::Uncertain,
            },
            format!("what was begun could not be undone yet: {failure}"),
        )),
    }
}

/// The next write, if one is needed. What could not be written because the object has changed is looked at again.
async fn step<K: Managed>(objects: &Objects<K>, object: K) -> Result<K, Failure> {
    if is_erased(&object) {
        if object.meta().deletion_timestamp.is_none() {
            // Changed or gone already: the caller looks again.
            let _removed: bool = objects.remove(&object).await?;
        }
        return Ok(object);
    }
    if object.delete() {
        return Ok(object);
    }
    let now = objects.patch(&object, json!({"delete": true})).await?;
    Ok(now.unwrap_or(object))
}

/// Takes back the wish to delete. `false`: the object has changed meanwhile.
async fn take_back<K: Managed>(objects: &Objects<K>, refused: &K) -> Result<bool, Failure> {
    let now = objects.patch(refused, json!({"delete": false})).await?;
    Ok(now.is_some())
}
