//! Events, where a person looks: on the node and on the claim. They are a courtesy: what cannot be written is logged.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

/// How long an event may take; nothing waits longer for one.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest note that the API takes, in bytes.
const LONGEST: usize = 1024;

/// Writes events.
#[derive(Clone)]
pub(crate) struct Events {
    recorder: Recorder,
    node: String,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Events")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Events {
    pub(crate) fn new(client: Client, driver: &str, node: &str) -> Self {
        let reporter = Reporter {
            controller: driver.to_owned(),
            instance: Some(node.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
            node: node.to_owned(),
        }
    }

    /// Warns about the node.
    pub(crate) async fn node(&self, reason: &str, note: &str) {
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(self.node.clone()),
            // As kubelet does: `kubectl describe node` looks for it.
            uid: Some(self.node.clone()),
            ..ObjectReference::default()
        };
        self.warn(&reference, reason, note).await;
    }

    /// Warns about a claim.
    pub(crate) async fn claim(
        &self,
        claim: &api::ClaimReference,
        uid: Option<String>,
        reason: &str,
        note: &str,
    ) {
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("PersistentVolumeClaim".to_owned()),
            namespace: Some(claim.namespace.clone()),
            name: Some(claim.name.clone()),
            uid,
            ..ObjectReference::default()
        };
        self.warn(&reference, reason, note).await;
    }

    /// Warns about an object of ours.
    pub(crate) async fn object(&self, reference: &ObjectReference, reason: &str, note: &str) {
        self.warn(reference, reason, note).await;
    }

    async fn warn(&self, reference: &ObjectReference, reason: &str, note: &str) {
        let mut note = note.to_owned();
        while note.len() > LONGEST {
            note.pop();
        }
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconciling".to_owned(),
            secondary: None,
        };
        match tokio::time::timeout(PATIENCE, self.recorder.publish(&event, reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(reason, %error, "an event was not written"),
            Err(_elapsed) => tracing::debug!(reason, "an event was not written in time"),
        }
    }
}
