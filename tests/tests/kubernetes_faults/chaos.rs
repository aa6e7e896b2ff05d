//! Everything that can be killed is killed at random, while volumes come, are cut, copied, grown and go, and two pods write
//! all the time. `VD_CHAOS_MINUTES` says how long (2), `VD_SEED` repeats a run.

use std::time::{Duration, Instant};

use tests::chance::{self, Random};
use tests::cluster::{Component, Node};
use tests::kubernetes::{Namespace, pools_are_clean};
use tests::wait;

use super::load::Load;
use super::stage::{alone, rolled_out};
use super::writer::Writer;

/// The processes of the driver and its sidecars.
const PROCESSES: [&str; 5] = [
    "csi-node",
    "csi-controller",
    "csi-provisioner",
    "csi-resizer",
    "csi-snapshotter",
];

/// Rounds after which everything has to come to rest once.
const TIDE: usize = 8;
/// How long the API server and kubelets may take to know what they knew before.
const KNOWS: Duration = Duration::from_secs(110);

/// Kills something, and starts what does not come back by itself.
fn strike(space: &Namespace, random: &mut Random) -> String {
    let cluster = space.cluster;
    let nodes = cluster.nodes();
    let node = &nodes[random.place(nodes.len())];
    match random.within(0..100) {
        0..15 => {
            cluster.kill_component(Component::ApiServer).unwrap();
            cluster.start_component(Component::ApiServer).unwrap();
            nodes.iter().for_each(|node| knows_claims_of(space, node));
            "API server".to_owned()
        }
        15..30 => {
            node.kill_kubelet().unwrap();
            node.start_kubelet().unwrap();
            knows_pods(space, node);
            format!("kubelet of {}", node.name())
        }
        _ => {
            let process = PROCESSES[random.place(PROCESSES.len())];
            // Only the newest: of csi-node that is the agent, and its supervisor sees it end.
            let newest = random.chance(50);
            kill(node, process, newest);
            format!("{process} of {}", node.name())
        }
    }
}

/// Waits until the API server knows which claims a node may read. A kubelet that starts before takes the volumes away from
/// under pods that run, whosever volumes they are; so the two are not killed within the same second.
#[track_caller]
fn knows_claims_of(space: &Namespace, node: &Node) {
    let claim = format!("persistentvolumeclaim/{}", Writer::name_on(node));
    let user = format!("--as=system:node:{}", node.name());
    let may = ["auth", "can-i", "get", &claim, "-n", &space.name, &user];
    let may = [&may[..], &["--as-group=system:nodes"]].concat();
    wait::until("the API server knows the claims", KNOWS, || {
        space.cluster.try_kubectl(&may).code == Some(0)
    });
}

/// Waits until a kubelet that has started has found its pods.
#[track_caller]
fn knows_pods(space: &Namespace, node: &Node) {
    wait::until("kubelet knows its pods", KNOWS, || {
        space.sh_succeeds(&Writer::name_on(node), "true")
    });
}

/// `kill -9` of all processes of that program in the node, or of the one that was started last.
fn kill(node: &Node, program: &str, newest: bool) {
    let which = if newest { "--newest" } else { "" };
    let script = format!("pids=$(pgrep {which} --exact {program}) && kill -9 $pids");
    // It may be restarting just now, and then there is none.
    let _there_was_none = node.run(&["sh", "-c", &script]).unwrap();
}

fn minutes() -> u64 {
    let chosen = std::env::var("VD_CHAOS_MINUTES").ok();
    chosen.map_or(2, |text| {
        text.parse().expect("VD_CHAOS_MINUTES is a number")
    })
}

#[test]
fn whatever_is_killed_nothing_is_lost_and_nothing_is_left() {
    let (_alone, cluster) = alone();
    let seed = chance::seed("chaos");
    let mut strikes = Random::new(seed);
    let space = Namespace::new(cluster, "chaos");
    let nodes = cluster.nodes();
    let writers: Vec<Writer> = nodes
        .iter()
        .map(|node| Writer::start(&space, node))
        .collect();
    let mut load = Load::new(&space, seed ^ 1);
    let end = Instant::now() + Duration::from_secs(60 * minutes());
    let mut round = 0;
    while Instant::now() < end {
        for _step in 0..load.steps() {
            load.step();
        }
        let struck = strike(&space, &mut strikes);
        eprintln!("round {round}: killed {struck}");
        round += 1;
        if round % TIDE == 0 {
            load.come_to_rest();
        }
    }
    load.come_to_rest();
    eprintln!("{round} rounds: {:?}", load.counts());
    let written: Vec<String> = writers
        .iter()
        .map(|writer| space.volume_of(&writer.name))
        .collect();
    load.nothing_is_lost_or_left(&written);
    for writer in &writers {
        let lines = writer.check(&space);
        assert!(lines > 100, "{} wrote {lines} lines only", writer.name);
    }
    rolled_out(cluster);
    pools_are_clean(cluster);
    space.vanish();
}
