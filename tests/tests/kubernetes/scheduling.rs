//! Where volumes go, and what happens when they fit nowhere.

use std::collections::BTreeMap;

use serde_json::Value;
use tests::cluster::Cluster;
use tests::kubernetes::{Claim, Namespace, Pod, field};

use crate::alone;

/// More than half of what a pool has room for.
const BIG: &str = "12Gi";

/// A volume that takes most of a node's pool.
fn fill(space: &Namespace, node: &str) {
    let name = format!("big-{node}");
    space.apply(&[
        Claim::new(&name).size(BIG).block().object(),
        Pod::new(&name).device(&name).on(node).object(),
    ]);
    space.ready(&name);
}

#[test]
fn a_claim_that_fits_on_one_node_only_goes_there() {
    let (_alone, cluster) = alone();
    let space = Namespace::new(cluster, "one-fits");
    fill(&space, "node-1");
    space.apply(&[
        Claim::new("late").size(BIG).block().object(),
        Pod::new("late").device("late").object(),
    ]);
    space.ready("late");
    assert_eq!(space.node_of("late"), "node-2");
    // The scheduler may have asked node-1 before it knew: that is an event, and not the end.
    space.clear();
}

#[test]
fn a_claim_of_the_immediate_class_goes_to_the_node_with_room() {
    let (_alone, cluster) = alone();
    let space = Namespace::new(cluster, "at-once-fits");
    fill(&space, "node-2");
    space.apply(&[Claim::new("soon")
        .class("vd-immediate")
        .size(BIG)
        .block()
        .object()]);
    space.bound("soon");
    assert_eq!(space.node_of_volume("soon"), "node-1");
    space.finish();
}

#[test]
fn a_claim_that_fits_nowhere_waits_says_why_and_is_placed_when_there_is_room() {
    let (_alone, cluster) = alone();
    let space = Namespace::new(cluster, "no-fit");
    fill(&space, "node-1");
    fill(&space, "node-2");
    space.apply(&[
        Claim::new("late").size(BIG).block().object(),
        Pod::new("late").device("late").object(),
    ]);
    let _told = space.event(
        "late",
        "FailedScheduling",
        "did not have enough free storage",
    );
    assert_eq!(space.field("pvc/late", "{.status.phase}"), "Pending");
    space.delete("pod/big-node-1");
    space.delete("pvc/big-node-1");
    space.ready("late");
    assert_eq!(space.node_of("late"), "node-1");
    space.clear();
}

/// What new volumes may come to on each node, in bytes.
fn room(cluster: &Cluster) -> BTreeMap<String, u64> {
    let lines = "{range .items[*]}{.metadata.name} {.status.availableBytes}{\"\\n\"}{end}";
    field(cluster, &["localpools"], lines)
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(node, bytes)| (node.to_owned(), bytes.parse().unwrap()))
        .collect()
}

/// What the volumes of a namespace come to on each node, in bytes.
fn taken(space: &Namespace) -> BTreeMap<String, u64> {
    let told = space
        .cluster
        .kubectl(&["get", "localvolumes", "-o", "json"]);
    let list: Value = serde_json::from_str(&told.unwrap()).unwrap();
    let mut sums = BTreeMap::new();
    for volume in list["items"].as_array().into_iter().flatten() {
        let spec = &volume["spec"];
        if spec["claim"]["namespace"] == space.name.as_str() {
            let node = spec["nodeName"].as_str().unwrap().to_owned();
            *sums.entry(node).or_default() += spec["sizeBytes"].as_u64().unwrap();
        }
    }
    sums
}

#[test]
fn fifty_claims_at_once_never_overfill_a_pool_and_half_of_them_deleted_half_way_leave_nothing() {
    let (_alone, cluster) = alone();
    let space = Namespace::new(cluster, "fifty");
    let room = room(cluster);
    // About 35 of them have room.
    let name = |index: usize| format!("claim-{index:02}");
    let claims: Vec<Value> = (0..50)
        .map(|index| {
            Claim::new(&name(index))
                .class("vd-immediate")
                .size("1Gi")
                .block()
                .object()
        })
        .collect();
    space.apply(&claims);
    space.bound(&name(7));
    let mut delete = vec!["delete".to_owned(), "pvc".to_owned()];
    delete.extend((0..50).step_by(2).map(name));
    let words: Vec<&str> = delete.iter().map(String::as_str).collect();
    let _deleted = space.kubectl(&words);
    // The other half has room, and comes to it however many were there before.
    for index in (1..50).step_by(2) {
        space.bound(&name(index));
    }
    for (node, bytes) in taken(&space) {
        assert!(bytes <= room[&node], "{node}: {bytes} of {}", room[&node]);
    }
    space.clear();
}
