//! The work itself, while this copy is the one that works.

use std::sync::Arc;
use std::time::Duration;

use kube::{Api, Client};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;

use crate::binding::Binding;
use crate::dispatch::dispatch;
use crate::events::Events;
use crate::follow::follow;
use crate::lease::{Hold, Upstream};
use crate::program::{Mode, Options};
use crate::sidecar::{Driver, Sidecar, Unsettled};
use crate::world::{Origin, World};

/// How often it is looked whether the upstream controller serves the cluster.
const UPSTREAM: Duration = Duration::from_secs(5);
/// How often everything is looked at though nothing has changed. Nothing should be found then.
const ONCE_MORE: Duration = Duration::from_secs(900);
/// How many snapshots and contents are looked at at a time.
const BINDING: usize = 32;
/// How many calls of the driver run at a time. One to a node that is away lasts until its timeout.
const CALLS: usize = 128;

/// All that the work needs.
pub(crate) struct Work {
    pub(crate) client: Client,
    pub(crate) world: Arc<World>,
    pub(crate) driver: Driver,
    /// The driver's id of a snapshot is the name by which it is asked for.
    pub(crate) ids_are_names: bool,
    pub(crate) options: Options,
    /// Whether this copy still is the one that works.
    pub(crate) hold: Hold,
    pub(crate) binding: Gauge,
    pub(crate) stands_back: Gauge,
}

impl Work {
    /// Works until `stop` is true and what was begun is done.
    pub(crate) async fn run(&self, stop: watch::Receiver<bool>) {
        let component = format!("csi-snapshotter {}", self.world.driver);
        let (told_by_driver, driver_teller) = Events::new(self.client.clone(), component);
        let component = "snapshot-controller".to_owned();
        let (told_by_us, our_teller) = Events::new(self.client.clone(), component);
        let begin = async {
            contents_known(&self.world).await;
            self.world.call();
            if self.options.mode == Mode::Full {
                all_known(&self.world).await;
                self.stand_back().await;
            }
            std::future::pending::<()>().await;
        };
        let bindings = self.bind(told_by_us, stop.clone());
        let calls = self.call(told_by_driver, stop);
        let watches = self.watch();
        let once_more = async {
            loop {
                tokio::time::sleep(ONCE_MORE).await;
                self.world.look_at_everything();
            }
        };
        let tellers = async { tokio::join!(driver_teller, our_teller) };
        // Only the workers end, when they are told to.
        tokio::select! {
            _ended = async { tokio::join!(bindings, calls) } => {}
            () = begin => {}
            () = once_more => {}
            () = watches => {}
            _ended = tellers => {}
        }
    }

    async fn bind(&self, events: Events, stop: watch::Receiver<bool>) {
        let binding = Binding {
            client: self.client.clone(),
            world: Arc::clone(&self.world),
            events,
        };
        let other = binding.clone();
        let bind = move |key: String| {
            let binding = binding.clone();
            async move { binding.bind(&key).await }
        };
        let protect = move |key: String| {
            let binding = other.clone();
            async move { binding.protect(&key).await }
        };
        let world = || Arc::clone(&self.world);
        tokio::join!(
            dispatch(
                world(),
                |w| &w.to_bind,
                BINDING,
                stop.clone(),
                all_known,
                bind
            ),
            dispatch(
                world(),
                |w| &w.to_protect,
                BINDING,
                stop,
                all_known,
                protect
            ),
        );
    }

    async fn call(&self, events: Events, stop: watch::Receiver<bool>) {
        let sidecar = Arc::new(Sidecar {
            client: self.client.clone(),
            world: Arc::clone(&self.world),
            events,
            driver: self.driver.clone(),
            ids_are_names: self.ids_are_names,
            hold: self.hold.clone(),
            extra_metadata: self.options.extra_create_metadata,
            unsettled: Unsettled::new(self.options.settles),
        });
        let call = move |key: String| {
            let sidecar = Arc::clone(&sidecar);
            async move { sidecar.call(&key).await }
        };
        let world = Arc::clone(&self.world);
        dispatch(world, |w| &w.to_call, CALLS, stop, contents_known, call).await;
    }

    /// Keeps the stores. Never ends.
    async fn watch(&self) {
        let (world, client) = (&self.world, &self.client);
        let contents = follow(Api::all(client.clone()), &world.contents, |change| {
            world.content_changed(change, Origin::Watch);
        });
        let classes = follow(Api::all(client.clone()), &world.classes, |change| {
            world.class_changed(change);
        });
        if self.options.mode == Mode::Sidecar {
            tokio::join!(contents, classes);
            return;
        }
        let snapshots = follow(Api::all(client.clone()), &world.snapshots, |change| {
            world.snapshot_changed(change, Origin::Watch);
        });
        let claims = follow(Api::all(client.clone()), &world.claims, |change| {
            world.claim_changed(change);
        });
        tokio::join!(contents, classes, snapshots, claims);
    }

    /// Leaves the binding half to the upstream controller while that serves the cluster. Never ends.
    async fn stand_back(&self) {
        let namespace = self.options.upstream_lease_namespace.as_deref();
        let mut upstream = Upstream::new(self.client.clone(), namespace);
        let mut before = None;
        loop {
            match upstream.holder().await {
                Ok(holder) => {
                    let serves = holder.is_some();
                    if before != Some(serves) {
                        tell(holder.as_deref(), before.is_some());
                        self.world.bind(!serves);
                        self.stands_back.set(i64::from(serves));
                        self.binding.set(i64::from(!serves));
                        before = Some(serves);
                    }
                }
                // As before: perhaps the API server cannot be reached, which stops the other one too. At first that is not to begin.
                Err(error) => tracing::warn!(
                    error,
                    known = before.is_some(),
                    "cannot look whether an upstream snapshot-controller serves the cluster"
                ),
            }
            tokio::time::sleep(UPSTREAM).await;
        }
    }
}

/// Returns while all that the driver's half decides from is known and followed. Decisions are made from everything there is, never from
/// half a list: after etcd was restored, contents that had gone are back as soon as they are listed, and not before.
async fn contents_known(world: &World) {
    while !(world.contents.is_current() && world.classes.is_current()) {
        tokio::join!(world.contents.synced(), world.classes.synced());
    }
}

/// The same of all that the binding half decides from.
async fn all_known(world: &World) {
    let known = || {
        world.contents.is_current()
            && world.classes.is_current()
            && world.snapshots.is_current()
            && world.claims.is_current()
    };
    while !known() {
        tokio::join!(
            world.contents.synced(),
            world.classes.synced(),
            world.snapshots.synced(),
            world.claims.synced(),
        );
    }
}

fn tell(holder: Option<&str>, before: bool) {
    match holder {
        Some(holder) => tracing::warn!(
            holder,
            "an upstream snapshot-controller serves this cluster: VolumeSnapshots are left to it, and only the driver's half is done, \
             as with --mode=sidecar. Remove it, or use --mode=sidecar (snapshotController.mode=sidecar in the chart)"
        ),
        None if before => {
            tracing::info!(
                "the upstream snapshot-controller is gone; VolumeSnapshots of this driver are served here now"
            );
        }
        None => tracing::info!("VolumeSnapshots of this driver are served here"),
    }
}
