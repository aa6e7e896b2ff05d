//! The freeze guard, with this test binary as the guard, as the agent that is killed, and as the test.
//! Not under the usual test harness: `main` must be able to become the guard.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking and reports by printing"
)]

mod attach;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use attach::{MIB, Scratch, write_file};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pool::ErrorKind;
use pool::attach::freeze::{FreezeGuard, GUARD_ARGUMENT, LONGEST, guard_main, thaw_all};
use pool::attach::loop_device::ImageKey;
use pool::record::FsType;

type Case = (&'static str, fn(&Frozen));

const CASES: &[Case] = &[
    (
        "a_writer_waits_until_the_thaw",
        a_writer_waits_until_the_thaw,
    ),
    ("dropping_the_guard_thaws", dropping_the_guard_thaws),
    (
        "a_freeze_that_lasts_too_long_is_undone_and_reported",
        a_freeze_that_lasts_too_long_is_undone_and_reported,
    ),
    ("a_second_freeze_is_busy", a_second_freeze_is_busy),
    (
        "a_killed_guard_is_noticed_and_its_freeze_undone",
        a_killed_guard_is_noticed_and_its_freeze_undone,
    ),
    (
        "a_guard_does_not_hear_signals_for_the_agent",
        a_guard_does_not_hear_signals_for_the_agent,
    ),
    (
        "a_guard_holds_nothing_of_the_agent",
        a_guard_holds_nothing_of_the_agent,
    ),
    (
        "a_killed_agent_leaves_no_freeze",
        a_killed_agent_leaves_no_freeze,
    ),
    (
        "what_agent_and_guard_left_is_thawed_at_the_next_start",
        what_agent_and_guard_left_is_thawed_at_the_next_start,
    ),
    (
        "a_folder_that_cannot_be_frozen_is_an_error",
        a_folder_that_cannot_be_frozen_is_an_error,
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some(GUARD_ARGUMENT) => guard_main(),
        Some("agent") => agent(Path::new(&arguments[2])),
        filter => {
            // cargo passes options of the usual harness too.
            let filter = filter.filter(|word| !word.starts_with('-')).unwrap_or("");
            let mut passed = 0;
            for (name, case) in CASES.iter().filter(|(name, _)| name.contains(filter)) {
                let start = Instant::now();
                for fs in [FsType::Ext4, FsType::Xfs] {
                    case(&Frozen::new(fs));
                }
                println!("test {name} ... ok ({} ms)", start.elapsed().as_millis());
                passed += 1;
            }
            println!("test result: ok. {passed} passed; 0 failed");
            ExitCode::SUCCESS
        }
    }
}

/// A mounted filesystem to freeze. At the end it is thawed whatever happened, or nothing could be unmounted.
struct Frozen {
    scratch: Scratch,
    image: File,
    root: Option<File>,
    writers: Mutex<Vec<JoinHandle<()>>>,
}

impl Frozen {
    fn new(fs: FsType) -> Self {
        let scratch = Scratch::new();
        let image = scratch.formatted("a.img", fs, 300 * MIB);
        let (_device, target) = scratch.mounted(&image, fs, "m");
        let root = Some(target.open_folder().unwrap());
        Self {
            scratch,
            image,
            root,
            writers: Mutex::default(),
        }
    }

    fn root(&self) -> &File {
        self.root.as_ref().unwrap()
    }

    fn folder(&self) -> std::path::PathBuf {
        self.scratch.path().join("m")
    }

    /// Starts a write; the receiver hears when it is done.
    fn write(&self, name: &str) -> mpsc::Receiver<Instant> {
        let path = self.folder().join(name);
        let (sender, receiver) = mpsc::channel();
        let writer = thread::spawn(move || {
            write_file(&path, b"x");
            sender.send(Instant::now()).ok();
        });
        self.writers.lock().unwrap().push(writer);
        receiver
    }

    fn is_frozen(&self) -> bool {
        let blocked = self.write("probe").recv_timeout(Duration::from_millis(200));
        blocked.is_err()
    }

    fn agent(&self) -> (Child, Pid) {
        let mut child = Command::new("/proc/self/exe")
            .arg("agent")
            .arg(self.folder())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        let guard = guards_of(child.id()).pop().unwrap();
        (child, guard)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Some(root) = self.root.take() {
            pool::sys::thaw(&root).ok();
        }
        for writer in self.writers.lock().unwrap().drain(..) {
            writer.join().ok();
        }
    }
}

/// Freezes and then waits to be killed.
fn agent(folder: &Path) -> ExitCode {
    let root = File::open(folder).unwrap();
    let _guard = FreezeGuard::freeze(&root).unwrap();
    println!("ready");
    loop {
        thread::park();
    }
}

fn guards_of(parent: u32) -> Vec<Pid> {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    list.split_whitespace()
        .map(|pid| Pid::from_raw(pid.parse().unwrap()))
        .collect()
}

/// A guard that lives holds the mount, which could not be unmounted.
fn wait_for_end(guard: Pid) {
    let end = Instant::now() + Duration::from_secs(10);
    let lives = || {
        fs::read_to_string(format!("/proc/{guard}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    };
    while lives() {
        assert!(Instant::now() < end, "the guard {guard} does not end");
        thread::yield_now();
    }
}

fn own_guard() -> Pid {
    let mine = guards_of(std::process::id());
    let is_guard = |pid: &Pid| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            line.windows(12)
                .any(|part| part == GUARD_ARGUMENT.as_bytes())
        })
    };
    mine.into_iter().find(is_guard).unwrap()
}

fn a_writer_waits_until_the_thaw(frozen: &Frozen) {
    let guard = FreezeGuard::freeze(frozen.root()).unwrap();
    let written = frozen.write("file");
    assert!(written.recv_timeout(Duration::from_millis(300)).is_err());
    let before = Instant::now();
    assert!(guard.thaw().unwrap());
    let ours = guards_of(std::process::id());
    assert!(ours.is_empty(), "the guard would still hold the mount");
    assert!(written.recv_timeout(Duration::from_secs(10)).unwrap() > before);
}

fn dropping_the_guard_thaws(frozen: &Frozen) {
    drop(FreezeGuard::freeze(frozen.root()).unwrap());
    assert!(!frozen.is_frozen());
}

fn a_freeze_that_lasts_too_long_is_undone_and_reported(frozen: &Frozen) {
    let start = Instant::now();
    let guard = FreezeGuard::freeze(frozen.root()).unwrap();
    let written = frozen.write("file");
    let done = written.recv_timeout(LONGEST * 3).unwrap();
    let took = done - start;
    assert!(took < LONGEST + Duration::from_secs(1), "{took:?}");
    assert!(took > LONGEST - Duration::from_secs(1), "{took:?}");
    assert!(!guard.thaw().unwrap());
}

fn a_second_freeze_is_busy(frozen: &Frozen) {
    let guard = FreezeGuard::freeze(frozen.root()).unwrap();
    let error = FreezeGuard::freeze(frozen.root()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(guard.thaw().unwrap());
}

fn a_killed_guard_is_noticed_and_its_freeze_undone(frozen: &Frozen) {
    let guard = FreezeGuard::freeze(frozen.root()).unwrap();
    kill(own_guard(), Signal::SIGKILL).unwrap();
    assert!(!guard.thaw().unwrap());
    assert!(!frozen.is_frozen());
}

fn a_guard_does_not_hear_signals_for_the_agent(frozen: &Frozen) {
    let guard = FreezeGuard::freeze(frozen.root()).unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(own_guard(), signal).unwrap();
    }
    assert!(frozen.is_frozen());
    assert!(guard.thaw().unwrap());
}

fn a_guard_holds_nothing_of_the_agent(frozen: &Frozen) {
    // A descriptor without close-on-exec, as whoever starts us may leave it.
    let leaked = nix::unistd::dup(frozen.root()).unwrap();
    let guard = FreezeGuard::freeze(frozen.root()).unwrap();
    let open: Vec<i32> = fs::read_dir(format!("/proc/{}/fd", own_guard()))
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    assert!(open.len() <= 5, "{open:?}");
    assert!(guard.thaw().unwrap());
    assert!(leaked.as_raw_fd() > 2);
}

fn a_killed_agent_leaves_no_freeze(frozen: &Frozen) {
    let (mut agent, guard) = frozen.agent();
    let written = frozen.write("file");
    assert!(written.recv_timeout(Duration::from_millis(200)).is_err());
    let killed = Instant::now();
    agent.kill().unwrap();
    let took = written.recv_timeout(LONGEST).unwrap() - killed;
    assert!(took < Duration::from_secs(1), "{took:?}");
    agent.wait().unwrap();
    wait_for_end(guard);
}

fn what_agent_and_guard_left_is_thawed_at_the_next_start(frozen: &Frozen) {
    let (mut agent, guard) = frozen.agent();
    kill(guard, Signal::SIGKILL).unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    wait_for_end(guard);
    assert!(frozen.is_frozen());
    let pool = ImageKey::of(&frozen.image).unwrap().device;
    assert_eq!(thaw_all(pool).unwrap(), 1);
    assert!(!frozen.is_frozen());
    assert_eq!(thaw_all(pool).unwrap(), 0);
}

fn a_folder_that_cannot_be_frozen_is_an_error(_frozen: &Frozen) {
    let error = FreezeGuard::freeze(&File::open("/proc").unwrap()).unwrap_err();
    assert_eq!(error.errno(), Some(libc::EOPNOTSUPP), "{error}");
}
