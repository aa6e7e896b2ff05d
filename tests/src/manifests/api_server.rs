//! A real kube-apiserver with its etcd and nothing else: no controllers, no nodes. It starts in seconds, and says whether an
//! object is accepted, whether a policy refuses a write, and who may do what.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tools::{self, Ran};
use crate::{binaries, wait};

/// From its start to `readyz`, on a machine that does other things as well.
const READY: Duration = Duration::from_secs(120);
const TOKEN: &str = "administrator";

/// Whom the API server takes a request to be from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// A cluster administrator.
    Admin,
    /// Another user, as an administrator can pretend to be.
    Named(String),
    /// A service account of the namespace `vd-csi`, in a pod on `node`.
    Account {
        /// Its name.
        name: &'static str,
        /// The node, as the API server writes it into the tokens of pods.
        node: Option<&'static str>,
    },
    /// Whoever has this token.
    Token(String),
}

impl User {
    fn kubeconfig_user(&self) -> Value {
        match self {
            Self::Admin => json!({"token": TOKEN}),
            Self::Token(token) => json!({"token": token}),
            Self::Named(name) => json!({"token": TOKEN, "as": name}),
            Self::Account { name, node } => {
                let mut user =
                    json!({"token": TOKEN, "as": format!("system:serviceaccount:vd-csi:{name}")});
                if let Some(node) = node {
                    user["as-user-extra"] =
                        json!({"authentication.kubernetes.io/node-name": [node]});
                }
                user
            }
        }
    }
}

/// A running API server. Stopped when it goes out of scope.
#[derive(Debug)]
pub struct ApiServer {
    address: Ipv4Addr,
    folder: TempDir,
    // Stopped in this order: the API server complains about a database that is gone.
    children: Vec<(&'static str, Child)>,
}

impl ApiServer {
    /// Starts one, and waits until it is ready.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with more arguments, and waits until it is ready.
    #[must_use]
    pub fn start_with(more: &[String]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut server = Self {
            address: own_address(),
            folder,
            children: Vec::new(),
        };
        server.make_keys();
        server.spawn("etcd", &server.etcd());
        server.spawn("kube-apiserver", &[&server.apiserver(), more].concat());
        server.wait_ready();
        server
    }

    /// The same, with `deploy/vd-csi.yaml` applied.
    #[must_use]
    pub fn with_driver() -> Self {
        let server = Self::start();
        let manifest = super::documents::deploy("vd-csi.yaml");
        let _output = server
            .kubectl(
                &User::Admin,
                &["apply", "-f", &manifest.display().to_string()],
            )
            .ok();
        server.wait_established();
        server
    }

    /// Runs `kubectl` as `user`.
    #[must_use]
    pub fn kubectl(&self, user: &User, arguments: &[&str]) -> Ran {
        let kubeconfig = self.kubeconfig(user);
        let mut all = vec!["--kubeconfig".to_owned(), kubeconfig.display().to_string()];
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        tools::attempt(program("kubectl"), &all)
    }

    /// `kubectl VERB -f -` with one object, as `user`.
    #[must_use]
    pub fn send(&self, user: &User, verb: &[&str], object: &Value) -> Ran {
        let file = tempfile::NamedTempFile::new_in(self.folder.path()).expect("a file");
        std::fs::write(file.path(), object.to_string()).expect("write an object");
        let path = file.path().display().to_string();
        self.kubectl(user, &[verb, &["-f", &path]].concat())
    }

    /// An address that only processes of this test use.
    #[must_use]
    pub fn free_address(&self, port: u16) -> String {
        format!("{}:{port}", self.address)
    }

    /// Waits until every custom resource of an installed definition is served.
    pub fn wait_established(&self) {
        let wait = [
            "wait",
            "--for=condition=Established",
            "crd",
            "--all",
            "--timeout=60s",
        ];
        let _output = self.kubectl(&User::Admin, &wait).ok();
    }

