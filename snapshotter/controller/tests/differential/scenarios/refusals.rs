//! The API server refuses what a controller wants to write, as it does where an administrator's policy says so.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use super::is_ready;
use crate::part::Part;

/// No contents for the snapshots of this scenario.
async fn forbid_contents(part: &Part) {
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": part.name},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["snapshot.storage.k8s.io"], "apiVersions": ["*"], "operations": ["CREATE"],
                "resources": ["volumesnapshotcontents"],
            }]},
            "validations": [{
                "expression": format!("object.spec.volumeSnapshotRef.namespace != '{}'", part.name),
                "message": "as the test wants",
            }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": part.name}, "spec": {"policyName": part.name, "validationActions": ["Deny"]},
    });
    let at_once = PostParams::default();
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(part.client.clone());
    let policy = serde_json::from_value(policy).unwrap();
    policies.create(&at_once, &policy).await.unwrap();
    let binding = serde_json::from_value(binding).unwrap();
    bindings(part).create(&at_once, &binding).await.unwrap();
    until_contents(part, false).await;
}

fn bindings(part: &Part) -> Api<ValidatingAdmissionPolicyBinding> {
    Api::all(part.client.clone())
}

/// Nothing tells when an API server goes by a policy but asking it.
async fn until_contents(part: &Part, allowed: bool) {
    let content = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent", "metadata": {"name": "tried"},
        "spec": {
            "driver": "other.csi.io", "deletionPolicy": "Retain", "source": {"snapshotHandle": "x"},
            "volumeSnapshotRef": {"namespace": part.name, "name": "x"},
        },
    });
    let content = serde_json::from_value(content).unwrap();
    let tried = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let waiting = async {
        while part.contents().create(&tried, &content).await.is_ok() != allowed {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    assert!(waited.is_ok(), "the policy is never gone by");
}

pub async fn a_content_that_a_policy_forbids_is_told(part: Arc<Part>) {
    forbid_contents(&part).await;
    part.begin().await;
    part.until_error("as the test wants").await;
    part.until_told("snap", "CreateSnapshotContentFailed").await;
    part.until_told("snap", "SnapshotContentCreationFailed")
        .await;
    part.compare("forbidden").await;
    bindings(&part)
        .delete(&part.name, &DeleteParams::default())
        .await
        .unwrap();
    until_contents(&part, true).await;
    let ready = part.until_ready().await;
    assert!(is_ready(&ready) && ready["status"]["error"].is_null());
    part.compare("allowed").await;
}
