//! The driver as it is shipped, on a real Kubernetes: the image and `deploy/vd-csi.yaml` in the cluster of the test
//! program, and a [`Namespace`] for each test, which proves at its end that nothing of it is left anywhere.
//!
//! Everything here panics with a sentence when it fails. Waiting is watching: nothing sleeps and nothing is tried again.

mod events;
mod leftovers;
mod namespace;
mod objects;

use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::binaries;
use crate::cluster::{self, Cluster};

pub use events::Event;
pub use leftovers::{pools_are_clean, volumes_of};
pub use namespace::{Namespace, field};
pub use objects::{Claim, Pod, snapshot, storage_class};

/// The namespace of the driver.
pub const DRIVER: &str = "vd-csi";

/// Tests that only add objects run together; one that takes something away from all of them runs alone.
static STANDING: RwLock<()> = RwLock::new(());

/// Sees to it that the driver is in `cluster`, for a test that disturbs no other. All tests of a program use the same cluster
/// ([`cluster::shared`]).
#[track_caller]
pub fn standing(cluster: &'static Cluster) -> RwLockReadGuard<'static, ()> {
    let lock = STANDING.read().unwrap_or_else(PoisonError::into_inner);
    install_once(cluster);
    lock
}

/// The same for a test that stops parts of it or takes all of its space.
#[track_caller]
pub fn alone(cluster: &'static Cluster) -> RwLockWriteGuard<'static, ()> {
    let lock = STANDING.write().unwrap_or_else(PoisonError::into_inner);
    install_once(cluster);
    lock
}

/// Puts the shipped image and manifest into the cluster, for the first test that asks.
#[track_caller]
fn install_once(cluster: &'static Cluster) {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| install(cluster));
}

/// Imports the image, applies the manifest and waits until the driver serves on all nodes.
#[track_caller]
pub fn install(cluster: &Cluster) {
    import(cluster);
    deploy(cluster, &manifest());
    cluster
        .wait_for("volumesnapshotclass/vd", "create", &[])
        .unwrap();
}

/// Imports the image, as it is shipped, into all nodes.
#[track_caller]
pub fn import(cluster: &Cluster) {
    let archive = cluster::own_archive();
    assert!(
        archive.is_file(),
        "there is no {}: run `make image` first",
        archive.display()
    );
    cluster.import_image(&archive).unwrap();
}

/// Applies a manifest of the driver and waits until it serves on all nodes.
#[track_caller]
pub fn deploy(cluster: &Cluster, manifest: &str) {
    cluster.apply(manifest).unwrap();
    for workload in ["daemonset/csi-node", "deployment/csi-controller"] {
        let status = ["rollout", "status", "-n", DRIVER, workload];
        let _rolled_out = cluster
            .kubectl(&[&status[..], &["--timeout=110s"]].concat())
            .unwrap();
    }
    for node in cluster.nodes() {
        let pool = format!("localpool/{}", node.name());
        cluster.wait_for(&pool, "create", &[]).unwrap();
        cluster.wait_for(&pool, "condition=Ready", &[]).unwrap();
    }
}

/// The manifest as it is shipped.
#[track_caller]
#[must_use]
pub fn manifest() -> String {
    let path = binaries::project().join("deploy/vd-csi.yaml");
    std::fs::read_to_string(path).unwrap()
}
