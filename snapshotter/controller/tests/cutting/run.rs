//! One run: the program behind two proxies, and a user's wish from beginning to end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kube::Client;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::cuts::{Cut, Cuts};
use crate::driver::Driver;
use crate::flows::{self, Flow};
use crate::plane::Plane;
use crate::program::Program;
use crate::proxy;
use crate::stage::Stage;

/// What came of a run.
pub struct Played {
    /// The calls up to the cut, each by a name of its own.
    pub calls: Vec<String>,
    /// Whether there was such a call to be cut.
    pub was_cut: bool,
}

/// Plays a flow with one cut, or with none.
pub async fn play(plane: &Plane, flow: &Flow, number: usize, cut: Option<Cut>) -> Played {
    play_behind(plane, flow, number, Cuts::new(cut)).await
}

pub async fn play_behind(plane: &Plane, flow: &Flow, number: usize, cuts: Cuts) -> Played {
    let cuts = Arc::new(cuts);
    let client = plane.client().await;
    // A driver of its own for each run: several are played at once, and a program leaves others' objects alone.
    let driver = format!("{}-{number}.{}", flow.name, flow.driver).leak();
    let stage = Stage {
        client: client.clone(),
        driver: Driver::start(driver),
        name: format!("{}-{number}", flow.name),
        texts: true,
    };
    flows::set_up(&stage).await;
    let behind = Behind::new(client, &stage.driver, &cuts).await;
    let name = format!("--driver-name={driver}");
    let mode = format!("--mode={}", flow.mode);
    // A Lease of its own for each run: the last one's program was killed with its Lease.
    let lease = if flow.leased {
        format!("--leader-election-namespace={}", stage.name)
    } else {
        "--leader-election=false".to_owned()
    };
    let more = [
        "--upstream-lease-namespace=nobody",
        "--settles=0.5",
        &mode,
        &name,
        &lease,
    ];
    let keeper = Keeper::new(&behind, &more, &cuts);
    (flow.play)(stage.clone()).await;
    keeper.end().await;
    flows::clean_up(&stage).await;
    Played {
        calls: cuts.calls(),
        was_cut: cuts.was_made(),
    }
}

/// The proxies of one run.
pub struct Behind {
    pub kubeconfig: PathBuf,
    pub socket: PathBuf,
    _api_server: proxy::Proxy<std::net::SocketAddr>,
    _driver: proxy::Proxy<PathBuf>,
    _folder: tempfile::TempDir,
}

impl Behind {
    pub async fn new(client: Client, driver: &Driver, cuts: &Arc<Cuts>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let api_server = proxy::before_api_server(client, cuts).await;
        let driver = proxy::before_driver(&driver.socket, folder.path(), cuts);
        let kubeconfig = folder.path().join("kubeconfig");
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: test, \
             clusters: [{{name: test, cluster: {{server: 'http://{}'}}}}], \
             users: [{{name: test, user: {{}}}}], \
             contexts: [{{name: test, context: {{cluster: test, user: test}}}}]}}\n",
            api_server.address
        );
        std::fs::write(&kubeconfig, text).unwrap();
        Self {
            kubeconfig,
            socket: driver.address.clone(),
            _api_server: api_server,
            _driver: driver,
            _folder: folder,
        }
    }
}

/// Sees to it that a program runs, as a kubelet would.
pub struct Keeper {
    ended: oneshot::Sender<()>,
    keeping: JoinHandle<()>,
}

impl Keeper {
    pub fn new(behind: &Behind, more: &[&str], cuts: &Arc<Cuts>) -> Self {
        let (ended, end) = oneshot::channel();
        let more = more.iter().map(|&one| one.to_owned()).collect();
        let (kubeconfig, socket) = (behind.kubeconfig.clone(), behind.socket.clone());
        let keeping = keep(kubeconfig, socket, more, Arc::clone(cuts), end);
        Self {
            ended,
            keeping: tokio::spawn(keeping),
        }
    }

    /// Ends the program. It must have run until now.
    pub async fn end(self) {
        self.ended.send(()).unwrap();
        self.keeping.await.unwrap();
    }
}

async fn keep(
    kubeconfig: PathBuf,
    socket: PathBuf,
    more: Vec<String>,
    cuts: Arc<Cuts>,
    mut end: oneshot::Receiver<()>,
) {
    let start = || start(&kubeconfig, &socket, &more, &cuts);
    let program = start().await;
    let program = tokio::select! {
        () = cuts.killed() => {
            program.kill().await;
            start().await
        }
        _ended = &mut end => return program.kill().await,
    };
    drop(end.await);
    program.kill().await;
}

async fn start(
    kubeconfig: &Path,
    socket: &Path,
    more: &[String],
    cuts: &Cuts,
) -> crate::program::Quiet {
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let program = Program::start(kubeconfig, socket, &more).await.quiet();
    cuts.victim(program.id());
    program
}
