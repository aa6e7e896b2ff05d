//! Objects that were deleted by hand, lost, or come back without their data: data is authoritative, and only an order deletes it.

use serde_json::{Value, json};
use tests::cluster::Cluster;
use tests::kubernetes::{Claim, Namespace};

use super::stage::{
    adopt, alone, condition, data, destroy, is_orphan, is_read_again, is_ready, node_of, standing,
    watch, written,
};

/// Makes the API server's versions run far ahead of what they are now.
fn run_ahead(space: &Namespace) {
    let filler: Vec<Value> = (0..400)
        .map(|index| {
            let name = format!("filler-{index}");
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
        })
        .collect();
    space.apply(&filler);
}

/// Deletes a `LocalVolume` by hand, as one who is determined.
fn tear_out(cluster: &Cluster, volume: &str) {
    let _asked = cluster
        .kubectl(&["delete", "localvolume", volume, "--wait=false"])
        .unwrap();
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    let _patched = cluster
        .kubectl(&["patch", "localvolume", volume, "--type=merge", "-p", patch])
        .unwrap();
}

#[test]
fn a_volume_deleted_by_hand_keeps_its_data_and_goes_with_its_claim() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "by-hand");
    let volume = written(&space, "data", None);
    let _asked = cluster
        .kubectl(&["delete", "localvolume", &volume, "--wait=false"])
        .unwrap();
    let told = watch(cluster, "localvolume", &volume, "it is reported", |one| {
        condition(one, "Ready")["reason"] == "DeletedByHand"
    });
    let message = condition(&told, "Ready")["message"].as_str().unwrap();
    assert!(message.contains("the data is kept"), "{message}");
    assert_eq!(space.sh("data", "cat /data/file"), "kept");
    is_read_again(&space, "data");
    space.finish();
}

#[test]
fn a_volume_torn_out_by_hand_is_adopted_for_its_persistent_volume() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "torn-out");
    let volume = written(&space, "data", None);
    let old = space.object(&format!("localvolume/{volume}"))["metadata"]["uid"].clone();
    tear_out(cluster, &volume);
    let _wrote = space.sh("data", "echo more >/data/more && sync");
    let new = watch(cluster, "localvolume", &volume, "it is adopted", |one| {
        one["metadata"]["uid"] != old && is_ready(one)
    });
    assert!(
        !new["metadata"]["annotations"]["vd.csi.io/created"].is_null(),
        "{new:#}"
    );
    is_read_again(&space, "data");
    space.finish();
}

#[test]
fn data_that_nothing_names_is_an_orphan_until_an_administrator_adopts_it() {
    let (_standing, cluster) = standing();
    let space = Namespace::new(cluster, "orphan");
    let volume = written(&space, "data", None);
    let node = node_of(cluster, &volume);
    let mut saved = space.object(&format!("pv/{volume}"));
    let retain = r#"{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}"#;
    let _patched = space.kubectl(&["patch", "pv", &volume, "-p", retain]);
    for object in ["pod/data", "pvc/data", &format!("pv/{volume}")] {
        space.delete(object);
    }
    tear_out(cluster, &volume);
    let pool = watch(
        cluster,
        "localpool",
        &node.name(),
        "it is reported",
        |pool| is_orphan(pool, &volume),
    );
    assert_eq!(condition(&pool, "Orphaned")["status"], "True");
    assert!(data(&node, &volume).is_dir(), "the data is gone");

    adopt(cluster, &node, &volume, &volume);
    let _done = watch(
        cluster,
        "localpool",
        &node.name(),
        "that is reported",
        |pool| {
            pool["metadata"]["annotations"]["vd.csi.io/adopt"].is_null()
                && !is_orphan(pool, &volume)
        },
    );

    // As an administrator would: the persistent volume that was saved, for a new claim.
    let metadata = &mut saved["metadata"];
    for key in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
    ] {
        metadata[key] = Value::Null;
    }
    saved["spec"]["claimRef"] = json!({"namespace": space.name, "name": "data"});
    saved["status"] = Value::Null;
    space.apply(&[saved, Claim::new("data").volume(&volume).object()]);
    space.bound("data");
    is_read_again(&space, "data");
    space.finish();
}

#[test]
fn an_older_database_loses_no_data_and_makes_none() {
    let (_alone, cluster) = alone();
    let space = Namespace::new(cluster, "older");
    let early = written(&space, "early", None);
    let node = node_of(cluster, &early);
    space.delete("pod/early");
    cluster.keep_database("older").unwrap();
    space.delete("pvc/early");
    cluster
        .wait_for(&format!("localvolume/{early}"), "delete", &[])
        .unwrap();
    let late = written(&space, "late", None);
    let late_node = node_of(cluster, &late);
    run_ahead(&space);

    cluster.restore_database("older").unwrap();
    let told = watch(cluster, "localvolume", &early, "it is told", |one| {
        one["status"]["state"] == "DataMissing"
    });
    let message = condition(&told, "Ready")["message"].as_str().unwrap();
    assert!(
        message.contains("Nothing is made in its place"),
        "{message}"
    );
    assert!(!data(&node, &early).exists());
    let _orphan = watch(
        cluster,
        "localpool",
        &late_node.name(),
        "it is an orphan",
        |pool| is_orphan(pool, &late),
    );
    adopt(cluster, &late_node, "*", &late);
    // Nothing else names it any more.
    destroy(cluster, &late_node, &late);
    // Whoever knew later versions of everything goes on with the older ones.
    let after = written(&space, "after", None);
    space.grow("after", "128Mi");
    // The filesystem in it grows with its next mount, where the kernel keeps a mounted ext4 from growing.
    let _grown = watch(cluster, "localvolume", &after, "it has grown", |one| {
        one["status"]["sizeBytes"] == 128 << 20
    });
    space.delete("pod/after");
    space.delete("pvc/after");
    // The claim whose data is lost can be deleted.
    space.clear();
}
