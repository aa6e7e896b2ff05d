use proto::errors::Kind;

use super::{Pool, Refusal, Wish, place};
use crate::model::Placement;

const SIZE: u64 = 100;

fn pool(node: &str, available_bytes: u64) -> Pool {
    Pool {
        node: node.to_owned(),
        topology: proto::topology::value(node),
        available_bytes,
        trouble: None,
    }
}

fn broken(node: &str) -> Pool {
    Pool {
        trouble: Some("the pool's filesystem is not mounted".to_owned()),
        ..pool(node, 1 << 40)
    }
}

fn topology(requisite: &[&str], preferred: &[&str]) -> Placement {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Placement {
        requisite: owned(requisite),
        preferred: owned(preferred),
    }
}

fn source_on(node: &str) -> Wish {
    Wish::Source {
        source: "snapshot s".to_owned(),
        node: node.to_owned(),
    }
}

fn selected(node: &str) -> Wish {
    Wish::Selected(node.to_owned())
}

fn refused(node: &str) -> Refusal {
    Refusal {
        node: node.to_owned(),
        message: format!("volume v on node {node}: 5 bytes are free"),
    }
}

/// `Ok(node)` or the kind of failure and a part of its message.
type Expected = Result<&'static str, (Kind, &'static str)>;

#[track_caller]
fn check(
    what: &str,
    wish: &Wish,
    placement: &Placement,
    pools: &[Pool],
    refusals: &[Refusal],
    expected: Expected,
) {
    let answer = place(wish, placement, pools, SIZE, refusals);
    match (answer, expected) {
        (Ok(node), Ok(wanted)) => assert_eq!(node, wanted, "{what}"),
        (Err(failure), Err((kind, part))) => {
            assert_eq!(failure.kind, kind, "{what}: {failure}");
            assert!(failure.message.contains(part), "{what}: {failure}");
        }
        (answer, expected) => panic!("{what}: {answer:?}, expected {expected:?}"),
    }
}

#[test]
fn without_a_consumer_the_node_with_most_room_is_chosen() {
    let anywhere = topology(&[], &[]);
    let both = topology(&["a", "b"], &["a", "b"]);
    let only_a = topology(&["a"], &["a"]);
    let (a, b) = (pool("a", 200), pool("b", 300));
    let pools = [a, b];
    for (what, placement, refusals, expected) in [
        ("most room", &anywhere, vec![], Ok("b")),
        (
            "the order of preference means nothing",
            &both,
            vec![],
            Ok("b"),
        ),
        ("only allowed ones", &only_a, vec![], Ok("a")),
        (
            "the next after a refusal",
            &both,
            vec![refused("b")],
            Ok("a"),
        ),
        (
            "none left",
            &both,
            vec![refused("a"), refused("b")],
            Err((Kind::NoSpace, "5 bytes are free")),
        ),
    ] {
        check(
            what,
            &Wish::MostFree,
            placement,
            &pools,
            &refusals,
            expected,
        );
    }
}

#[test]
fn a_pool_without_room_or_in_trouble_is_not_chosen_and_the_message_says_why() {
    let anywhere = topology(&[], &[]);
    let wish = Wish::MostFree;
    let pools = [broken("a"), pool("b", SIZE)];
    check("exact fit", &wish, &anywhere, &pools, &[], Ok("b"));
    let full = [broken("a"), pool("b", SIZE - 1)];
    for part in ["not mounted", "node b has 99 bytes", "100 bytes"] {
        check(
            "full",
            &wish,
            &anywhere,
            &full,
            &[],
            Err((Kind::NoSpace, part)),
        );
    }
    let nobody = Err((Kind::NoSpace, "no allowed node has a pool; allowed are c"));
    check(
        "strangers",
        &wish,
        &topology(&["c"], &[]),
        &pools,
        &[],
        nobody,
    );
}

#[test]
fn equal_room_is_decided_by_name() {
    let pools = [pool("b", 200), pool("a", 200)];
    check(
        "tie",
        &Wish::MostFree,
        &topology(&[], &[]),
        &pools,
        &[],
        Ok("a"),
    );
}

#[test]
fn a_caller_that_names_no_claim_gets_its_order_of_preference() {
    let placement = topology(&["a", "b", "c"], &["c", "a"]);
    let pools = [pool("a", 200), pool("b", 900), pool("c", 150)];
    let wish = Wish::Preferred;
    check("first", &wish, &placement, &pools, &[], Ok("c"));
    check(
        "second",
        &wish,
        &placement,
        &pools,
        &[refused("c")],
        Ok("a"),
    );
    let two = [refused("c"), refused("a")];
    check("the rest", &wish, &placement, &pools, &two, Ok("b"));
}

#[test]
fn a_consumer_s_node_is_the_only_one() {
    let every = topology(&["a", "b"], &["a", "b"]);
    let pools = [pool("a", 1), pool("b", 900)];
    // Its agent decides to the byte: the figure at hand may be old.
    check("little room", &selected("a"), &every, &pools, &[], Ok("a"));
    let no = |part| Err((Kind::NoSpace, part));
    check(
        "refused",
        &selected("a"),
        &every,
        &pools,
        &[refused("a")],
        no("5 bytes"),
    );
    check(
        "in trouble",
        &selected("a"),
        &every,
        &[broken("a")],
        &[],
        no("not mounted"),
    );
    check(
        "no pool",
        &selected("c"),
        &topology(&[], &[]),
        &pools,
        &[],
        no("does not run there"),
    );
    check(
        "not allowed",
        &selected("c"),
        &every,
        &pools,
        &[],
        no("may only be on a, b"),
    );
}

#[test]
fn a_copy_is_made_where_its_source_is() {
    let every = topology(&["a", "b"], &["b", "a"]);
    let pools = [pool("a", 1), pool("b", 900)];
    check("there", &source_on("a"), &every, &pools, &[], Ok("a"));
    let strict = topology(&["b"], &["b"]);
    let elsewhere = Err((Kind::NoSpace, "snapshot s is on node a"));
    check(
        "strict topology",
        &source_on("a"),
        &strict,
        &pools,
        &[],
        elsewhere,
    );
    let full = Err((Kind::NoSpace, "5 bytes are free"));
    check(
        "full",
        &source_on("a"),
        &every,
        &pools,
        &[refused("a")],
        full,
    );
    let down = Err((Kind::Unavailable, "not mounted"));
    check(
        "in trouble",
        &source_on("a"),
        &every,
        &[broken("a")],
        &[],
        down,
    );
    let gone = Err((Kind::Unavailable, "the node was removed"));
    check(
        "removed",
        &source_on("a"),
        &every,
        &[pool("b", 1)],
        &[],
        gone,
    );
}

#[test]
fn a_long_node_name_is_matched_by_its_topology_value() {
    let long = "n".repeat(100);
    let value = proto::topology::value(&long);
    let placement = topology(&[&value], &[&value]);
    let pools = [pool(&long, 200)];
    for wish in [
        Wish::MostFree,
        Wish::Preferred,
        selected(&long),
        source_on(&long),
    ] {
        assert_eq!(place(&wish, &placement, &pools, SIZE, &[]).unwrap(), long);
    }
}
