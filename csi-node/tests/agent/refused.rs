//! What the API server will not take from an agent.

use std::time::{Duration, Instant};

use api::{AGENT_FINALIZER, LocalVolume, VolumeState};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::Event;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::objects::{MIB, create, volume, volume_is, volumes};

const WHY: &str = "no agent holds this one";

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// The API server lets no agent hold `object` until this is taken back.
async fn forbid(client: &Client, object: &LocalVolume) -> Api<ValidatingAdmissionPolicyBinding> {
    let name = object.name_any();
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let policy = typed(json!({
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["vd.csi.io"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
                "resources": ["localvolumes"],
            }]},
            "matchConditions": [{"name": "it", "expression": format!("object.metadata.name == '{name}'")}],
            "validations": [{
                "expression": format!("!object.metadata.?finalizers.orValue([]).exists(one, one == '{AGENT_FINALIZER}')"),
                "message": WHY,
            }],
        },
    }));
    policies
        .create(&PostParams::default(), &policy)
        .await
        .unwrap();
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    let binding = typed(json!({
        "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
    }));
    bindings
        .create(&PostParams::default(), &binding)
        .await
        .unwrap();
    // The API server takes a moment to know a policy, and says nothing when it does.
    let mut held = object.clone();
    held.finalizers_mut().push(AGENT_FINALIZER.to_owned());
    let try_it = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let all: Api<LocalVolume> = Api::all(client.clone());
    while all.create(&try_it, &held).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bindings
}

/// How many changes of volumes the API server has refused so far.
async fn refusals(client: &Client) -> u64 {
    let ask = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let page = client.request_text(ask).await.unwrap();
    let of_volumes = |line: &&str| {
        line.starts_with("apiserver_request_total{")
            && [
                "code=\"422\"",
                "resource=\"localvolumes\"",
                "subresource=\"\"",
                "verb=\"PATCH\"",
            ]
            .iter()
            .all(|part| line.contains(part))
    };
    page.lines()
        .filter(of_volumes)
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

async fn told(client: &Client, name: &str) -> Vec<String> {
    let events: Api<Event> = Api::namespaced(client.clone(), "default");
    let about = ListParams::default().fields(&format!("involvedObject.name={name},reason=Refused"));
    let found = events.list(&about).await.unwrap();
    found
        .into_iter()
        .filter_map(|event| event.message)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_told_once_and_asked_for_ever_less_often_until_it_is_allowed() {
    let machine = Machine::started().await;
    let wanted = volume(&machine, 64 * MIB, None);
    let bindings = forbid(&machine.client, &wanted).await;
    let before = refusals(&machine.client).await;
    let begun = Instant::now();
    let name = create(&volumes(&machine), &wanted).await;
    while refusals(&machine.client).await < before + 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(begun.elapsed() > Duration::from_secs(5), "{begun:?}");
    let log = machine.log();
    let warnings = log
        .lines()
        .filter(|line| line.contains("cannot be reconciled") && line.contains(&name));
    assert_eq!(warnings.count(), 1, "{log}");
    let told = told(&machine.client, &name).await;
    assert!(matches!(&told[..], [one] if one.contains(WHY)), "{told:?}");
    bindings
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    volume_is(&machine, &name, VolumeState::Ready).await;
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(machine.client.clone());
    policies
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
}
