//! A freeze ends within five seconds, whoever dies or hangs meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    reason = "tests: a panic is how they report, and times are printed"
)]

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::client::Client;
use tests::file_writer::{self, FileWriter};
use tests::fixture::Fixture;
use tests::kubelet::Attachment;
use tests::scratch_fs::{FsKind, GIB, MIB};
use tests::{requests, server, wait};

/// What is promised for a freeze, and a second for a slow machine.
const LONGEST: Duration = Duration::from_secs(6);
/// A filesystem of a test is written to every few milliseconds: one that is silent so long is frozen.
const SILENCE: Duration = Duration::from_millis(700);
const FS_TYPES: [&str; 2] = ["ext4", "xfs"];

/// A server that `fault` will meet, and a mounted filesystem to which somebody writes.
struct Scene {
    fixture: Fixture,
    attachment: Attachment,
    writer: FileWriter,
}

impl Scene {
    fn new(fs_type: &str, fault: &str) -> Self {
        let fixture = Fixture::with(FsKind::Xfs, 8 * GIB, |setup| setup.with_fault(fault));
        let how = requests::filesystem(fs_type);
        let attachment = fixture.published("written", 512 * MIB, &how);
        let writer = FileWriter::start(&attachment.target);
        writer.advance(3);
        Self {
            fixture,
            attachment,
            writer,
        }
    }

    /// Calls CreateSnapshot on a connection of its own, as one whose answer may never come.
    fn snapshot(&self) -> JoinHandle<bool> {
        let client: Client = self.fixture.server.client();
        let request = requests::snapshot("cut", &self.attachment.volume_id);
        thread::spawn(move || client.create_snapshot(request).is_ok())
    }

    /// How long it takes from `since` until the writer has synced one more file.
    fn time_to_next_write(&self, since: Instant) -> Duration {
        self.writer.advance(1);
        since.elapsed()
    }

    /// The processes that freeze and thaw.
    fn guards(&self) -> Vec<i32> {
        let server = i32::try_from(self.fixture.server.pid()).unwrap();
        let mut found = server::processes_of(self.fixture.fs.folder());
        found.retain(|pid| *pid != server);
        found
    }

    /// Waits until the server has stopped itself at the step.
    fn wait_hanging(&self) {
        let path = format!("/proc/{}/stat", self.fixture.server.pid());
        wait::until("the server hangs", server::PATIENCE, || {
            let stat = std::fs::read_to_string(&path).unwrap_or_default();
            // The state follows the name, which is in brackets.
            stat.rsplit(") ")
                .next()
                .is_some_and(|rest| rest.starts_with('T'))
        });
    }

    /// After all: the server runs again, a snapshot can be cut, and no file was lost.
    fn goes_on(mut self) {
        self.fixture.reconnect();
        let cut = requests::snapshot("cut", &self.attachment.volume_id);
        let cut = self.fixture.csi.made_snapshot(cut);
        self.writer.advance(3);
        let safe = self.writer.stop();
        file_writer::verify(&self.attachment.target, safe).unwrap();
        tests::client::accepted(self.fixture.csi.delete_cut(&cut.snapshot_id));
        self.attachment.down_and_delete(&self.fixture.csi);
    }
}

#[test]
fn a_freeze_is_undone_when_the_server_is_killed_in_it() {
    for fs_type in FS_TYPES {
        for step in ["snapshot.frozen", "snapshot.cut"] {
            let mut scene = Scene::new(fs_type, &format!("{step}:kill"));
            let call = scene.snapshot();
            scene.fixture.server.wait_killed();
            let took = scene.time_to_next_write(Instant::now());
            println!("{fs_type}, killed at {step}: written to again after {took:?}");
            assert!(took <= LONGEST, "{fs_type} at {step}: {took:?}");
            assert!(!call.join().unwrap(), "a dead server has answered");
            scene.fixture.server.start_again();
            scene.goes_on();
        }
    }
}

#[test]
fn a_freeze_ends_by_itself_when_the_server_hangs_in_it() {
    for fs_type in FS_TYPES {
        let mut scene = Scene::new(fs_type, "snapshot.frozen:hang");
        let start = Instant::now();
        let call = scene.snapshot();
        scene.wait_hanging();
        let took = scene.time_to_next_write(start);
        println!("{fs_type}, hanging: written to again after {took:?}");
        assert!(took <= LONGEST, "{fs_type}: {took:?}");
        // The cut is then one atomic call on a filesystem that is in use: crash-consistent, and good.
        scene.fixture.server.signal(Signal::SIGCONT);
        assert!(call.join().unwrap(), "the snapshot is made late");
        scene.fixture.server.kill();
        scene.fixture.server.start_again();
        scene.goes_on();
    }
}

#[test]
fn the_next_start_thaws_what_a_killed_process_tree_left_frozen() {
    for fs_type in FS_TYPES {
        let mut scene = Scene::new(fs_type, "snapshot.frozen:hang");
        let call = scene.snapshot();
        scene.wait_hanging();
        let guards = scene.guards();
        assert_eq!(guards.len(), 1, "one guard: {guards:?}");
        // First the guard: it would thaw at once if it saw the server die.
        for guard in guards {
            kill(Pid::from_raw(guard), Signal::SIGKILL).unwrap();
        }
        scene.fixture.server.kill_tree();
        assert!(!call.join().unwrap(), "a dead server has answered");
        let before = scene.writer.safe();
        let wrote = wait::holds_within(SILENCE, || scene.writer.safe() > before + 1);
        assert!(!wrote, "{fs_type} is not frozen, so this shows nothing");

        let start = Instant::now();
        scene.fixture.server.start_again();
        let took = scene.time_to_next_write(start);
        println!("{fs_type}, all killed: written to again {took:?} after the next start");
        assert!(took <= LONGEST, "{fs_type}: {took:?}");
        scene.goes_on();
    }
}
