//! csi-controller and csi-node do their work with the shipped flags and exactly the shipped rights, policies included, and
//! export the metrics that alerts and dashboard ask for. There is no kubelet here: the test calls csi-controller itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tests::client::Client;
use tests::manifests::api_server::{ApiServer, User, snapshot_definitions};
use tests::manifests::metrics::EXPORTED;
use tests::manifests::programs::Program;
use tests::scratch_fs::{FsKind, GIB, ScratchFs};
use tests::{requests, wait};

const PATIENCE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

fn ready(program: &Program) {
    wait::until("the program is ready", PATIENCE, || {
        program
            .get("/readyz")
            .is_some_and(|(status, _body)| status == 200)
    });
}

fn connect(socket: &Path) -> Client {
    wait::until("the socket is there", PATIENCE, || socket.exists());
    Client::connect(socket).expect("connect")
}

fn node(server: &ApiServer) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    let _output = server.send(&User::Admin, &["create"], &node).ok();
}

fn get(server: &ApiServer, what: &str) -> Value {
    let text = server
        .kubectl(&User::Admin, &["get", what, "-o", "json"])
        .ok();
    serde_json::from_str(&text).expect("JSON")
}

/// A volume, more of it, a snapshot, a restore, and all of it deleted: through the objects, by two programs.
fn story(server: &ApiServer, csi: &Client) {
    let how = requests::filesystem("ext4");
    let volume = csi.made_volume(requests::volume("pvc-1", 300 * MIB, how.clone()));
    assert_eq!(
        get(server, "localvolumes")["items"][0]["status"]["state"],
        "Ready"
    );
    let _expanded = csi
        .controller_expand_volume(requests::expand(&volume.volume_id, 400 * MIB, how.clone()))
        .expect("expand");
    let cut = csi.made_snapshot(requests::snapshot("snapshot-1", &volume.volume_id));
    let too_large = csi.create_volume(requests::volume("pvc-2", 900 * GIB, how));
    assert!(too_large.is_err(), "there is no room for it");
    csi.delete_cut(&cut.snapshot_id)
        .expect("delete the snapshot");
    csi.delete(&volume.volume_id).expect("delete the volume");
    for kind in ["localvolumes", "localsnapshots"] {
        assert_eq!(get(server, kind)["items"], json!([]), "{kind}");
    }
}

/// An object whose wish the agent cannot fulfil, so that there is a failure to count.
fn failure(server: &ApiServer) {
    let name = "pvc-00000000-0000-4000-8000-000000000001";
    let volume = json!({
        "apiVersion": "vd.csi.io/v1alpha1", "kind": "LocalVolume", "metadata": {"name": name},
        "spec": {"nodeName": "n1", "name": name, "requestedBytes": 900 * GIB, "sizeBytes": 900 * GIB,
            "volumeMode": "Block", "accessModes": ["SINGLE_NODE_WRITER"]},
    });
    let _output = server.send(&User::Admin, &["create"], &volume).ok();
    let failed = [
        "wait",
        &format!("localvolume/{name}"),
        "--for=jsonpath={.status.failure.kind}",
        "--timeout=60s",
    ];
    let _output = server.kubectl(&User::Admin, &failed).ok();
}

#[test]
fn our_programs_do_their_work_with_the_shipped_flags_and_rights_and_show_every_metric() {
    let fs = ScratchFs::new(FsKind::Xfs, 24 * GIB);
    let server = ApiServer::with_driver();
    let definitions = snapshot_definitions().display().to_string();
    let _output = server
        .kubectl(&User::Admin, &["apply", "-f", &definitions])
        .ok();
    node(&server);
    let agent = Program::agent(&server, "n1", &fs.mount_point(), fs.folder());
    let controller = Program::controller(&server, "n1", fs.folder());
    let pool = ["wait", "localpool/n1", "--for=create", "--timeout=60s"];
    let _output = server.kubectl(&User::Admin, &pool).ok();
    let pool = [
        "wait",
        "localpool/n1",
        "--for=condition=Ready",
        "--timeout=60s",
    ];
    let _output = server.kubectl(&User::Admin, &pool).ok();
    ready(&controller);

    story(&server, &connect(&fs.folder().join("controller.sock")));
    failure(&server);
    let class = [
        "wait",
        "volumesnapshotclass/vd",
        "--for=create",
        "--timeout=60s",
    ];
    let _output = server.kubectl(&User::Admin, &class).ok();

    let (_status, page) = agent.get("/metrics").expect("metrics");
    let (_status, more) = controller.get("/metrics").expect("metrics");
    let page = page + &more;
    let missing: Vec<_> = EXPORTED
        .iter()
        .filter(|name| !page.lines().any(|line| line.starts_with(**name)))
        .collect();
    assert!(missing.is_empty(), "{missing:?} are not in\n{page}");
    for program in [&agent, &controller] {
        let said = program.said();
        assert!(!said.to_lowercase().contains("forbidden"), "{said}");
    }
}
