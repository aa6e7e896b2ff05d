//! RBAC: each program may do what it needs, and is refused beyond it. The API server answers, not a reading of the roles.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use serde_json::{Value, json};
use tests::manifests::api_server::{ApiServer, User};
use tests::manifests::documents::{shipped, title};

/// Verbs, resource (with subresource), namespace (of the driver: `vd-csi`; anybody's: `default`; cluster-wide: empty).
type Right = (&'static str, &'static str, &'static str);

const NODE_MAY: &[Right] = &[
    ("get list watch patch", "localvolumes.vd.csi.io", ""),
    ("get list watch patch", "localsnapshots.vd.csi.io", ""),
    ("get create", "localpools.vd.csi.io", ""),
    ("patch", "localvolumes.vd.csi.io/status", ""),
    ("patch", "localsnapshots.vd.csi.io/status", ""),
    ("patch", "localpools.vd.csi.io/status", ""),
    ("create patch", "events.events.k8s.io", "default"),
];

const NODE_MAY_NOT: &[Right] = &[
    ("create delete update destroy", "localvolumes.vd.csi.io", ""),
    (
        "create delete update destroy",
        "localsnapshots.vd.csi.io",
        "",
    ),
    ("list watch patch delete update", "localpools.vd.csi.io", ""),
    ("get list watch patch update delete", "nodes", ""),
    ("patch", "nodes/status", ""),
    ("get list watch", "secrets", "default"),
    ("get list", "secrets", "vd-csi"),
    ("get list create patch", "configmaps", "vd-csi"),
    ("get list create delete", "pods", "default"),
    ("create", "pods/exec", "default"),
    ("create", "serviceaccounts/token", "vd-csi"),
    ("get list watch patch", "persistentvolumeclaims", "default"),
    ("get list watch patch delete", "persistentvolumes", ""),
    ("get list", "storageclasses.storage.k8s.io", ""),
    ("get update", "leases.coordination.k8s.io", "vd-csi"),
    (
        "get list",
        "volumesnapshots.snapshot.storage.k8s.io",
        "default",
    ),
    ("impersonate", "users", ""),
    (
        "escalate bind",
        "clusterroles.rbac.authorization.k8s.io",
        "",
    ),
];

const CONTROLLER_MAY: &[Right] = &[
    (
        "get list watch create patch delete destroy",
        "localvolumes.vd.csi.io",
        "",
    ),
    (
        "get list watch create patch delete destroy",
        "localsnapshots.vd.csi.io",
        "",
    ),
    ("get list watch patch", "localpools.vd.csi.io", ""),
    (
        "get list watch update patch",
        "persistentvolumeclaims",
        "default",
    ),
    ("patch", "persistentvolumeclaims/status", "default"),
    (
        "get list watch create patch delete",
        "persistentvolumes",
        "",
    ),
    ("get list watch", "nodes", ""),
    ("get list watch", "storageclasses.storage.k8s.io", ""),
    ("get list watch", "csinodes.storage.k8s.io", ""),
    ("create patch", "events", "default"),
    ("create patch", "events.events.k8s.io", "default"),
    (
        "get list watch patch",
        "storageprofiles.cdi.kubevirt.io",
        "",
    ),
    (
        "get list watch",
        "volumeclonesources.cdi.kubevirt.io",
        "default",
    ),
    ("get create update", "leases.coordination.k8s.io", "vd-csi"),
    (
        "get list watch create update delete",
        "csistoragecapacities.storage.k8s.io",
        "vd-csi",
    ),
    ("get", "pods", "vd-csi"),
    ("get", "replicasets.apps", "vd-csi"),
    (
        "get list watch update",
        "volumesnapshots.snapshot.storage.k8s.io",
        "default",
    ),
    (
        "patch",
        "volumesnapshots.snapshot.storage.k8s.io",
        "default",
    ),
    (
        "patch",
        "volumesnapshots.snapshot.storage.k8s.io/status",
        "default",
    ),
    (
        "get list watch create patch delete",
        "volumesnapshotcontents.snapshot.storage.k8s.io",
        "",
    ),
    (
        "update patch",
        "volumesnapshotcontents.snapshot.storage.k8s.io/status",
        "",
    ),
    (
        "get list watch create",
        "volumesnapshotclasses.snapshot.storage.k8s.io",
        "",
    ),
];

const CONTROLLER_MAY_NOT: &[Right] = &[
    (
        "create update delete deletecollection",
        "localpools.vd.csi.io",
        "",
    ),
    ("patch update", "localvolumes.vd.csi.io/status", ""),
    ("patch update", "localsnapshots.vd.csi.io/status", ""),
    ("deletecollection", "localvolumes.vd.csi.io", ""),
    ("create delete", "persistentvolumeclaims", "default"),
    ("get list watch", "secrets", "default"),
    ("get list watch", "secrets", "vd-csi"),
    ("list watch create delete", "pods", "vd-csi"),
    ("get list watch", "pods", "default"),
    ("get create update", "leases.coordination.k8s.io", "default"),
    // The upstream snapshot-controller's Lease is read by its name, and nothing else is there.
    (
        "list create update patch delete",
        "leases.coordination.k8s.io",
        "kube-system",
    ),
    (
        "create update delete",
        "csistoragecapacities.storage.k8s.io",
        "default",
    ),
    ("create patch update delete", "nodes", ""),
    (
        "create patch update delete",
        "storageclasses.storage.k8s.io",
        "",
    ),
    (
        "delete patch",
        "volumesnapshotclasses.snapshot.storage.k8s.io",
        "",
    ),
    (
        "create delete",
        "volumesnapshots.snapshot.storage.k8s.io",
        "default",
    ),
    (
        "deletecollection",
        "volumesnapshotcontents.snapshot.storage.k8s.io",
        "",
    ),
    (
        "create update delete patch",
        "customresourcedefinitions.apiextensions.k8s.io",
        "",
    ),
    ("impersonate", "serviceaccounts", "vd-csi"),
    ("create", "serviceaccounts/token", "vd-csi"),
    (
        "escalate bind",
        "clusterroles.rbac.authorization.k8s.io",
        "",
    ),
];

/// Whether `account` may `verb` the `resource`: a question to the API server.
fn review(account: &str, verb: &str, resource: &str, namespace: &str) -> Value {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": format!("system:serviceaccount:vd-csi:{account}"),
            "groups": ["system:serviceaccounts", "system:serviceaccounts:vd-csi", "system:authenticated"],
            "resourceAttributes": {
                "verb": verb, "group": group, "resource": resource, "subresource": subresource, "namespace": namespace,
            },
        },
    })
}

