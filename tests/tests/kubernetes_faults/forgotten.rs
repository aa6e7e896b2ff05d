//! csi-provisioner dies between `CreateVolume` and the persistent volume, and its claim goes meanwhile
//! (external-provisioner#486): nobody will ever ask for the volume's deletion.

use std::time::{Duration, Instant};

use tests::cluster::{Cluster, Node};
use tests::kubernetes::{Claim, DRIVER, Namespace, pools_are_clean, snapshot};

use super::stage::{alone, data, is_ready, node_of, rolled_out, watch};

/// What csi-controller grants before it deletes such a volume.
const GRACE: Duration = Duration::from_secs(600);
/// Calls of `kubectl wait` until then: a bit less than two minutes each.
const CALLS: usize = 8;

/// Sends a signal to all processes of a program on a node; there may be none.
fn signal(node: &Node, program: &str, signal: &str) {
    let script = format!("pids=$(pgrep --exact {program}) && kill -{signal} $pids");
    let _there_may_be_none = node.run(&["sh", "-c", &script]).unwrap();
}

fn everywhere(cluster: &Cluster, program: &str, what: &str) {
    for node in cluster.nodes() {
        signal(&node, program, what);
    }
}

/// Has a claim's volume asked for while the agents hold still, and deletes the claim while csi-provisioner does too. Returns the
/// volume's name; who holds still is to be told to go on.
fn asked_for(cluster: &Cluster, space: &Namespace, claim: Claim) -> String {
    // So that the call is under way.
    everywhere(cluster, "csi-node", "STOP");
    space.apply(&[claim.class("vd-immediate").object()]);
    let uid = space.field("pvc/data", "{.metadata.uid}");
    let volume = format!("pvc-{uid}");
    cluster
        .wait_for(&format!("localvolume/{volume}"), "create", &[])
        .unwrap();
    everywhere(cluster, "csi-provisioner", "STOP");
    space.delete("pvc/data");
    volume
}

/// A volume whose csi-provisioner has forgotten it; its claim is gone.
fn forgotten(cluster: &Cluster, space: &Namespace) -> String {
    let volume = asked_for(cluster, space, Claim::new("data"));
    everywhere(cluster, "csi-node", "CONT");
    let _made = watch(cluster, "localvolume", &volume, "it is made", is_ready);
    everywhere(cluster, "csi-provisioner", "KILL");
    volume
}

#[test]
fn a_volume_that_was_made_and_forgotten_stays_until_it_is_certain() {
    let (_alone, cluster) = alone();
    let space = Namespace::new(cluster, "forgotten");
    let volume = forgotten(cluster, &space);
    let node = node_of(cluster, &volume);
    rolled_out(cluster);
    // csi-provisioner, back again, has no persistent volume for it.
    let found = cluster.try_kubectl(&["get", "persistentvolume", &volume]);
    assert!(found.err.contains("not found"), "{found}");
    assert!(data(&node, &volume).is_dir());
    // Who does not want to wait can say so.
    super::stage::destroy(cluster, &node, &volume);
    space.clear();
}

/// Waits until csi-controller has deleted a volume that was forgotten at `begun`, with its data.
fn deleted_after_ten_minutes(cluster: &Cluster, volume: &str, begun: Instant) {
    let node = node_of(cluster, volume);
    let object = format!("localvolume/{volume}");
    let mut gone = cluster.wait_for(&object, "delete", &[]);
    for _call in 1..CALLS {
        if gone.is_ok() {
            break;
        }
        gone = cluster.wait_for(&object, "delete", &[]);
    }
    gone.unwrap();
    // Whichever copy of csi-controller it was, it had seen the claim or its absence at most a minute before.
    assert!(begun.elapsed() + Duration::from_secs(60) > GRACE);
    assert!(!data(&node, volume).exists(), "its data is still there");
    let said = cluster.try_kubectl(&[
        "logs",
        "-n",
        DRIVER,
        "-l",
        "app.kubernetes.io/component=controller",
        "-c",
        "csi-controller",
        "--tail=-1",
    ]);
    assert!(said.out.contains("never used"), "{said}");
    pools_are_clean(cluster);
}

#[test]
#[ignore = "takes more than ten minutes: `make soak`"]
fn a_forgotten_volume_is_deleted_after_ten_minutes() {
    let (_alone, cluster) = alone();
    let space = Namespace::new(cluster, "forgotten");
    let volume = forgotten(cluster, &space);
    deleted_after_ten_minutes(cluster, &volume, Instant::now());
    space.vanish();
}

#[test]
#[ignore = "takes more than ten minutes: `make soak`"]
fn a_restore_whose_claim_and_snapshot_go_while_it_runs_leaves_nothing() {
    let (_alone, cluster) = alone();
    let space = Namespace::new(cluster, "unanswered");
    let source = Claim::new("source").class("vd-immediate").object();
    space.apply(&[source, snapshot("cut", "source")]);
    space.snapshot_ready("cut");
    let volume = asked_for(cluster, &space, Claim::new("data").from_snapshot("cut"));
    // It ends before there is an answer.
    everywhere(cluster, "csi-provisioner", "KILL");
    let _asked = space.kubectl(&["delete", "volumesnapshot", "cut", "--wait=false"]);
    everywhere(cluster, "csi-node", "CONT");
    let _made = watch(cluster, "localvolume", &volume, "it is made", is_ready);
    let begun = Instant::now();
    rolled_out(cluster);
    deleted_after_ten_minutes(cluster, &volume, begun);
    space.vanish();
}
