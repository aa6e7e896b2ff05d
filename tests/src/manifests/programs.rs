//! Our own programs as processes, with the flags and exactly the rights of `deploy/vd-csi.yaml`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::api_server::{ApiServer, User};
use super::documents::shipped;
use crate::{binaries, tools};

/// A program that was started. Stopped when it goes out of scope.
#[derive(Debug)]
pub struct Program {
    child: Child,
    log: PathBuf,
    address: String,
}

impl Program {
    /// The agent of `node` on the pool `pool`, in a pod of that node. Its sockets and its log are in `folder`.
    #[must_use]
    pub fn agent(server: &ApiServer, node: &str, pool: &Path, folder: &Path) -> Self {
        let kubelet = folder.join("kubelet");
        std::fs::create_dir_all(kubelet.join("plugins_registry")).expect("kubelet's folder");
        let address = server.free_address(9809);
        let arguments = arguments("DaemonSet", "csi-node")
            .into_iter()
            // The supervisor is for the first process of a container; the test watches the agent itself.
            .filter(|argument| argument != "--supervise")
            .map(|argument| {
                argument
                    .replace("$(NODE_NAME)", node)
                    .replace("/var/lib/kubelet", &kubelet.display().to_string())
                    .replace("/var/vd", &pool.display().to_string())
                    .replace("[::]:9809", &address)
            })
            .collect();
        let user = User::Token(token(server, "csi-node", node));
        Self::start(server, "csi-node", arguments, &user, folder, address)
    }

    /// csi-controller, which listens on `folder`/controller.sock.
    #[must_use]
    pub fn controller(server: &ApiServer, node: &str, folder: &Path) -> Self {
        let socket = folder.join("controller.sock").display().to_string();
        let address = server.free_address(9810);
        let arguments = arguments("Deployment", "csi-controller")
            .into_iter()
            .map(|argument| {
                argument
                    .replace("/run/csi/csi.sock", &socket)
                    .replace("[::]:9810", &address)
            })
            .collect();
        let user = User::Token(token(server, "csi-controller", node));
        Self::start(server, "csi-controller", arguments, &user, folder, address)
    }

    fn start(
        server: &ApiServer,
        name: &str,
        arguments: Vec<String>,
        user: &User,
        folder: &Path,
        address: String,
    ) -> Self {
        let log = folder.join(name).with_extension("log");
        let file = std::fs::File::create(&log).expect("a log");
        let mut command = Command::new(binaries::program(name));
        let _command = command
            .args(arguments)
            .arg(format!(
                "--kubeconfig={}",
                server.kubeconfig(user).display()
            ))
            // Events that cannot be written are logged as details.
            .env("VD_LOG", "info,csi_node=debug,csi_controller=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        let child = tools::start(&mut command).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self {
            child,
            log,
            address,
        }
    }

    /// What it wrote to its log.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log")
    }

    /// The status and the body of `GET path`; nothing while nobody listens.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .ok()?;
        let host = &self.address;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        let _bytes = stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended by itself is waited for all the same.
        let _killed = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            // What it said tells why; the log goes with the test.
            eprintln!("{}", self.said());
        }
    }
}

/// The shipped arguments of a container.
fn arguments(kind: &str, container: &str) -> Vec<String> {
    let objects = shipped();
    let object = objects
        .iter()
        .find(|object| object["kind"] == kind)
        .expect("it is shipped");
    let containers = object["spec"]["template"]["spec"]["containers"].as_array();
    let mut containers = containers.expect("containers").iter();
    let found = containers
        .find(|found| found["name"] == container)
        .expect("the container");
    let arguments = found["args"].as_array().expect("arguments").iter();
    arguments
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// A token as the kubelet projects it into a pod of `node`.
fn token(server: &ApiServer, account: &str, node: &str) -> String {
    let name = format!("{account}-{node}");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "vd-csi"},
        "spec": {"nodeName": node, "serviceAccountName": account, "containers": [{"name": "c", "image": "i"}]},
    });
    let _output = server.send(&User::Admin, &["create"], &pod).ok();
    let bound = format!("--bound-object-name={name}");
    let arguments = [
        "-n",
        "vd-csi",
        "create",
        "token",
        account,
        "--bound-object-kind=Pod",
        &bound,
    ];
    server
        .kubectl(&User::Admin, &arguments)
        .ok()
        .trim()
        .to_owned()
}
