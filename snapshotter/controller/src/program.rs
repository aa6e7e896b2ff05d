//! The whole program: waits for the driver and for its Lease, then works until told to stop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::Client;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::dispatch::until;
use crate::lease::{Election, Hold};
use crate::measures;
use crate::operations::Operations;
use crate::queue::Backoff;
use crate::sidecar::{Driver, Identity, Measures, lost};
use crate::work::Work;
use crate::world::World;

/// How often the driver is asked who it is, until it answers.
const DRIVER: Duration = Duration::from_secs(1);
/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What the upstream snapshot-controller and csi-snapshotter do together, for one driver.
    Full,
    /// What csi-snapshotter does.
    Sidecar,
}

/// How it does it.
#[derive(Clone, Debug)]
pub struct Options {
    /// What it does.
    pub mode: Mode,
    /// The driver's name, which it has to say itself too.
    pub driver_name: String,
    /// The driver's socket, `unix:///path`.
    pub csi_address: String,
    /// How long a call of the driver may take.
    pub timeout: Duration,
    /// How long after a failure an object is looked at again.
    pub backoff: Backoff,
    /// After which time a call of the driver that was abandoned is surely over.
    pub settles: Duration,
    /// Name the user's objects in CreateSnapshot.
    pub extra_create_metadata: bool,
    /// The namespace of the Lease; `None`: no Lease, this is the only copy.
    pub lease_namespace: Option<String>,
    /// The only namespace in which the upstream controller's Lease is looked for.
    pub upstream_lease_namespace: Option<String>,
    /// The name of this copy: its pod.
    pub identity: String,
}

/// A program that is set up.
#[derive(Debug)]
pub struct Program {
    options: Options,
    world: Arc<World>,
    driver: Driver,
    leading: Gauge,
    binding: Gauge,
    stands_back: Gauge,
}

/// Why the work is over.
enum Ended {
    Told,
    LeaseLost(String),
    DriverLost(String),
}

impl Program {
    /// Registers what is measured. Nothing is asked or begun before [`Program::run`].
    ///
    /// # Errors
    /// When the driver's address is none.
    pub fn new(options: Options, registry: &mut Registry) -> anyhow::Result<Self> {
        let calls = Measures::register(registry);
        let name = options.driver_name.clone();
        let driver = Driver::new(&options.csi_address, &name, options.timeout, calls);
        let driver = driver
            .map_err(anyhow::Error::msg)
            .context("--csi-address")?;
        let operations = Operations::register(registry, &name);
        let world = Arc::new(World::new(name, options.backoff, operations));
        let ours = registry.sub_registry_with_prefix("vd");
        let (leading, binding, stands_back) =
            (Gauge::default(), Gauge::default(), Gauge::default());
        ours.register(
            "snapshotter_leading",
            "Whether this copy works",
            leading.clone(),
        );
        ours.register(
            "snapshotter_binding",
            "Whether VolumeSnapshots are bound here: this copy works, and it is known that no upstream controller serves the cluster",
            binding.clone(),
        );
        ours.register(
            "snapshotter_stands_back",
            "Whether the upstream snapshot-controller serves the cluster, so that only the driver's half is done",
            stands_back.clone(),
        );
        measures::register(ours, &world);
        Ok(Self {
            options,
            world,
            driver,
            leading,
            binding,
            stands_back,
        })
    }

    /// What tells whether it can work.
    pub fn readiness(&self) -> impl Fn() -> Result<(), String> + Send + Sync + use<> {
        let world = Arc::clone(&self.world);
        let full = self.options.mode == Mode::Full;
        let leading = self.leading.clone();
        let (binding, stands_back) = (self.binding.clone(), self.stands_back.clone());
        move || {
            if leading.get() == 0 {
                // It is ready to take over.
                return Ok(());
            }
            let watches = [
                ("VolumeSnapshotContents", world.contents.is_current()),
                ("VolumeSnapshotClasses", world.classes.is_current()),
                ("VolumeSnapshots", !full || world.snapshots.is_current()),
                ("PersistentVolumeClaims", !full || world.claims.is_current()),
            ];
            if let Some((kind, _)) = watches.iter().find(|(_, current)| !current) {
                return Err(format!(
                    "the {kind} cannot be watched at the API server now; see the log, and whether the definitions of snapshots are installed"
                ));
            }
            if full && binding.get() == 0 && stands_back.get() == 0 {
                return Err("it could not be looked yet whether an upstream snapshot-controller serves the cluster; see the log, and whether \
                     Leases of the name snapshot-controller-leader may be listed"
                    .to_owned());
            }
            Ok(())
        }
    }

