//! The program as it is shipped.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;

pub struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    pub metrics: String,
}

impl Program {
    /// Started with these arguments and a short pause after failures.
    pub async fn start(kubeconfig: &Path, socket: &Path, more: &[&str]) -> Self {
        Self::start_in(&[], kubeconfig, socket, more).await
    }

    /// The same in an environment with these variables.
    pub async fn start_in(
        environment: &[(&str, &Path)],
        kubeconfig: &Path,
        socket: &Path,
        more: &[&str],
    ) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_snapshotter"))
            .envs(environment.iter().copied())
            .arg(format!("--csi-address=unix://{}", socket.display()))
            .args([
                "--metrics-listen=127.0.0.1:0",
                "--log-json",
                "--retry-interval-start=0.1",
                "--retry-interval-max=1",
                "--refused-interval-max=1",
            ])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(more)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut program = Self {
            child,
            lines,
            metrics: String::new(),
        };
        let line = program.says("started").await;
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        program.metrics = line["fields"]["metrics"].as_str().unwrap().to_owned();
        program
    }

    /// The next line of the log with this text.
    pub async fn says(&mut self, text: &str) -> String {
        let waiting = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("it goes on");
                if line.contains(text) {
                    return line;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting)
            .await
            .unwrap_or_else(|_| panic!("it never says {text:?}"))
    }

    /// Reads the log beside, so that the pipe never fills.
    pub fn quiet(mut self) -> Quiet {
        let log = watch::Sender::new(Vec::new());
        let kept = log.clone();
        let lines = tokio::spawn(async move {
            while let Ok(Some(line)) = self.lines.next_line().await {
                if std::env::var_os("VD_TEST_LOG").is_some() {
                    eprintln!("{line}");
                }
                kept.send_modify(|log| log.push(line));
            }
        });
        Quiet {
            child: self.child,
            metrics: self.metrics,
            lines,
            log,
        }
    }
}

pub struct Quiet {
    child: Child,
    metrics: String,
    lines: tokio::task::JoinHandle<()>,
    log: watch::Sender<Vec<String>>,
}

impl Quiet {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Returns once this text was so often in its log.
    pub async fn said(&self, text: &str, times: usize) {
        let mut log = self.log.subscribe();
        let often = |log: &Vec<String>| log.iter().filter(|line| line.contains(text)).count();
        let waiting = log.wait_for(|log| often(log) >= times);
        let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert!(waited.is_ok(), "it never says {text:?} {times} times");
    }

    pub async fn get(&self, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(&self.metrics).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Returns once it follows the API server, as who asks for its readiness is told.
    pub async fn ready(&self) {
        let waiting = async {
            while !self.get("/readyz").await.contains("200 OK") {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert!(waited.is_ok(), "it is never ready");
    }

    /// As a pod is stopped.
    pub async fn stop(mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        assert!(ended.expect("it ends").unwrap().success());
        self.lines.await.unwrap();
    }

    /// Stops it for a while, as a machine that is held up does, or lets it go on.
    pub fn hold_up(&self, held: bool) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.id()).unwrap());
        let signal = if held {
            nix::sys::signal::Signal::SIGSTOP
        } else {
            nix::sys::signal::Signal::SIGCONT
        };
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Returns when it has ended by itself: whether that was as it should.
    pub async fn ended(mut self) -> bool {
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        ended.expect("it ends").unwrap().success()
    }

    /// As a machine is lost.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
        self.lines.await.unwrap();
    }
}
