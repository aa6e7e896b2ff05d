//! A node: a disk of its own, kubelet's folder, and the agent as a process. Gone when a test ends, also when it panics.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use api::LocalPool;
use kube::{Api, Client};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::csi::v1::identity_client::IdentityClient;
use proto::csi::v1::node_client::NodeClient;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::{objects, plane, proxy::Proxy};

/// How long the kernel may take to end a process that was killed.
const ENDED: Duration = Duration::from_secs(60);

pub struct Machine {
    folder: TempDir,
    pub name: String,
    pub client: Client,
    kubeconfig: PathBuf,
    agent: Option<Child>,
}

impl Machine {
    /// A node whose disk is empty; no agent runs yet.
    pub async fn new() -> Self {
        Self::named(&format!("node-{}", uuid::Uuid::new_v4())).await
    }

    /// The same, of this name. No two may have one.
    pub async fn named(name: &str) -> Self {
        let client = plane::client().await;
        let folder = TempDir::with_prefix_in("vd-agent-", "/var/tmp").unwrap();
        let path = folder.path();
        for below in [
            "pool",
            "kubelet/plugins_registry",
            "kubelet/plugins",
            "kubelet/pods",
        ] {
            fs::create_dir_all(path.join(below)).unwrap();
        }
        let disk = path.join("disk.img");
        File::create(&disk).unwrap().set_len(4 << 30).unwrap();
        run("mkfs.xfs", &["-q", "-m", "reflink=1", "-K", text(&disk)]);
        run(
            "mount",
            &["-o", "loop", text(&disk), text(&path.join("pool"))],
        );
        Self {
            name: name.to_owned(),
            kubeconfig: plane::plane().kubeconfig.clone(),
            folder,
            client,
            agent: None,
        }
    }

    /// A node whose agent runs and has made its pool.
    pub async fn started() -> Self {
        let mut machine = Self::new().await;
        machine.start();
        machine
            .pool_says(|pool| objects::is(pool, "Ready", "True"))
            .await;
        machine
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn pool(&self) -> PathBuf {
        self.path().join("pool")
    }

    pub fn kubelet(&self) -> PathBuf {
        self.path().join("kubelet")
    }

    fn socket(&self) -> PathBuf {
        self.kubelet().join("plugins/csi.sock")
    }

    /// The agent reaches the API server through a proxy from its next start on.
    pub async fn behind_proxy(&mut self, open: bool) -> Proxy {
        let text = fs::read_to_string(&plane::plane().kubeconfig).unwrap();
        let (_, rest) = text.split_once("https://").unwrap();
        let (server, _) = rest.split_once('\'').unwrap();
        let proxy = Proxy::to(server.parse::<SocketAddr>().unwrap(), open).await;
        self.kubeconfig = self.path().join("kubeconfig");
        fs::write(
            &self.kubeconfig,
            text.replace(server, &proxy.address.to_string()),
        )
        .unwrap();
        proxy
    }

    pub fn start(&mut self) {
        assert!(self.agent.is_none());
        self.start_with(0, &[]);
    }

    /// The same, with metrics on this port and with more arguments.
    pub fn start_with(&mut self, port: u16, more: &[&str]) {
        let arguments = [&["--supervise"], more].concat();
        self.agent = Some(self.spawn("csi.sock", port, &arguments));
    }

    /// One more agent on the same node and pool.
    pub fn spawn(&self, socket: &str, port: u16, more: &[&str]) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path().join(format!("{socket}.log")))
            .unwrap();
        let listen = self.kubelet().join("plugins").join(socket);
        Command::new(env!("CARGO_BIN_EXE_csi-node"))
            .args(["--node-id", &self.name, "--pool", text(&self.pool())])
            .args(["--listen", &format!("unix://{}", listen.display())])
            .args(["--kubelet-dir", text(&self.kubelet())])
            .args(["--metrics-listen", &format!("127.0.0.1:{port}")])
            .args(["--kubeconfig", text(&self.kubeconfig)])
            .args(more)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// As kubelet stops a pod.
    pub fn stop(&mut self) {
        let mut agent = self.agent.take().unwrap();
        kill(pid(&agent), Signal::SIGTERM).unwrap();
        let status = agent.wait().unwrap();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// As the kernel kills a container: the supervisor, and with it the agent.
    pub fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        for child in children(agent.id()) {
            kill(Pid::from_raw(child), Signal::SIGKILL).ok();
        }
        agent.wait().unwrap();
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path().join("csi.sock.log")).unwrap_or_default()
    }

    /// Waits until the LocalPool of this node is as `wanted`.
    pub async fn pool_says(&self, wanted: impl Fn(&LocalPool) -> bool) -> LocalPool {
        let pools: Api<LocalPool> = Api::all(self.client.clone());
        objects::when(&pools, &self.name, wanted, || self.log()).await
    }

    async fn channel(&self) -> Channel {
        let address = format!("unix://{}", self.socket().display());
        let endpoint = Endpoint::from_shared(address).unwrap();
        for _ in 0..600 {
            if let Ok(channel) = endpoint.connect().await {
                return channel;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the agent does not serve its socket:\n{}", self.log());
    }

    pub async fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel().await)
    }

    pub async fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.channel().await)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            let children = children(agent.id());
            for child in &children {
                kill(Pid::from_raw(*child), Signal::SIGKILL).ok();
            }
            agent.kill().ok();
            agent.wait().ok();
            // Until then they hold files of the pool, which could not be unmounted.
            let end = Instant::now() + ENDED;
            while children.iter().any(|child| runs(*child)) && Instant::now() < end {
                std::thread::yield_now();
            }
        }
        let pool = self.pool();
        let mut mounts: Vec<String> = fs::read_to_string("/proc/self/mounts")
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.split(' ').nth(1).map(str::to_owned))
            .filter(|place| Path::new(place).starts_with(self.path()))
            .collect();
        mounts.reverse();
        for place in mounts.iter().filter(|place| Path::new(place) != pool) {
            Command::new("umount").arg(place).status().ok();
        }
        let listed = Command::new("losetup")
            .args(["-n", "-O", "NAME,BACK-FILE"])
            .output();
        let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        for line in listed.unwrap_or_default().lines() {
            let mut fields = line.split_whitespace();
            if let (Some(name), Some(file)) = (fields.next(), fields.next())
                && Path::new(file).starts_with(&pool)
            {
                Command::new("losetup").args(["-d", name]).status().ok();
            }
        }
        Command::new("umount").arg(&pool).status().ok();
    }
}

/// Whether a thread of a process has not ended yet. Zombies hold no files, but a process is one when its first thread is.
fn runs(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    threads.into_iter().flatten().flatten().any(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_some_and(|state| !state.starts_with(['Z', 'X']))
    })
}

fn children(parent: u32) -> Vec<i32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}