    /// Waits for the driver, then works until `stop` is true and what was begun is done.
    ///
    /// # Errors
    /// When the driver has another name or makes no snapshots. When the Lease is lost: another copy may work already, so nothing
    /// may go on. With a Lease, when the driver is lost for long: another copy has a driver of its own.
    pub async fn run(self, client: Client, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let ids_are_names = tokio::select! {
            checked = self.check_driver() => checked?,
            () = until(&mut stop, true) => return Ok(()),
        };
        let Some(namespace) = self.options.lease_namespace.clone() else {
            self.leading.set(1);
            let work = self.work(client, ids_are_names, Hold::default());
            Box::pin(work.run(stop)).await;
            return Ok(());
        };
        let name = lease_name(&self.world.driver);
        let me = format!("{}_{}", self.options.identity, uuid::Uuid::new_v4());
        let election = Election::new(client.clone(), &namespace, name, me);
        let mut held = tokio::select! {
            held = election.win() => held,
            () = until(&mut stop, true) => return Ok(()),
        };
        tracing::info!(driver = self.world.driver, "this copy works");
        self.leading.set(1);
        let work = self.work(client, ids_are_names, held.hold());
        let ended = tokio::select! {
            () = Box::pin(work.run(stop)) => Ended::Told,
            why = held.keep() => Ended::LeaseLost(why),
            why = lost(async || self.driver.identify().await.map(drop)) => Ended::DriverLost(why),
        };
        // Nothing of the work goes on here.
        match ended {
            Ended::Told => held.give_back().await,
            Ended::LeaseLost(why) => bail!("{why}; this copy ends, since another one works"),
            Ended::DriverLost(why) => {
                held.give_back().await;
                bail!("{why}; this copy ends, so that one whose driver answers can work");
            }
        }
        Ok(())
    }

    fn work(&self, client: Client, ids_are_names: bool, hold: Hold) -> Work {
        Work {
            client,
            world: Arc::clone(&self.world),
            driver: self.driver.clone(),
            ids_are_names,
            options: self.options.clone(),
            hold,
            binding: self.binding.clone(),
            stands_back: self.stands_back.clone(),
        }
    }

    /// Whether its ids of snapshots are the names by which it is asked for them.
    async fn check_driver(&self) -> anyhow::Result<bool> {
        let wanted = &self.options.driver_name;
        let Identity {
            name,
            ids_are_names,
        } = answered(async || self.driver.identify().await).await;
        let address = &self.options.csi_address;
        if *wanted != name {
            bail!("--driver-name is {wanted}, but the driver at {address} is {name}");
        }
        if !answered(async || self.driver.makes_snapshots().await).await {
            bail!(
                "the driver {name} makes no snapshots: it has no capability CREATE_DELETE_SNAPSHOT"
            );
        }
        if !ids_are_names {
            tracing::info!(
                name,
                "the driver does not say that ids of snapshots are their names: what a call that was never answered has made is known \
                 only once another one is answered, as with csi-snapshotter"
            );
        }
        Ok(ids_are_names)
    }
}

/// Asks the driver until it answers: it may be starting, or starting again.
async fn answered<T>(ask: impl AsyncFn() -> Result<T, String>) -> T {
    let mut told = false;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!(error, "waiting for the driver at --csi-address");
                }
                tokio::time::sleep(DRIVER).await;
            }
        }
    }
}

/// The Lease of csi-snapshotter for the driver: whichever of the two programs has it, only one calls the driver.
fn lease_name(driver: &str) -> String {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let name: String = driver.chars().map(safe).collect();
    format!("external-snapshotter-leader-{name}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kube::runtime::watcher::Event;
    use prometheus_client::registry::Registry;

    use super::{Mode, Options, Program, lease_name};
    use crate::queue::Backoff;
    use crate::sidecar::SETTLES;

    #[test]
    fn the_lease_is_that_of_the_upstream_sidecar() {
        assert_eq!(
            lease_name("vd.csi.io"),
            "external-snapshotter-leader-vd-csi-io"
        );
        assert_eq!(lease_name("A_b"), "external-snapshotter-leader-a-b");
    }

    fn program(mode: Mode) -> Program {
        let pause = Duration::from_secs(1);
        let options = Options {
            mode,
            driver_name: "vd.csi.io".to_owned(),
            csi_address: "unix:///nowhere".to_owned(),
            timeout: pause,
            backoff: Backoff {
                first: pause,
                most: pause,
                most_refused: pause,
            },
            settles: SETTLES,
            extra_create_metadata: false,
            lease_namespace: None,
            upstream_lease_namespace: None,
            identity: "pod".to_owned(),
        };
        Program::new(options, &mut Registry::default()).unwrap()
    }

    #[tokio::test]
    async fn it_is_ready_once_it_follows_all_and_knows_who_serves() {
        let full = program(Mode::Full);
        let ready = full.readiness();
        assert_eq!(ready(), Ok(()), "to take over");
        full.leading.set(1);
        assert!(ready().unwrap_err().contains("VolumeSnapshotContents"));
        let world = &full.world;
        world.contents.apply(Event::Init);
        world.contents.apply(Event::InitDone);
        world.classes.apply(Event::Init);
        world.classes.apply(Event::InitDone);
        assert!(ready().unwrap_err().contains("VolumeSnapshots"));
        world.snapshots.apply(Event::Init);
        world.snapshots.apply(Event::InitDone);
        world.claims.apply(Event::Init);
        world.claims.apply(Event::InitDone);
        assert!(ready().unwrap_err().contains("snapshot-controller-leader"));
        full.stands_back.set(1);
        assert_eq!(ready(), Ok(()));
        full.stands_back.set(0);
        full.binding.set(1);
        assert_eq!(ready(), Ok(()));
    }

    #[tokio::test]
    async fn in_sidecar_mode_only_contents_and_classes_matter() {
        let sidecar = program(Mode::Sidecar);
        let ready = sidecar.readiness();
        sidecar.leading.set(1);
        assert!(ready().is_err());
        sidecar.world.contents.apply(Event::Init);
        sidecar.world.contents.apply(Event::InitDone);
        sidecar.world.classes.apply(Event::Init);
        sidecar.world.classes.apply(Event::InitDone);
        assert_eq!(ready(), Ok(()));
    }
}
