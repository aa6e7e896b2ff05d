//! What the API server itself refuses: definitions and admission policies, with real requests of real users.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::time::Duration;

use serde_json::{Value, json};
use tests::manifests::api_server::{ApiServer, User};
use tests::tools::Ran;
use tests::wait;

const AGENT: User = User::Account {
    name: "csi-node",
    node: Some("n1"),
};
const CONTROLLER: User = User::Account {
    name: "csi-controller",
    node: Some("n1"),
};
/// A policy is enforced a moment after it was made.
const ENFORCED: Duration = Duration::from_secs(60);

fn volume(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "vd.csi.io/v1alpha1",
        "kind": "LocalVolume",
        "metadata": {"name": name},
        "spec": {
            "nodeName": node, "name": name, "requestedBytes": 1_000_000_000, "sizeBytes": 1_000_341_504,
            "volumeMode": "Filesystem", "fsType": "ext4", "accessModes": ["SINGLE_NODE_WRITER"],
        },
    })
}

fn snapshot(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "vd.csi.io/v1alpha1",
        "kind": "LocalSnapshot",
        "metadata": {"name": name},
        "spec": {"nodeName": node, "name": name, "sourceVolume": "vol-1"},
    })
}

fn pool(node: &str) -> Value {
    json!({
        "apiVersion": "vd.csi.io/v1alpha1",
        "kind": "LocalPool",
        "metadata": {"name": node},
        "spec": {"nodeName": node},
    })
}

fn patch(server: &ApiServer, user: &User, object: &str, patch: &str, more: &[&str]) -> Ran {
    let arguments = [
        "patch",
        object,
        "--type=merge",
        "-p",
        patch,
        "--dry-run=server",
    ];
    server.kubectl(user, &[&arguments, more].concat())
}

#[track_caller]
fn refused(ran: &Ran, because: &str) {
    assert_ne!(ran.code, Some(0), "was accepted: {ran}");
    assert!(
        ran.err.contains(because),
        "refused, but not because of {because:?}: {ran}"
    );
}

fn create(server: &ApiServer, objects: &[Value]) {
    for object in objects {
        let _output = server.send(&User::Admin, &["create"], object).ok();
    }
}

/// Starts an API server with two nodes' objects and waits until the policies are enforced.
fn two_nodes() -> ApiServer {
    let server = ApiServer::with_driver();
    create(
        &server,
        &[
            volume("vol-1", "n1"),
            volume("vol-2", "n2"),
            snapshot("snap-1", "n1"),
            snapshot("snap-2", "n2"),
            pool("n1"),
            pool("n2"),
        ],
    );
    let foreign = r#"{"metadata": {"annotations": {"vd.csi.io/created": "x"}}}"#;
    let (agent, other) = (AGENT, "localvolumes/vol-2");
    wait::until("the policy for agents is enforced", ENFORCED, || {
        patch(&server, &agent, other, foreign, &[]).code != Some(0)
    });
    let editor = editor(&server);
    let destroy = r#"{"spec": {"delete": true}}"#;
    wait::until("the policy for destruction is enforced", ENFORCED, || {
        patch(&server, &editor, "localvolumes/vol-1", destroy, &[]).code != Some(0)
    });
    server
}

/// A user who may do everything with our objects that the API knows of. Agents may even destroy here, so that it is one policy alone
/// that refuses them: the API server names one of those that do, whichever comes first.
fn editor(server: &ApiServer) -> User {
    let user = json!({"kind": "User", "name": "erin", "apiGroup": "rbac.authorization.k8s.io"});
    let agent = json!({"kind": "ServiceAccount", "name": "csi-node", "namespace": "vd-csi"});
    let mut verbs = vec![
        "get", "list", "watch", "create", "update", "patch", "delete",
    ];
    create(server, &everything("editor", &verbs, &user));
    verbs.push("destroy");
    create(server, &everything("agent-as-destroyer", &verbs, &agent));
    User::Named("erin".to_owned())
}

/// A role with `verbs` for all our objects, bound to `subject`.
fn everything(name: &str, verbs: &[&str], subject: &Value) -> [Value; 2] {
    let group = "rbac.authorization.k8s.io";
    let role = json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": name},
        "rules": [{"apiGroups": ["vd.csi.io"], "resources": ["*"], "verbs": verbs}],
    });
    let binding = json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
        "subjects": [subject],
    });
    [role, binding]
}

