//! `vdctl serve` as a child process: started, waited for, killed, started again.

use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::Client;
use crate::{binaries, tools, wait};

/// Longest wait for a server to start, become ready or stop.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The environment variable by which the processes of one test are found again.
pub const MARK: &str = "VD_TEST_FOLDER";

/// How to start a server.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The program; the shipped one unless a fault is wanted.
    pub program: PathBuf,
    /// The pool's folder.
    pub pool: PathBuf,
    /// The socket.
    pub socket: PathBuf,
    /// The test's folder: holds the log and marks the process.
    pub folder: PathBuf,
    /// The node's name.
    pub node: String,
    /// More arguments of `vdctl serve`.
    pub arguments: Vec<String>,
    /// More environment, for example `VD_FAULT`.
    pub environment: Vec<(String, String)>,
}

impl Setup {
    /// A server for the pool in `folder`/pool that listens in `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            program: binaries::shipped(),
            pool: folder.join("pool"),
            socket: folder.join("csi.sock"),
            folder: folder.to_owned(),
            node: "test-node".to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// The same, stopped or failed by `fault` (`<step>:<action>`, see `pool::fault`).
    #[must_use]
    pub fn with_fault(mut self, fault: &str) -> Self {
        self.program = binaries::with_faults();
        self.environment = vec![("VD_FAULT".to_owned(), fault.to_owned())];
        self
    }

    fn log(&self) -> PathBuf {
        let name = self.socket.file_stem().unwrap_or_default();
        self.folder.join(name).with_extension("log")
    }
}

/// A server that was started. Killed when it goes out of scope.
#[derive(Debug)]
pub struct Server {
    setup: Setup,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Server {
    /// Starts the process and does not wait for anything.
    #[track_caller]
    #[must_use]
    pub fn spawn(setup: Setup) -> Self {
        let log = open_log(&setup.log());
        let listen = format!("unix://{}", setup.socket.display());
        let mut command = Command::new(&setup.program);
        let _command = command
            .arg("serve")
            .arg("--pool")
            .arg(&setup.pool)
            .args(["--listen", &listen, "--node-id", &setup.node])
            .args(&setup.arguments)
            .env(MARK, &setup.folder)
            .env_remove("VD_FAULT")
            .envs(setup.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log);
        let child = tools::start(&mut command)
            .unwrap_or_else(|error| panic!("start {}: {error}", setup.program.display()));
        Self {
            setup,
            child,
            ended: None,
        }
    }

    /// Starts a server and waits until it answers and is ready.
    #[track_caller]
    #[must_use]
    pub fn start(setup: Setup) -> Self {
        let mut server = Self::spawn(setup);
        server.wait_ready();
        server
    }

    /// How it was started.
    #[must_use]
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new connection.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(&self) -> Result<Client, tonic::transport::Error> {
        Client::connect(&self.setup.socket)
    }

    /// A new connection to a server that is known to run.
    #[track_caller]
    #[must_use]
    pub fn client(&self) -> Client {
        self.connect()
            .unwrap_or_else(|error| panic!("connect: {error:?}\n{}", self.log_tail()))
    }

    /// Waits until somebody answers Probe on the socket. The answer may be an error.
    #[track_caller]
    pub fn wait_answering(&mut self) {
        self.wait_for("the server answers", |client| {
            !matches!(client.probe(), Err(status) if status.code() == tonic::Code::Unknown)
        });
    }

    /// Waits until Probe says ready.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        self.wait_for("the server is ready", Client::is_ready);
    }

    /// Waits until Probe says anything else than ready.
    #[track_caller]
    pub fn wait_not_ready(&mut self) {
        self.wait_for("the server is not ready", |client| !client.is_ready());
    }

    #[track_caller]
    fn wait_for(&mut self, what: &str, mut condition: impl FnMut(&Client) -> bool) {
        let mut ended = None;
        let held = wait::holds_within(PATIENCE, || {
            ended = self.has_ended();
            ended.is_some() || self.connect().is_ok_and(|client| condition(&client))
        });
        let answered = held && ended.is_none();
        assert!(
            answered,
            "{what}: not within {PATIENCE:?} (ended: {ended:?})\n{}",
            self.log_tail()
        );
    }

    /// How the process ended, if it did.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("look at the server process");
        }
        self.ended
    }

    /// Waits until the process has ended by itself.
    #[track_caller]
    pub fn wait_end(&mut self) -> ExitStatus {
        let held = wait::holds_within(PATIENCE, || self.has_ended().is_some());
        assert!(held, "the server does not end\n{}", self.log_tail());
        self.ended.expect("it has ended")
    }

    /// Waits for the process to die of the injected fault.
    #[track_caller]
    pub fn wait_killed(&mut self) {
        let status = self.wait_end();
        assert_eq!(
            status.signal(),
            Some(Signal::SIGKILL as i32),
            "ended by {status}, not by the injected fault\n{}",
            self.log_tail()
        );
    }

    /// `kill -9`, of this process only.
    pub fn kill(&mut self) {
        if self.has_ended().is_none() {
            self.child.kill().expect("kill the server");
            self.ended = Some(self.child.wait().expect("collect the server"));
        }
    }

    /// `kill -9` of the server and everything it started, as the end of a container does.
    pub fn kill_tree(&mut self) {
        self.kill();
        self.kill_marked();
    }

    fn kill_marked(&self) {
        for pid in processes_of(&self.setup.folder) {
            let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_end()
    }

    /// Sends `signal` to the running server.
    #[track_caller]
    pub fn signal(&mut self, signal: Signal) {
        if self.has_ended().is_none() {
            let pid = i32::try_from(self.child.id()).expect("a process id");
            kill(Pid::from_raw(pid), signal).expect("signal the server");
        }
    }

    /// Starts it again, after it has ended; as shipped, without the fault.
    #[track_caller]
    pub fn start_again(&mut self) {
        let mut setup = self.setup.clone();
        if setup.environment.iter().any(|(name, _)| name == "VD_FAULT") {
            setup.environment.retain(|(name, _)| name != "VD_FAULT");
            setup.program = binaries::shipped();
        }
        self.start_as(setup);
        self.wait_ready();
    }

    /// Starts it again differently, and does not wait.
    #[track_caller]
    pub fn start_as(&mut self, setup: Setup) {
        self.kill();
        *self = Self::spawn(setup);
    }

    /// Everything the server has written.
    #[must_use]
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.setup.log()).unwrap_or_default()
    }

    /// The end of what it has written, for messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(40);
        format!("--- server log\n{}\n---", lines[from..].join("\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _already_gone = self.child.kill();
            let _status = self.child.wait();
        }
        if std::thread::panicking() {
            self.kill_marked();
            eprintln!("{}", self.log_tail());
        }
    }
}

fn open_log(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap_or_else(|error| panic!("open {}: {error}", path.display()))
}

/// The processes that were started for the test in `folder`: they carry its mark in their environment.
#[must_use]
pub fn processes_of(folder: &Path) -> Vec<i32> {
    let mark = format!("{MARK}={}", folder.display());
    let entries = std::fs::read_dir("/proc").expect("list processes");
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            // A process that ends while we look, or a zombie, has no environment any more.
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|one| one == mark.as_bytes())
        })
        .collect()
}
