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

/// What is killed. The programs are those of the shipped manifest, by the names that the kernel has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    ApiServer,
    Kubelet,
    Program(&'static str),
}

const VICTIMS: [Victim; 7] = [
    Victim::ApiServer,
    Victim::Kubelet,
    Victim::Program("csi-node"),
    Victim::Program("csi-controller"),
    Victim::Program("csi-provisioner"),
    Victim::Program("csi-resizer"),
    Victim::Program("snapshotter"),
];

/// Rounds after which everything has to come to rest once.
const TIDE: usize = 8;
/// How long the API server and kubelets may take to know what they knew before.
const KNOWS: Duration = Duration::from_secs(110);

/// Who is next: in a random order, but none twice before each of them was.
struct Turns(Vec<Victim>);

impl Turns {
    fn next(&mut self, random: &mut Random) -> Victim {
        if self.0.is_empty() {
            self.0 = VICTIMS.to_vec();
        }
        self.0.swap_remove(random.place(self.0.len()))
    }
}

/// Kills one, on a random node, and starts what does not come back by itself. Says whether there was anything to kill.
fn strike(space: &Namespace, victim: Victim, random: &mut Random) -> bool {
    let cluster = space.cluster;
    let nodes = cluster.nodes();
    let node = &nodes[random.place(nodes.len())];
    // Only the newest: of csi-node that is the agent, and its supervisor sees it end.
    let newest = random.chance(50);
    match victim {
        Victim::ApiServer => {
            cluster.kill_component(Component::ApiServer).unwrap();
            cluster.start_component(Component::ApiServer).unwrap();
            nodes.iter().for_each(|node| knows_claims_of(space, node));
            true
        }
        Victim::Kubelet => {
            node.kill_kubelet().unwrap();
            node.start_kubelet().unwrap();
            knows_pods(space, node);
            true
        }
        Victim::Program(program) => kill(node, program, newest),
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

/// `kill -9` of all processes of that program in the node, or of the one that was started last. Says whether there was one:
/// it may be restarting just now.
fn kill(node: &Node, program: &str, newest: bool) -> bool {
    let which = if newest { "--newest" } else { "" };
    let script = format!("pids=$(pgrep {which} --exact {program}) && kill -9 $pids");
    node.run(&["sh", "-c", &script]).unwrap().code == Some(0)
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
    let (mut turns, mut spared) = (Turns(Vec::new()), VICTIMS.to_vec());
    let mut round = 0;
    while Instant::now() < end {
        for _step in 0..load.steps() {
            load.step();
        }
        let victim = turns.next(&mut strikes);
        let struck = strike(&space, victim, &mut strikes);
        eprintln!("round {round}: {victim:?}, killed: {struck}");
        spared.retain(|one| !struck || *one != victim);
        round += 1;
        if round % TIDE == 0 {
            load.come_to_rest();
        }
    }
    // None of them is spared, however few rounds there were; one that never runs is no program of the manifest.
    for victim in spared {
        load.step();
        let what = format!("{victim:?} is killed");
        wait::until(&what, KNOWS, || strike(&space, victim, &mut strikes));
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
