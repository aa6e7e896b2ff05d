//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler as processes of the host.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::command::{make_folder, run};
use super::pki::Pki;
use super::process::tail;
use super::site::Site;
use crate::{tools, wait};

/// How long the API server may take from its start to `readyz`, on a machine that does other things as well.
const READY: Duration = Duration::from_secs(120);

/// A program of the control plane, that is one process on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The database. Its data stay when it is stopped or killed.
    Etcd,
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
    /// The upstream snapshot-controller.
    SnapshotController,
}

impl Component {
    /// All of them, in the order in which they start.
    pub const ALL: [Self; 5] = [
        Self::Etcd,
        Self::ApiServer,
        Self::ControllerManager,
        Self::Scheduler,
        Self::SnapshotController,
    ];

    /// The name of its program, its log and its record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::SnapshotController => "snapshot-controller",
        }
    }

    fn arguments(self, site: &Site) -> Vec<String> {
        match self {
            Self::Etcd => etcd(site),
            Self::ApiServer => apiserver(site),
            Self::ControllerManager => controller_manager(site),
            Self::Scheduler => scheduler(site),
            Self::SnapshotController => {
                let kubeconfig = path(&site.kubeconfig());
                vec![
                    format!("--kubeconfig={kubeconfig}"),
                    // The snapshotter of vd-csi looks at its Lease, and leaves snapshots to it.
                    "--leader-election=true".to_owned(),
                    "--leader-election-namespace=kube-system".to_owned(),
                ]
            }
        }
    }
}

/// Starts `component` unless it runs, and waits for nothing.
pub(super) fn start(site: &Site, component: Component) -> Result<()> {
    let name = component.name();
    if site.processes.get(name).is_some() {
        return Ok(());
    }
    make_folder(&site.path("log"))?;
    let mut command = Command::new(site.program(name));
    let _command = command.args(component.arguments(site));
    let _process = site.processes.start(name, &command, &site.log(name))?;
    Ok(())
}

/// Makes certificates and kubeconfigs for the control plane.
pub(super) fn prepare(site: &Site) -> Result<()> {
    let pki = Pki::of(site);
    pki.make(site)?;
    let users = [
        ("admin", "/O=system:masters/CN=admin"),
        ("controller-manager", "/CN=system:kube-controller-manager"),
        ("scheduler", "/CN=system:kube-scheduler"),
    ];
    for (name, subject) in users {
        let kubeconfig = site.path(name).with_extension("kubeconfig");
        pki.kubeconfig(site, name, subject, &kubeconfig)?;
    }
    Ok(())
}

/// Waits until the API server says that it is ready.
pub(super) fn wait_ready(site: &Site) -> Result<()> {
    let mut last = String::new();
    let ready = wait::holds_within(READY, || {
        let ran = tools::attempt("timeout", &readyz(site));
        last.clone_from(&ran.err);
        let dead = site.processes.get(Component::ApiServer.name()).is_none();
        ran.code == Some(0) || dead
    });
    let running = Component::ALL[..2]
        .iter()
        .find(|one| site.processes.get(one.name()).is_none());
    match running {
        Some(dead) => bail!(
            "{} has ended: {}",
            dead.name(),
            tail(&site.log(dead.name()))
        ),
        None if ready => Ok(()),
        None => bail!("the API server is not ready after {READY:?}: {last}"),
    }
}

fn readyz(site: &Site) -> Vec<String> {
    let kubectl = site.kubectl();
    let words = std::iter::once(kubectl.get_program()).chain(kubectl.get_args());
    let words = words.map(|word| word.to_string_lossy().into_owned());
    let question = ["get", "--raw", "/readyz"].map(str::to_owned);
    std::iter::once("10".to_owned())
        .chain(words)
        .chain(question)
        .collect()
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn etcd(site: &Site) -> Vec<String> {
    let (client, peer) = (
        etcd_url(site),
        format!("http://{}:2380", site.network.loopback()),
    );
    vec![
        format!("--data-dir={}", path(&site.path("etcd"))),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        // The data need not survive the machine.
        "--unsafe-no-fsync".to_owned(),
    ]
}

fn etcd_url(site: &Site) -> String {
    format!("http://{}:2379", site.network.loopback())
}

fn apiserver(site: &Site) -> Vec<String> {
    let pki = Pki::of(site);
    let file = |name: &str| path(&pki.file(name));
    let address = site.network.apiserver();
    let mut arguments = vec![
        format!("--etcd-servers={}", etcd_url(site)),
        format!("--bind-address={address}"),
        format!("--advertise-address={address}"),
        "--secure-port=443".to_owned(),
        // The service `kubernetes` is the server's own address: it needs no endpoints.
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--service-cluster-ip-range={}", site.network.services()),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!(
            "--kubelet-client-certificate={}",
            file("kubelet-client.crt")
        ),
        format!("--kubelet-client-key={}", file("kubelet-client.key")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("tokens.pub")),
        format!("--service-account-signing-key-file={}", file("tokens.key")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
    ];
    arguments.extend(site.options.apiserver.iter().cloned());
    arguments
}

fn client(site: &Site, name: &str) -> Vec<String> {
    let kubeconfig = path(&site.path(name).with_extension("kubeconfig"));
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!("--bind-address={}", site.network.loopback()),
        "--leader-elect=false".to_owned(),
    ]
}

fn controller_manager(site: &Site) -> Vec<String> {
    let pki = Pki::of(site);
    let mut arguments = client(site, "controller-manager");
    arguments.extend([
        "--use-service-account-credentials=true".to_owned(),
        format!(
            "--service-account-private-key-file={}",
            path(&pki.file("tokens.key"))
        ),
        format!("--root-ca-file={}", path(&pki.file("ca.crt"))),
    ]);
    arguments.extend(site.options.controller_manager.iter().cloned());
    arguments
}

fn scheduler(site: &Site) -> Vec<String> {
    client(site, "scheduler")
}

/// Copies etcd's data, which nobody may be writing, from one folder to another that is replaced.
pub(super) fn copy_database(from: &Path, to: &Path) -> Result<()> {
    let above = to.parent().context("a copy lies in a folder")?;
    make_folder(above)?;
    let _quiet = run("rm", &[Path::new("-rf"), to])?;
    let _quiet = run("cp", &[Path::new("-a"), from, to])?;
    Ok(())
}
