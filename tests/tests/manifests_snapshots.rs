//! The chart installs the definitions of VolumeSnapshot if it is told to, and then exactly those that everything was tested with.
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