/// What of `rights` the API server does not answer with `expected`.
fn check(server: &ApiServer, account: &str, rights: &[Right], expected: bool) -> Vec<String> {
    let mut asked = Vec::new();
    let mut reviews = Vec::new();
    for (verbs, resource, namespace) in rights {
        for verb in verbs.split(' ') {
            asked.push(format!("{account}: {verb} {resource} in {namespace:?}"));
            reviews.push(review(account, verb, resource, namespace));
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": reviews});
    let shown = ["create", "-o", r#"jsonpath={.status.allowed}{"\n"}"#];
    let answers = server.send(&User::Admin, &shown, &list).ok();
    let answers: Vec<&str> = answers.lines().collect();
    assert_eq!(answers.len(), asked.len(), "one answer for each question");
    let pairs = asked.into_iter().zip(answers);
    // "false" is left out of an answer that gives no reason.
    let wrong = pairs.filter(|(_question, allowed)| (*allowed == "true") != expected);
    wrong
        .map(|(question, _allowed)| format!("{question} should be {expected}"))
        .collect()
}

#[test]
fn each_account_may_do_what_its_programs_need_and_no_more() {
    let server = ApiServer::with_driver();
    let mut wrong = check(&server, "csi-node", NODE_MAY, true);
    wrong.extend(check(&server, "csi-node", NODE_MAY_NOT, false));
    wrong.extend(check(&server, "csi-controller", CONTROLLER_MAY, true));
    wrong.extend(check(&server, "csi-controller", CONTROLLER_MAY_NOT, false));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_role_has_a_wildcard_a_secret_or_a_way_to_more_rights() {
    let roles = ["ClusterRole", "Role"];
    for role in shipped()
        .iter()
        .filter(|object| roles.iter().any(|kind| object["kind"] == *kind))
    {
        let title = title(role);
        for rule in role["rules"].as_array().expect("rules") {
            let words = |field: &str| {
                let list = rule[field].as_array().into_iter().flatten();
                list.filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            let all = [words("verbs"), words("resources"), words("apiGroups")].concat();
            for forbidden in [
                "*",
                "secrets",
                "serviceaccounts/token",
                "impersonate",
                "escalate",
                "bind",
                "pods/exec",
            ] {
                assert!(
                    !all.iter().any(|word| word == forbidden),
                    "{title}: {forbidden} in {rule}"
                );
            }
            assert!(rule["nonResourceURLs"].is_null(), "{title}: {rule}");
        }
    }
}