const STATUS: &[&str] = &["--subresource=status"];

/// What an agent does all day: with its own node's objects, and with nobody else's.
const AGENTS_WORK: &[(&str, &str, &[&str])] = &[
    (
        "localvolumes/vol-1",
        r#"{"metadata": {"finalizers": ["vd.csi.io/agent"]}}"#,
        &[],
    ),
    (
        "localvolumes/vol-1",
        r#"{"metadata": {"annotations": {"vd.csi.io/created": "u"}}}"#,
        &[],
    ),
    (
        "localvolumes/vol-1",
        r#"{"status": {"state": "Ready"}}"#,
        STATUS,
    ),
    (
        "localsnapshots/snap-1",
        r#"{"metadata": {"finalizers": ["vd.csi.io/agent"]}}"#,
        &[],
    ),
    (
        "localsnapshots/snap-1",
        r#"{"status": {"state": "Ready"}}"#,
        STATUS,
    ),
    ("localpools/n1", r#"{"status": {"sizeBytes": 5}}"#, STATUS),
];

/// What no agent may do, not even to its own node's objects.
const NO_AGENTS_WORK: &[(&str, &str, &str)] = &[
    (
        "localvolumes/vol-1",
        r#"{"spec": {"sizeBytes": 2000683008}}"#,
        "an agent reports in status",
    ),
    (
        "localvolumes/vol-1",
        r#"{"spec": {"delete": true}}"#,
        "an agent reports in status",
    ),
    (
        "localvolumes/vol-1",
        r#"{"metadata": {"labels": {"a": "b"}}}"#,
        "an agent changes its own finalizer",
    ),
    (
        "localvolumes/vol-1",
        r#"{"metadata": {"finalizers": ["example.org/other"]}}"#,
        "an agent changes its own finalizer",
    ),
    (
        "localpools/n1",
        r#"{"metadata": {"annotations": {"vd.csi.io/adopt": "*"}}}"#,
        "an administrator's to say",
    ),
];

/// Here agents may do by their role whatever they like, so that it is the policy alone that refuses.
#[test]
fn an_agent_writes_what_is_of_its_node_and_nothing_else() {
    let server = two_nodes();
    for (object, change, more) in AGENTS_WORK {
        let _output = patch(&server, &AGENT, object, change, more).ok();
        let other = patch(&server, &AGENT, &object.replace('1', "2"), change, more);
        refused(
            &other,
            "an agent writes its own node's objects only, and this one is of n2",
        );
    }
    for (object, change, because) in NO_AGENTS_WORK {
        refused(&patch(&server, &AGENT, object, change, &[]), because);
    }
    refused(
        &server.kubectl(
            &AGENT,
            &["delete", "localvolumes/vol-1", "--dry-run=server"],
        ),
        "an agent deletes no objects",
    );
    let dry = ["create", "--dry-run=server"];
    let own = server.send(&AGENT, &dry, &volume("vol-3", "n1"));
    refused(&own, "an agent makes no volumes");
    refused(&server.send(&AGENT, &dry, &pool("n3")), "this one is of n3");
}

#[test]
fn an_agent_makes_the_pool_of_its_own_node_and_leaves_a_request_for_adoption_alone() {
    let server = two_nodes();
    let agent = User::Account {
        name: "csi-node",
        node: Some("n4"),
    };
    let _output = server.send(&agent, &["create"], &pool("n4")).ok();
    let asked = ["annotate", "localpools/n4", "vd.csi.io/adopt=vol-7"];
    let _output = server.kubectl(&User::Admin, &asked).ok();
    let report = r#"{"status": {"sizeBytes": 5}}"#;
    let _output = patch(
        &server,
        &agent,
        "localpools/n4",
        report,
        &["--subresource=status"],
    )
    .ok();
    let more = r#"{"metadata": {"annotations": {"vd.csi.io/adopt": "vol-7 vol-8"}}}"#;
    refused(
        &patch(&server, &agent, "localpools/n4", more, &[]),
        "an administrator's to say",
    );
}

#[test]
fn a_token_that_names_no_node_is_worth_nothing() {
    let server = two_nodes();
    let agent = User::Account {
        name: "csi-node",
        node: None,
    };
    let report = r#"{"status": {"state": "Ready"}}"#;
    let ran = patch(
        &server,
        &agent,
        "localvolumes/vol-1",
        report,
        &["--subresource=status"],
    );
    refused(&ran, "the token of csi-node names no node");
}

#[test]
fn the_token_of_a_pod_is_bound_to_its_node() {
    let server = two_nodes();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "csi-node-x", "namespace": "vd-csi"},
        "spec": {"nodeName": "n1", "serviceAccountName": "csi-node", "containers": [{"name": "c", "image": "i"}]},
    });
    create(&server, &[node, pod]);
    let bound = [
        "-n",
        "vd-csi",
        "create",
        "token",
        "csi-node",
        "--bound-object-kind=Pod",
        "--bound-object-name=csi-node-x",
    ];
    let token = server.kubectl(&User::Admin, &bound).ok().trim().to_owned();
    let report = r#"{"status": {"state": "Ready"}}"#;
    let agent = User::Token(token);
    let status = ["--subresource=status"];
    let _output = patch(&server, &agent, "localvolumes/vol-1", report, &status).ok();
    refused(
        &patch(&server, &agent, "localvolumes/vol-2", report, &status),
        "this one is of n2",
    );
}

