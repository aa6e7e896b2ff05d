//! A real etcd and kube-apiserver for one test binary.
//!
//! They are children of a shell that waits for the end of its standard input. However the test process ends, that pipe closes
//! with it; the shell then stops both and removes their folder.

use std::io::Write as _;
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
"$BIN/etcd" --data-dir etcd --unsafe-no-fsync --log-level error \
  --listen-client-urls "http://127.0.0.1:$ETCD" --advertise-client-urls "http://127.0.0.1:$ETCD" \
  --listen-peer-urls "http://127.0.0.1:0" >etcd.log 2>&1 </dev/null &
etcd=$!
"$BIN/kube-apiserver" --etcd-servers "http://127.0.0.1:$ETCD" --bind-address 127.0.0.1 --secure-port "$PORT" --cert-dir certs \
  --token-auth-file tokens --authorization-mode AlwaysAllow --service-account-issuer https://test \
  --service-account-key-file sa.key --service-account-signing-key-file sa.key --service-cluster-ip-range 10.0.0.0/24 \
  --endpoint-reconciler-type none --disable-admission-plugins ServiceAccount,NamespaceLifecycle \
  >apiserver.log 2>&1 </dev/null &
apiserver=$!
cat >/dev/null
kill -9 $apiserver $etcd
wait
cd / && rm -rf "$FOLDER"
"#;

/// The control plane of this test binary.
pub struct Plane {
    pub kubeconfig: PathBuf,
    /// Its standard input keeps it up.
    _shell: Child,
}

/// The one control plane, started at first use, with the custom resources installed.
pub fn plane() -> &'static Plane {
    static PLANE: OnceLock<Plane> = OnceLock::new();
    // A thread of its own: the caller may be inside a runtime, and starting needs one.
    PLANE.get_or_init(|| {
        std::thread::spawn(start)
            .join()
            .expect("start the control plane")
    })
}

/// A client for it, for this test's runtime.
pub async fn client() -> Client {
    let kubeconfig = tokio::task::spawn(async { plane().kubeconfig.clone() })
        .await
        .unwrap();
    connect(&kubeconfig).await
}

async fn connect(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

fn start() -> Plane {
    let bin = binaries();
    // Left to the shell: it removes the folder when this process has ended.
    let folder = tempfile::Builder::new()
        .prefix("vd-plane-")
        .tempdir()
        .unwrap()
        .keep();
    let port = free_port();
    let shell = Command::new("sh")
        .args(["-c", SCRIPT])
        .env("FOLDER", &folder)
        .env("BIN", &bin)
        .env("ETCD", free_port().to_string())
        .env("PORT", port.to_string())
        .stdin(Stdio::piped())
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
    runtime.block_on(prepare(&kubeconfig, &folder));
    Plane {
        kubeconfig,
        _shell: shell,
    }
}

/// Nothing tells when an API server is up but asking it; this is the one place that asks again and again.
async fn prepare(kubeconfig: &Path, folder: &Path) {
    let client = connect(kubeconfig).await;
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
    for definition in api::definitions() {
        install(&client, &definition).await;
    }
}

fn http_get(path: &str) -> http::Request<Vec<u8>> {
    http::Request::get(path).body(Vec::new()).unwrap()
}

/// Installs a definition and waits until it is served.
pub async fn install(client: &Client, definition: &CustomResourceDefinition) {
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

fn binaries() -> PathBuf {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
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
