//! Kubernetes events, on the object a person looks at.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::Options;

/// Publishes events. The recorder counts repeated ones instead of making new ones.
#[derive(Clone)]
pub(crate) struct Events {
    recorder: Recorder,
}

impl Events {
    pub(crate) fn new(client: Client, options: &Options) -> Self {
        let reporter = Reporter {
            controller: options.driver.clone(),
            instance: options.instance.clone(),
        };
        Self {
            recorder: Recorder::new(client, reporter),
        }
    }

    pub(crate) async fn normal(&self, on: &ObjectReference, reason: &str, note: String) {
        self.publish(EventType::Normal, on, reason, note).await;
    }

    pub(crate) async fn warning(&self, on: &ObjectReference, reason: &str, note: String) {
        self.publish(EventType::Warning, on, reason, note).await;
    }

    /// An event is for people; that it cannot be told changes nothing.
    async fn publish(&self, type_: EventType, on: &ObjectReference, reason: &str, note: String) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: reason.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, on).await {
            tracing::debug!(%error, reason, "an event could not be published");
        }
    }
}
