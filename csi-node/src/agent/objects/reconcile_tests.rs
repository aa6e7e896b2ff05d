use std::convert::Infallible;
use std::future::pending;
use std::sync::{Mutex, atomic::AtomicUsize};

use api::LocalVolume;
use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;
use crate::LocalNode;
use crate::agent::events::Events;
use crate::agent::metrics::{Operations, PoolGauges};
use crate::agent::objects::Running;
use crate::agent::standing::Standing;
use crate::pool_handle::PoolHandle;

const NAME: &str = "pvc-00000000-0000-4000-8000-000000000001";
const UID: &str = "the uid";

fn volume(generation: i64, delete: bool) -> Value {
    json!({
        "apiVersion": "vd.csi.io/v1alpha1", "kind": "LocalVolume",
        "metadata": {"name": NAME, "uid": UID, "generation": generation, "resourceVersion": "1",
            "finalizers": [AGENT_FINALIZER]},
        "spec": {"nodeName": "n", "name": NAME, "requestedBytes": 1 << 20, "sizeBytes": 1 << 20,
            "volumeMode": "Block", "delete": delete},
    })
}

fn object(value: &Value) -> Arc<LocalVolume> {
    Arc::new(serde_json::from_value(value.clone()).unwrap())
}

/// The agent of a node whose pool nobody has looked at yet. The API server knows `known`, and takes every change.
fn agent(known: Option<Value>, changes: Arc<Mutex<Vec<String>>>) -> Arc<Agent> {
    let service = tower::service_fn(move |request: Request<Body>| {
        let (known, changes) = (known.clone(), Arc::clone(&changes));
        async move {
            if request.method() == Method::PATCH {
                let body = request.into_body().collect_bytes().await.unwrap();
                let body = String::from_utf8(body.to_vec()).unwrap();
                changes.lock().unwrap().push(body);
            }
            let (status, said) = match &known {
                Some(object) => (StatusCode::OK, object.clone()),
                None => (
                    StatusCode::NOT_FOUND,
                    json!({"kind": "Status", "status": "Failure", "message": "not found", "reason": "NotFound", "code": 404}),
                ),
            };
            let said = Body::from(said.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(status).body(said).unwrap())
        }
    });
    let client = Client::new(service, "default");
    let handle = PoolHandle::new("/nonexistent".into(), pool::Options::default());
    let mut registry = Registry::default();
    Arc::new(Agent {
        node: LocalNode::new("n".to_owned(), handle),
        events: Events::new(client.clone(), "vd.csi.io", "n"),
        client,
        operations: Operations::register(&mut registry),
        pool_gauges: PoolGauges::register(&mut registry),
        standing: Arc::new(Standing::default()),
        running: Running::default(),
        changed: Notify::new(),
        synced: AtomicUsize::new(0),
    })
}

fn begin(
    agent: &Agent,
    work: impl Future<Output = Result<super::super::Measured, Failure>> + Send + 'static,
) {
    let asked = Asked {
        uid: UID,
        generation: 1,
        step: Step::Make,
    };
    let operations = &agent.operations;
    agent
        .running
        .begin(asked, "create_volume", operations, work);
}

#[tokio::test]
async fn a_failure_is_not_that_of_what_was_asked_for_meanwhile() {
    let changes = Arc::default();
    let agent = agent(Some(volume(2, true)), Arc::clone(&changes));
    begin(&agent, async {
        Err(Failure::new(Kind::NoSpace, "it does not fit"))
    });
    reconcile(object(&volume(1, false)), agent).await.unwrap();
    let changes = changes.lock().unwrap();
    // It looks at the new wish at once, which waits for the pool.
    assert!(changes.iter().any(|one| one.contains("PoolUnavailable")));
    assert!(
        !changes.iter().any(|one| one.contains("NoSpace")),
        "{changes:#?}"
    );
}

#[tokio::test]
async fn a_failure_of_what_is_still_asked_for_is_told() {
    let changes = Arc::default();
    let agent = agent(Some(volume(1, false)), Arc::clone(&changes));
    begin(&agent, async {
        Err(Failure::new(Kind::NoSpace, "it does not fit"))
    });
    reconcile(object(&volume(1, false)), agent).await.unwrap();
    let changes = changes.lock().unwrap();
    assert!(
        changes.iter().any(|one| one.contains("NoSpace")),
        "{changes:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_operation_of_an_object_that_is_gone_is_forgotten() {
    let agent = agent(None, Arc::default());
    begin(&agent, pending());
    reconcile(object(&volume(1, false)), Arc::clone(&agent))
        .await
        .unwrap();
    assert!(agent.running.wait(UID, PATIENCE).await.is_none());
}