#[test]
fn data_is_destroyed_by_the_controller_or_by_whoever_was_given_that_right() {
    let server = two_nodes();
    let editor = User::Named("erin".to_owned());
    let destroy = r#"{"spec": {"delete": true}}"#;
    for object in ["localvolumes/vol-1", "localsnapshots/snap-1"] {
        refused(
            &patch(&server, &editor, object, destroy, &[]),
            "removes the data for good",
        );
        let _output = patch(&server, &User::Admin, object, destroy, &[]).ok();
        let wish = ["patch", object, "--type=merge", "-p", destroy];
        let _output = server.kubectl(&CONTROLLER, &wish).ok();
        // Once it was asked for, others may write to the object, and take the wish back.
        let label = r#"{"metadata": {"labels": {"a": "b"}}}"#;
        let _output = patch(&server, &editor, object, label, &[]).ok();
        let _output = patch(
            &server,
            &editor,
            object,
            r#"{"spec": {"delete": false}}"#,
            &[],
        )
        .ok();
    }
    let mut born_deleted = volume("vol-9", "n1");
    born_deleted["spec"]["delete"] = json!(true);
    let dry = ["create", "--dry-run=server"];
    refused(
        &server.send(&editor, &dry, &born_deleted),
        "removes the data for good",
    );
}

#[test]
fn a_definition_refuses_what_cannot_be() {
    let server = ApiServer::with_driver();
    let dry = ["create", "--dry-run=server"];
    let mut block = volume("vol-3", "n1");
    block["spec"]["volumeMode"] = json!("Block");
    block["spec"].as_object_mut().unwrap().remove("fsType");
    let _output = server.send(&User::Admin, &dry, &block).ok();
    let cases = [
        (
            "sizeBytes",
            json!(1_000_000_000),
            "sizeBytes is a multiple of 1 MiB",
        ),
        ("sizeBytes", json!(0), "greater than or equal to 1048576"),
        ("requestedBytes", json!(-1), "greater than or equal to 0"),
        ("nodeName", json!(""), "spec.nodeName"),
        ("name", json!(""), "spec.name"),
        ("volumeMode", json!("Tape"), "Unsupported value"),
        (
            "volumeMode",
            json!("Block"),
            "fsType goes with volumeMode Filesystem",
        ),
        ("fsType", json!("btrfs"), "Unsupported value"),
        ("provisioning", json!("fat"), "Unsupported value"),
        (
            "source",
            json!({}),
            "a source is either a snapshot or a volume",
        ),
        (
            "source",
            json!({"snapshot": "a", "volume": "b"}),
            "a source is either a snapshot or a volume",
        ),
        ("colour", json!("red"), "unknown field"),
    ];
    for (field, value, because) in cases {
        let mut object = volume("vol-3", "n1");
        object["spec"][field] = value;
        let strict = ["create", "--dry-run=server", "--validate=strict"];
        refused(&server.send(&User::Admin, &strict, &object), because);
    }
    let mut foreign = pool("n1");
    foreign["metadata"]["name"] = json!("n2");
    refused(
        &server.send(&User::Admin, &dry, &foreign),
        "a LocalPool has the name of its node",
    );
}

