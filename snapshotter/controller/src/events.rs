//! Kubernetes events, as the upstream programs make them: in the core API and under their names, which a newer API would refuse
//! (there is a space in `csi-snapshotter vd.csi.io`). A repeated one is counted.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;

use crate::objects::Meta;

/// How many events may wait to be written. More than that is a flood, of which the first are enough.
const WAITING: usize = 1000;
/// How many events are remembered, to count repeated ones.
const REMEMBERED: usize = 1000;
/// How long writing one may take.
const REQUEST: Duration = Duration::from_secs(15);

/// Something to tell.
#[derive(Debug)]
struct Telling {
    on: ObjectReference,
    warning: bool,
    reason: &'static str,
    message: String,
}

/// Takes events and does not wait for them. Clones share one writer.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    sender: mpsc::Sender<Telling>,
}

impl Events {
    /// Events of this component, and what writes them: to be run beside.
    pub(crate) fn new(
        client: Client,
        component: String,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut receiver) = mpsc::channel(WAITING);
        let writer = async move {
            let mut known = Known::default();
            while let Some(telling) = receiver.recv().await {
                write(&client, &component, &mut known, telling).await;
            }
        };
        (Self { sender }, writer)
    }

    pub(crate) fn tell<K: Resource<DynamicType = ()>>(
        &self,
        on: &K,
        warning: bool,
        reason: &'static str,
        message: String,
    ) {
        let on = on.object_ref(&());
        // An event is for people; that it cannot be told changes nothing.
        if let Err(error) = self.sender.try_send(Telling {
            on,
            warning,
            reason,
            message,
        }) {
            tracing::debug!(%error, reason, "an event is not told");
        }
    }
}

/// What was told before, and how often.
#[derive(Debug, Default)]
struct Known {
    events: HashMap<String, (String, i32)>,
    order: VecDeque<String>,
}

impl Known {
    fn remember(&mut self, what: String, name: String, count: i32) {
        if self.events.insert(what.clone(), (name, count)).is_none() {
            self.order.push_back(what);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.events.remove(&oldest);
        }
    }
}

async fn write(client: &Client, component: &str, known: &mut Known, telling: Telling) {
    let namespace = telling
        .on
        .namespace
        .clone()
        .unwrap_or_else(|| "default".to_owned());
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let uid = telling.on.uid.clone().unwrap_or_default();
    let what = format!("{uid} {} {}", telling.reason, telling.message);
    if let Some((name, count)) = known.events.get(&what).cloned() {
        let count = count.saturating_add(1);
        let again = json!({"count": count, "lastTimestamp": Time(Timestamp::now())});
        let (parameters, again) = (PatchParams::default(), Patch::Merge(&again));
        let request = api.patch(&name, &parameters, &again);
        if matches!(tokio::time::timeout(REQUEST, request).await, Ok(Ok(_))) {
            known.remember(what, name, count);
            return;
        }
        // The API server forgets events after an hour: then it is a new one.
    }
    let reason = telling.reason;
    let event = event(component, &namespace, telling);
    let name = Meta::name(&event).to_owned();
    let parameters = PostParams::default();
    match tokio::time::timeout(REQUEST, api.create(&parameters, &event)).await {
        Ok(Ok(_event)) => known.remember(what, name, 1),
        Ok(Err(error)) => tracing::debug!(%error, reason, "an event could not be written"),
        Err(_elapsed) => tracing::debug!(reason, "an event could not be written in time"),
    }
}

fn event(component: &str, namespace: &str, telling: Telling) -> Event {
    let now = Timestamp::now();
    // Names end at 253 characters.
    let about: String = telling
        .on
        .name
        .iter()
        .flat_map(|name| name.chars())
        .take(200)
        .collect();
    let about = about.trim_end_matches(['.', '-']);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{about}.{}", uuid::Uuid::new_v4().simple())),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: telling.on,
        reason: Some(telling.reason.to_owned()),
        message: Some(telling.message.chars().take(1024).collect()),
        type_: Some(if telling.warning { "Warning" } else { "Normal" }.to_owned()),
        source: Some(EventSource {
            component: Some(component.to_owned()),
            host: None,
        }),
        reporting_component: Some(component.to_owned()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Known, REMEMBERED};

    #[test]
    fn only_so_many_events_are_remembered() {
        let mut known = Known::default();
        for number in 0..REMEMBERED + 10 {
            known.remember(number.to_string(), "event".to_owned(), 1);
            known.remember(number.to_string(), "event".to_owned(), 2);
        }
        assert_eq!(known.events.len(), REMEMBERED);
        assert!(known.events.contains_key(&(REMEMBERED + 9).to_string()));
        assert!(!known.events.contains_key("0"));
    }
}
