//! What the user of a snapshot is told when the API server refuses to do something for it: a policy, a quota, a right that is missing.

use super::observe::Observed;
use super::plan::{Plan, Step, Telling};

/// How it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// By an event.
    Event,
    /// In the status too, and the snapshot is not ready.
    Status,
    /// In the status too, and the snapshot stays as ready as it was.
    Beside,
}

/// The steps that tell that this one was refused. `rest`: what would have come after it.
pub(super) fn told(seen: &Observed, step: &Step, rest: &[Step], message: &str) -> Vec<Step> {
    let event = |reason| {
        Step::Tell(Telling {
            warning: true,
            reason,
            message: message.to_owned(),
        })
    };
    let mut steps = Vec::new();
    let (reason, how) = match step {
        Step::ReadVolume(_) if seen.snapshot.class_name().is_none() => {
            ("SetDefaultSnapshotClassFailed", How::Beside)
        }
        Step::SetClass(_) => ("SetDefaultSnapshotClassFailed", How::Beside),
        Step::ReadVolume(_) | Step::ProtectClaim => ("SnapshotContentCreationFailed", How::Status),
        Step::CreateContent(_) => {
            steps.push(event("CreateSnapshotContentFailed"));
            ("SnapshotContentCreationFailed", How::Status)
        }
        Step::BindContent(_) => ("SnapshotBindFailed", How::Status),
        Step::SetFinalizers(_) => ("SnapshotFinalizerError", How::Event),
        Step::ReleaseClaim => ("ErrorPVCFinalizer", How::Event),
        Step::MarkContent(_) | Step::DeleteContent(_) => {
            ("SnapshotContentObjectDeleteError", How::Event)
        }
        Step::SetStatus(_) => {
            // What was to be told with a trouble is worth more than that it could not be written down.
            let trouble = |step: &&Step| matches!(step, Step::Tell(telling) if telling.warning);
            let troubles: Vec<Step> = rest.iter().filter(trouble).cloned().collect();
            if !troubles.is_empty() {
                return troubles;
            }
            ("SnapshotStatusUpdateFailed", How::Beside)
        }
        Step::Tell(_) => return steps,
    };
    steps.extend(match how {
        How::Event => vec![event(reason)],
        How::Status => Plan::trouble(seen, reason, message.to_owned()).steps,
        How::Beside => Plan::trouble_beside(seen, reason, message.to_owned()).steps,
    });
    steps
}
