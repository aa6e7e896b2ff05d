//! A real etcd and kube-apiserver for one test binary.
//!
//! They are children of a shell that waits for the end of its standard input. However the test process ends, that pipe closes
//! with it; the shell then stops both and removes their folder.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

const TOKEN: &str = "test";

const SCRIPT: &str = r#"
cd "$FOLDER"
openssl genrsa -out sa.key 2048 2>/dev/null
echo "test,admin,admin,system:masters" > tokens
keep() {
  "$BIN/etcd" --data-dir etcd --unsafe-no-fsync --log-level error \
    --listen-client-urls "http://127.0.0.1:$ETCD" --advertise-client-urls "http://127.0.0.1:$ETCD" \
    --listen-peer-urls "http://127.0.0.1:0" >>etcd.log 2>&1 </dev/null &
  etcd=$!
}
serve() {
  "$BIN/kube-apiserver" --etcd-servers "http://127.0.0.1:$ETCD" --bind-address 127.0.0.1 --secure-port "$PORT" --cert-dir certs \
    --token-auth-file tokens --authorization-mode AlwaysAllow --service-account-issuer https://test \
    --service-account-key-file sa.key --service-account-signing-key-file sa.key --service-cluster-ip-range 10.0.0.0/24 \
    --endpoint-reconciler-type none --disable-admission-plugins ServiceAccount,NamespaceLifecycle,StorageObjectInUseProtection \
    >>apiserver.log 2>&1 </dev/null &
  apiserver=$!
}
keep
serve
while read -r what; do
  kill -9 $apiserver
  wait $apiserver
  if [ "$what" != again ]; then
    kill $etcd
    wait $etcd
    case "$what" in
      save) rm -rf saved && cp -r etcd saved ;;
      back) rm -rf etcd && cp -r saved etcd ;;
    esac
    keep
  fi
  serve
  echo again
done
kill -9 $apiserver $etcd
wait
cd / && rm -rf "$FOLDER"
"#;

/// What is made of each definition before it is installed.
pub type Change = fn(&mut CustomResourceDefinition);

/// A control plane.
pub struct Plane {
    pub kubeconfig: PathBuf,
    folder: PathBuf,
    etcd: u16,
    /// Its standard input keeps it up.
    shell: Child,
}

impl Plane {
    /// One beside that of this test binary.
    pub async fn another() -> Self {
        Self::another_with(|_| {}).await
    }

    /// The same with other definitions of snapshots.
    pub async fn another_with(change: Change) -> Self {
        tokio::task::spawn_blocking(move || apart(change))
            .await
            .unwrap()
    }

    pub async fn client(&self) -> Client {
        connect(&self.kubeconfig).await
    }

    /// Kills the API server and starts it anew. It then knows what etcd does, and nothing of what was before.
    pub async fn restart_api_server(&mut self) {
        self.restart("again").await;
    }

    /// Makes a backup of etcd, with a restart of both.
    pub async fn save(&mut self) {
        self.restart("save").await;
    }

    /// Restores that backup: nothing was written since, for all that anybody can read.
    pub async fn bring_back(&mut self) {
        self.restart("back").await;
    }

    async fn restart(&mut self, what: &str) {
        let stdin = self.shell.stdin.as_mut().unwrap();
        stdin.write_all(format!("{what}\n").as_bytes()).unwrap();
        // The old one has ended when the shell answers.
        let mut answer = [0; 6];
        let stdout = self.shell.stdout.as_mut().unwrap();
        stdout.read_exact(&mut answer).unwrap();
        ready(&self.client().await, &self.folder).await;
    }

    /// Lets etcd forget all states of the objects but the newest.
    pub async fn compact(&self) {
        let address = format!("http://127.0.0.1:{}", self.etcd);
        let etcd = Client::try_from(Config::new(address.parse().unwrap())).unwrap();
        let ask = async |path: &str, body: serde_json::Value| -> serde_json::Value {
            let request = http::Request::post(path).body(body.to_string().into_bytes());
            etcd.request(request.unwrap()).await.unwrap()
        };
        let status = ask("/v3/maintenance/status", serde_json::json!({})).await;
        let newest = &status["header"]["revision"];
        let body = serde_json::json!({"revision": newest, "physical": true});
        ask("/v3/kv/compaction", body).await;
    }
}

