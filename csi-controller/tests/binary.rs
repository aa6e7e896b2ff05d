//! The program itself: its socket, its probes, its end. Against a real API server; a small agent in the test plays the node.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests: a panic is how they report"
)]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use proto::csi::v1::controller_client::ControllerClient;
use proto::csi::v1::identity_client::IdentityClient;
use proto::csi::v1::{DeleteVolumeRequest, ProbeRequest};
use support::agent::{Agent, MIB};
use support::driver::request;
use support::plane::{client, plane};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint};

struct Program {
    child: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStderr>>,
    metrics: String,
}

impl Program {
    /// The program, once it says that it serves.
    async fn start(socket: &Path, kubeconfig: &Path) -> Program {
        let mut child = Command::new(env!("CARGO_BIN_EXE_csi-controller"))
            .arg(format!("--listen=unix://{}", socket.display()))
            .args([
                "--metrics-listen=127.0.0.1:0",
                "--snapshot-class=",
                "--log-json",
                "--kubeconfig",
            ])
            .arg(kubeconfig)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut program = Program {
            child,
            lines,
            metrics: String::new(),
        };
        let line = program.says("serving").await;
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        program.metrics = line["fields"]["metrics"].as_str().unwrap().to_owned();
        program
    }

    async fn says(&mut self, text: &str) -> String {
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
            .expect("in time")
    }

    async fn get(&self, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(&self.metrics).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn stop(mut self) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGTERM,
        )
        .unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        assert!(ended.expect("it ends").unwrap().success());
    }
}

async fn connect(socket: &Path) -> Channel {
    let address = format!("unix://{}", socket.display());
    Endpoint::from_shared(address)
        .unwrap()
        .connect()
        .await
        .unwrap()
}

async fn is_ready(channel: &Channel) -> bool {
    let answer = IdentityClient::new(channel.clone())
        .probe(ProbeRequest {})
        .await
        .unwrap();
    answer.into_inner().ready.unwrap()
}

#[tokio::test]
async fn it_serves_its_socket_tells_that_it_is_ready_and_ends_when_told() {
    let client = client().await;
    let _agent = Agent::start(&client, "binary-1", 50 * MIB).await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sub/csi.sock");
    let program = Program::start(&socket, &plane().kubeconfig).await;
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let channel = connect(&socket).await;
    // The first calls may come before it knows anything.
    let begun = std::time::Instant::now();
    while !is_ready(&channel).await {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it becomes ready"
        );
        tokio::task::yield_now().await;
    }
    let mut controller = ControllerClient::new(channel.clone());
    let made = controller
        .create_volume(request("binary", MIB, &["binary-1"]))
        .await
        .unwrap();
    let volume_id = made.into_inner().volume.unwrap().volume_id;
    assert!(program.get("/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(program.get("/healthz").await.starts_with("HTTP/1.1 200"));
    let metrics = program.get("/metrics").await;
    assert!(
        metrics.contains(
            "vd_grpc_requests_total{service=\"csi.v1.Controller\",method=\"CreateVolume\""
        ),
        "{metrics}"
    );
    let request = DeleteVolumeRequest {
        volume_id,
        ..DeleteVolumeRequest::default()
    };
    controller.delete_volume(request).await.unwrap();
    program.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn without_an_api_server_it_lives_and_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let text = "{apiVersion: v1, kind: Config, current-context: t, contexts: [{name: t, context: {cluster: t, user: t}}], \
                users: [{name: t, user: {token: t}}], clusters: [{name: t, cluster: {server: 'http://127.0.0.1:9'}}]}";
    std::io::Write::write_all(
        &mut std::fs::File::create(&kubeconfig).unwrap(),
        text.as_bytes(),
    )
    .unwrap();
    let socket = folder.path().join("csi.sock");
    let program = Program::start(&socket, &kubeconfig).await;
    let channel = connect(&socket).await;
    assert!(!is_ready(&channel).await);
    let answer = program.get("/readyz").await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("API server"),
        "{answer}"
    );
    assert!(program.get("/healthz").await.starts_with("HTTP/1.1 200"));
    let refused = ControllerClient::new(channel)
        .create_volume(request("nobody", MIB, &["n"]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    program.stop().await;
}
