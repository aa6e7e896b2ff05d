//! Random operations, and a server that is killed from outside at random moments, also while it recovers.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::case::{Case, snapshot_id, volume_id};
use super::scenario::Fault;
use super::world::World;
use crate::file_writer::{self, FileWriter};
use crate::kubelet::Attachment;
use crate::scratch_fs::{MIB, ScratchFs};
use crate::{csi, requests};

/// The longest time a server lives once it is ready.
const LONGEST_LIFE_MS: u64 = 250;
/// The longest time one lives that is killed while it starts.
const LONGEST_START_MS: u64 = 60;
const MOUNTED: &str = "mounted";

/// What happened, for people.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Crashes of a server that was ready.
    pub crashes: u64,
    /// Crashes of one that was starting.
    pub in_recovery: u64,
    /// Power losses.
    pub power_losses: u64,
    /// Acknowledged operations.
    pub done: u64,
    /// Operations in doubt after a crash.
    pub doubted: u64,
}

/// Runs `rounds` crashes. With kills only, a pod writes to a mounted ext4 all the time
/// and must not notice; with power losses there is no pod.
#[track_caller]
pub fn run(fs: &ScratchFs, number: usize, seed: u64, rounds: u64) -> Tally {
    let mut rng = StdRng::seed_from_u64(seed);
    let power = seed % 2 == 1;
    let mut case = Case::new(fs, number, Fault::Kill);
    let mut worlds = ["a", "b"].map(|name| World::new(&case, name, rng.random()));
    let pod = (!power).then(|| Pod::start(&case));
    let mut tally = Tally::default();
    while tally.crashes < rounds {
        live_and_die(&case, &mut worlds, &mut rng);
        tally.crashes += 1;
        if power && rng.random_ratio(1, 3) {
            case.lose_power_after(|_case| Ok(()));
            tally.power_losses += 1;
        }
        while rng.random_ratio(1, 3) {
            let life = Duration::from_millis(rng.random_range(0..LONGEST_START_MS));
            case.start_and_kill_after(life);
            tally.in_recovery += 1;
        }
        case.start();
        worlds.iter_mut().for_each(|world| world.verify(&case));
        nothing_else_is_there(&case, &worlds, pod.is_some());
        case.bystanders_are_whole();
        case.nothing_is_unfinished();
        if let Some(pod) = &pod {
            pod.is_alive();
        }
    }
    worlds
        .iter_mut()
        .for_each(|world| world.restores_are_right(&case));
    if let Some(pod) = pod {
        pod.end(&case);
    }
    case.nothing_is_left();
    tally.done = worlds.iter().map(|world| world.done).sum();
    tally.doubted = worlds.iter().map(|world| world.doubted).sum();
    case.remove();
    tally
}

/// Two clients work until the server is killed under them.
fn live_and_die(case: &Case<'_>, worlds: &mut [World], rng: &mut StdRng) {
    let pid = Pid::from_raw(i32::try_from(case.server.pid()).expect("a process id"));
    let life = Duration::from_millis(rng.random_range(0..LONGEST_LIFE_MS));
    let clients: Vec<_> = worlds.iter().map(|_| case.server.client()).collect();
    let mounted = case.listed(&volume_id(MOUNTED)).is_some();
    let third = case.server.client();
    thread::scope(|scope| {
        for (world, client) in worlds.iter_mut().zip(&clients) {
            let _joined = scope.spawn(move || world.go_on(client));
        }
        if mounted {
            let _joined = scope.spawn(move || while cut_mounted(&third) {});
        }
        // The moment of the kill is the random thing here.
        thread::sleep(life);
        kill(pid, Signal::SIGKILL).expect("kill the server");
    });
}

/// Freezes the pod's filesystem again and again.
fn cut_mounted(client: &crate::client::Client) -> bool {
    let cut = client.create_snapshot(requests::snapshot(MOUNTED, &volume_id(MOUNTED)));
    cut.is_ok() && client.delete_cut(&snapshot_id(MOUNTED)).is_ok()
}

#[track_caller]
fn nothing_else_is_there(case: &Case<'_>, worlds: &[World], pod: bool) {
    let found: BTreeSet<String> = case.objects().into_iter().collect();
    let mut wanted: BTreeSet<String> = worlds.iter().flat_map(World::ids).collect();
    wanted.extend([case.source(), case.source_cut()]);
    if pod {
        wanted.insert(volume_id(MOUNTED));
    }
    // Cut and deleted again without a model.
    let may_be = snapshot_id(MOUNTED);
    let strange: Vec<&String> = found
        .difference(&wanted)
        .filter(|id| **id != may_be)
        .collect();
    let missing: Vec<&String> = wanted.difference(&found).collect();
    assert!(
        strange.is_empty() && missing.is_empty(),
        "not known: {strange:?}, gone: {missing:?}"
    );
}

/// A pod with a mounted volume to which it writes all the time.
struct Pod {
    attachment: Attachment,
    writer: FileWriter,
}

impl Pod {
    fn start(case: &Case<'_>) -> Self {
        let how: csi::VolumeCapability = requests::filesystem("ext4");
        let request = requests::volume(MOUNTED, 2048 * MIB, how.clone());
        let id = case.csi.made_volume(request).volume_id;
        let attachment = case.attachment(&id, "pod-1", &how);
        attachment.up(&case.csi);
        let writer = FileWriter::start(&attachment.target);
        Self { attachment, writer }
    }

    #[track_caller]
    fn is_alive(&self) {
        self.writer.advance(1);
    }

    #[track_caller]
    fn end(self, case: &Case<'_>) {
        let safe = self.writer.stop();
        file_writer::verify(&self.attachment.target, safe).unwrap_or_else(|why| panic!("{why}"));
        self.attachment.down_and_delete(&case.csi);
        crate::client::accepted(case.csi.delete_cut(&snapshot_id(MOUNTED)));
    }
}