/// The one control plane, started at first use, with the upstream definitions of snapshots installed.
pub fn plane() -> &'static Plane {
    static PLANE: OnceLock<Plane> = OnceLock::new();
    PLANE.get_or_init(|| apart(|_| {}))
}

/// Starts one in a thread of its own: the caller may be inside a runtime, and starting needs one.
fn apart(change: Change) -> Plane {
    std::thread::spawn(move || start(change))
        .join()
        .expect("start the control plane")
}

/// A client for it, for this test's runtime.
pub async fn client() -> Client {
    let kubeconfig = tokio::task::spawn(async { plane().kubeconfig.clone() })
        .await
        .unwrap();
    connect(&kubeconfig).await
}

pub async fn connect(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

pub fn start(change: Change) -> Plane {
    let bin = binaries();
    // Left to the shell: it removes the folder when this process has ended.
    let folder = tempfile::Builder::new()
        .prefix("vd-plane-")
        .tempdir()
        .unwrap()
        .keep();
    let (port, etcd) = (free_port(), free_port());
    let shell = Command::new("sh")
        .args(["-c", SCRIPT])
        .env("FOLDER", &folder)
        .env("BIN", &bin)
        .env("ETCD", etcd.to_string())
        .env("PORT", port.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // What stops the test by a signal to its group leaves the shell to clean up.
        .process_group(0)
        .spawn()
        .unwrap();
    let kubeconfig = folder.join("kubeconfig");
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: test, \
         clusters: [{{name: test, cluster: {{server: 'https://127.0.0.1:{port}', insecure-skip-tls-verify: true}}}}], \
         users: [{{name: test, user: {{token: {TOKEN}}}}}], \
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]}}\n"
    );
    std::fs::File::create(&kubeconfig)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(prepare(&kubeconfig, &folder, change));
    Plane {
        kubeconfig,
        folder,
        etcd,
        shell,
    }
}

async fn prepare(kubeconfig: &Path, folder: &Path, change: Change) {
    let client = connect(kubeconfig).await;
    ready(&client, folder).await;
    for file in std::fs::read_dir(binaries().parent().unwrap().join("crd")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let mut definition: CustomResourceDefinition = serde_saphyr::from_str(&text).unwrap();
        change(&mut definition);
        install(&client, &definition).await;
    }
}

/// Nothing tells when an API server is up but asking it; this is the one place that asks again and again.
async fn ready(client: &Client, folder: &Path) {
    let begun = Instant::now();
    let ready = http_get("/readyz");
    while client.request_text(ready.clone()).await.is_err() {
        let log = folder.join("apiserver.log");
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "the API server does not start:\n{}",
            std::fs::read_to_string(log).unwrap_or_default()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn http_get(path: &str) -> http::Request<Vec<u8>> {
    http::Request::get(path).body(Vec::new()).unwrap()
}

/// Installs a definition and waits until it is served.
async fn install(client: &Client, definition: &CustomResourceDefinition) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = definition.metadata.name.clone().unwrap();
    let parameters = PatchParams::apply("test").force();
    definitions
        .patch(&name, &parameters, &Patch::Apply(definition))
        .await
        .unwrap();
    let established = kube::runtime::conditions::is_crd_established();
    kube::runtime::wait::await_condition(definitions, &name, established)
        .await
        .unwrap();
}

pub fn binaries() -> PathBuf {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap();
    let folder = std::env::var_os("VD_CLUSTER_BIN")
        .map_or_else(|| project.join(".cache/cluster/bin"), PathBuf::from);
    for program in ["etcd", "kube-apiserver"] {
        assert!(
            folder.join(program).exists(),
            "{} is not there; run `make cluster-up` once, which builds it, or name a folder that has it in VD_CLUSTER_BIN",
            folder.join(program).display()
        );
    }
    folder
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
