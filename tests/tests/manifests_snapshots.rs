//! The chart installs the definitions of VolumeSnapshot if it is told to, and then exactly those that everything was tested with; and
//! it lets snapshotter look for the upstream controller, and at nothing else beside it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use serde_json::{Value, json};
use tests::manifests::api_server::{ApiServer, User, snapshot_definitions};
use tests::manifests::documents::{self, parse, title};

const TOLD: &str = "snapshotController.crds=true";

fn of_snapshots(values: &[&str]) -> Vec<Value> {
    let objects = parse(&documents::render_with(values).ok());
    let ours = |object: &Value| {
        object["kind"] == "CustomResourceDefinition"
            && object["spec"]["group"] == "snapshot.storage.k8s.io"
    };
    objects.into_iter().filter(ours).collect()
}

#[test]
fn definitions_of_snapshots_are_installed_when_told_to_and_not_else() {
    assert!(of_snapshots(&[]).is_empty());
    assert_eq!(of_snapshots(&[TOLD]).len(), 3);
    // They are not those of our own resources.
    assert_eq!(of_snapshots(&[TOLD, "crds.install=false"]).len(), 3);
}

#[test]
fn they_are_those_of_the_tested_version_and_stay_when_the_chart_goes() {
    let mut tested: Vec<Value> = documents::files(&snapshot_definitions(), "yaml")
        .iter()
        .flat_map(|file| parse(&documents::text(file)))
        .collect();
    let mut shipped = of_snapshots(&[TOLD]);
    for definition in &mut shipped {
        let metadata = definition["metadata"].as_object_mut().unwrap();
        let _labels = metadata.remove("labels").expect("labels of the chart");
        let annotations = metadata["annotations"].as_object_mut().unwrap();
        let policy = annotations.remove("helm.sh/resource-policy");
        assert_eq!(policy, Some(json!("keep")));
    }
    shipped.sort_by_key(title);
    tested.sort_by_key(title);
    assert!(
        shipped == tested,
        "deploy/chart/vd-csi/files/snapshot-crds is not what is tested: run `make manifests`"
    );
}

#[test]
fn an_api_server_takes_them() {
    let server = ApiServer::start();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": of_snapshots(&[TOLD])});
    let _output = server
        .send(
            &User::Admin,
            &["apply", "--server-side", "--validate=strict"],
            &list,
        )
        .ok();
    server.wait_established();
}

/// Lists Leases as csi-controller's pod in the namespace `of` does: those of this name, or all.
fn leases(
    server: &ApiServer,
    of: &str,
    name: Option<&str>,
    namespace: Option<&str>,
) -> Option<String> {
    let selector = name.map(|name| format!("--field-selector=metadata.name={name}"));
    let place = namespace.map_or("-A".to_owned(), |namespace| format!("-n={namespace}"));
    let mut arguments = vec![
        "get",
        "leases",
        "-o=jsonpath={.items[*].metadata.namespace}",
    ];
    arguments.push(&place);
    arguments.extend(selector.as_deref());
    let user = User::Named(format!("system:serviceaccount:{of}:csi-controller"));
    let answer = server.kubectl(&user, &arguments);
    if answer.code == Some(0) {
        return Some(answer.ok());
    }
    assert!(answer.err.contains("forbidden"), "{answer}");
    None
}

fn lease(server: &ApiServer, name: &str, namespace: &str) {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": namespace},
        "spec": {"holderIdentity": "somebody"},
    });
    let _made = server.send(&User::Admin, &["create"], &lease).ok();
}

#[test]
fn the_upstream_controllers_lease_is_found_in_any_namespace_and_no_other_is_seen() {
    let server = ApiServer::with_driver();
    let name = "snapshot-controller-leader";
    for namespace in ["default", "kube-system"] {
        lease(&server, name, namespace);
        lease(&server, "another", namespace);
    }
    let found = leases(&server, "vd-csi", Some(name), None);
    assert_eq!(found.as_deref(), Some("default kube-system"));
    assert_eq!(leases(&server, "vd-csi", Some("another"), None), None);
    assert_eq!(leases(&server, "vd-csi", None, None), None);
    assert_eq!(leases(&server, "vd-csi", None, Some("kube-system")), None);
}

#[test]
fn the_upstream_controllers_lease_can_be_looked_for_in_one_namespace_only() {
    let server = ApiServer::start();
    let values = [
        "snapshotController.upstreamLeaseNamespace=kube-system",
        "namespace.create=true",
    ];
    let objects = parse(&documents::render_with(&values).ok());
    let is_right = |object: &&Value| {
        let kind = object["kind"].as_str().unwrap_or_default();
        kind == "Namespace" || kind.ends_with("Role") || kind.ends_with("RoleBinding")
    };
    let rights: Vec<&Value> = objects.iter().filter(is_right).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": rights});
    let _applied = server.send(&User::Admin, &["apply"], &list).ok();
    let name = "snapshot-controller-leader";
    lease(&server, name, "default");
    lease(&server, name, "kube-system");
    let found = leases(&server, "storage", Some(name), Some("kube-system"));
    assert_eq!(found.as_deref(), Some("kube-system"));
    assert_eq!(
        leases(&server, "storage", Some(name), Some("default")),
        None
    );
    assert_eq!(leases(&server, "storage", Some(name), None), None);
    let pod = objects
        .iter()
        .find(|object| object["kind"] == "Deployment")
        .unwrap();
    assert!(
        pod.to_string()
            .contains("\"--upstream-lease-namespace=kube-system\"")
    );
}
