//! The driver as it is shipped on a real Kubernetes: real kubelets, real pods, the image and the manifest of a release.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and their folders are their own"
)]

use std::sync::{RwLockReadGuard, RwLockWriteGuard};

use tests::cluster::{self, Cluster};
use tests::kubernetes;

mod cdi;
mod scheduling;
mod snapshots;
mod volumes;

/// The cluster of all tests here, as most are: with the upstream snapshot-controller.
#[track_caller]
fn cluster() -> &'static Cluster {
    cluster::shared(env!("CARGO_BIN_EXE_cluster"))
}

/// The cluster, for this test alone.
#[track_caller]
fn alone() -> (RwLockWriteGuard<'static, ()>, &'static Cluster) {
    (kubernetes::alone(cluster()), cluster())
}

/// The cluster, for a test that takes nothing away from others.
#[track_caller]
fn standing() -> (RwLockReadGuard<'static, ()>, &'static Cluster) {
    (kubernetes::standing(cluster()), cluster())
}