/// Changes of a spec, and why they are refused. vol-1 is an empty volume, vol-2 one that was restored from snap-1.
const NEVER: &[(&str, &str, &str)] = &[
    (
        "localvolumes/vol-1",
        r#"{"nodeName": "n2"}"#,
        "nodeName and name never change",
    ),
    (
        "localvolumes/vol-1",
        r#"{"name": "other"}"#,
        "nodeName and name never change",
    ),
    (
        "localvolumes/vol-1",
        r#"{"sizeBytes": 1048576}"#,
        "a volume never shrinks",
    ),
    (
        "localvolumes/vol-1",
        r#"{"fsType": "xfs"}"#,
        "fsType never changes",
    ),
    (
        "localvolumes/vol-1",
        r#"{"provisioning": "thick"}"#,
        "accessModes never change",
    ),
    (
        "localvolumes/vol-1",
        r#"{"accessModes": []}"#,
        "accessModes never change",
    ),
    (
        "localvolumes/vol-1",
        r#"{"volumeMode": "Block", "fsType": null}"#,
        "accessModes never change",
    ),
    (
        "localvolumes/vol-1",
        r#"{"source": {"volume": "vol-2"}}"#,
        "the source never changes",
    ),
    (
        "localvolumes/vol-2",
        r#"{"source": null}"#,
        "the source never changes",
    ),
    (
        "localvolumes/vol-2",
        r#"{"source": {"snapshot": "snap-2"}}"#,
        "the source never changes",
    ),
    (
        "localsnapshots/snap-1",
        r#"{"nodeName": "n2"}"#,
        "a snapshot's node, name, source and compression never change",
    ),
    (
        "localsnapshots/snap-1",
        r#"{"sourceVolume": "vol-9"}"#,
        "a snapshot's node, name, source and compression never change",
    ),
    (
        "localsnapshots/snap-1",
        r#"{"compression": "zstd"}"#,
        "a snapshot's node, name, source and compression never change",
    ),
    (
        "localsnapshots/snap-1",
        r#"{"checksum": "blake3"}"#,
        "how a snapshot's data is digested never changes",
    ),
    (
        "localpools/n1",
        r#"{"nodeName": "n2"}"#,
        "nodeName never changes",
    ),
];

#[test]
fn what_an_object_is_about_never_changes() {
    let server = ApiServer::with_driver();
    let mut restored = volume("vol-2", "n1");
    restored["spec"]["source"] = json!({"snapshot": "snap-1"});
    let objects = [
        volume("vol-1", "n1"),
        restored,
        snapshot("snap-1", "n1"),
        pool("n1"),
    ];
    create(&server, &objects);
    let grown = r#"{"spec": {"sizeBytes": 2097152000, "requestedBytes": 2097152000}}"#;
    let _output = patch(&server, &User::Admin, "localvolumes/vol-1", grown, &[]).ok();
    for (object, change, because) in NEVER {
        let change = format!(r#"{{"spec": {change}}}"#);
        refused(&patch(&server, &User::Admin, object, &change, &[]), because);
    }
}

#[test]
fn an_agent_lists_its_own_nodes_objects_by_the_name_of_the_node() {
    let server = ApiServer::with_driver();
    create(
        &server,
        &[
            volume("vol-1", "n1"),
            volume("vol-2", "n2"),
            snapshot("snap-1", "n1"),
        ],
    );
    for (kind, expected) in [
        ("localvolumes", "localvolume.vd.csi.io/vol-1"),
        ("localsnapshots", "localsnapshot.vd.csi.io/snap-1"),
    ] {
        let list = [
            "get",
            kind,
            "--field-selector=spec.nodeName=n1",
            "-o",
            "name",
        ];
        assert_eq!(server.kubectl(&AGENT, &list).ok().trim(), expected);
    }
}