    /// A kubeconfig of `user`.
    #[must_use]
    pub fn kubeconfig(&self, user: &User) -> PathBuf {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            // Its certificate is made by itself at its start; the address is one that only this test uses.
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://{}:6443", self.address), "insecure-skip-tls-verify": true}}],
            "users": [{"name": "test", "user": user.kubeconfig_user()}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        })
        .to_string();
        let name = blake3::hash(config.as_bytes()).to_hex();
        let path = self.path(&format!("{name}.kubeconfig"));
        if !path.exists() {
            std::fs::write(&path, config).expect("write a kubeconfig");
        }
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn make_keys(&self) {
        let (key, public) = (self.shown("tokens.key"), self.shown("tokens.pub"));
        let curve = "ec_paramgen_curve:P-256";
        let _quiet = tools::run(
            "openssl",
            &[
                "genpkey",
                "-algorithm",
                "EC",
                "-pkeyopt",
                curve,
                "-out",
                &key,
            ],
        );
        let _quiet = tools::run(
            "openssl",
            &["pkey", "-pubout", "-in", &key, "-out", &public],
        );
        let tokens = format!("{TOKEN},admin,admin,\"system:masters\"\n");
        std::fs::write(self.path("tokens.csv"), tokens).expect("write the tokens");
    }

    fn etcd_url(&self) -> String {
        format!("http://{}:2379", self.address)
    }

    fn etcd(&self) -> Vec<String> {
        let (client, peer) = (self.etcd_url(), format!("http://{}:2380", self.address));
        vec![
            format!("--data-dir={}", self.shown("etcd")),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            // The data need not survive the machine.
            "--unsafe-no-fsync".to_owned(),
        ]
    }

    fn apiserver(&self) -> Vec<String> {
        vec![
            format!("--etcd-servers={}", self.etcd_url()),
            format!("--bind-address={}", self.address),
            format!("--advertise-address={}", self.address),
            "--secure-port=6443".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            format!("--cert-dir={}", self.shown("certificates")),
            format!("--token-auth-file={}", self.shown("tokens.csv")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", self.shown("tokens.pub")),
            format!(
                "--service-account-signing-key-file={}",
                self.shown("tokens.key")
            ),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--allow-privileged=true".to_owned(),
            // Service accounts of new namespaces are made by a controller, and finalizers of claims and volumes are taken off
            // by one. There is none.
            "--disable-admission-plugins=ServiceAccount,StorageObjectInUseProtection".to_owned(),
        ]
    }

    fn spawn(&mut self, name: &'static str, arguments: &[String]) {
        let log = std::fs::File::create(self.path(name).with_extension("log")).expect("a log");
        let mut command = Command::new(program(name));
        let _command = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = tools::start(&mut command).unwrap_or_else(|error| panic!("{name}: {error}"));
        self.children.insert(0, (name, child));
    }

    fn wait_ready(&mut self) {
        let mut dead = None;
        let ready = wait::holds_within(READY, || {
            dead = self.children.iter_mut().find_map(|(name, child)| {
                let ended = child.try_wait().expect("a child's state");
                ended.map(|_status| *name)
            });
            dead.is_some()
                || self
                    .kubectl(&User::Admin, &["get", "--raw", "/readyz"])
                    .code
                    == Some(0)
        });
        if let Some(name) = dead {
            let log = std::fs::read_to_string(self.path(name).with_extension("log"));
            panic!("{name} has ended: {}", log.unwrap_or_default());
        }
        assert!(ready, "the API server is not ready after {READY:?}");
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for (_name, child) in &mut self.children {
            // One that has ended by itself is waited for all the same.
            let _killed = child.kill();
            let _status = child.wait();
        }
    }
}

/// An address of the loopback network for this process and this server, so that ports are free by construction.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let server = NEXT.fetch_add(1, Ordering::Relaxed) % 4;
    // 22 bits of process id, 2 bits of server; never the network of 127.0.0.1.
    let mixed = (u32::from(high & 0x3f) << 16 | u32::from(middle) << 8 | u32::from(low)) << 2;
    let [_, a, b, c] = (mixed | u32::from(server)).to_be_bytes();
    Ipv4Addr::new(127, a | 0x80, b, c)
}

/// A program of the test cluster.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let usual = || binaries::project().join(".cache/cluster/bin");
    let folder = std::env::var_os("VD_CLUSTER_BIN").map_or_else(usual, PathBuf::from);
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "there is no {}: run `make cluster-tools` first",
        path.display()
    );
    path
}

/// The definitions of the upstream `VolumeSnapshot` and its kin, from the Go module of its client.
#[must_use]
pub fn snapshot_definitions() -> PathBuf {
    let bin = program("kubectl");
    let crd = bin
        .parent()
        .and_then(Path::parent)
        .expect("bin lies in a folder")
        .join("crd");
    assert!(
        crd.is_dir(),
        "there is no {}: run `make cluster-tools` first",
        crd.display()
    );
    crd
}
