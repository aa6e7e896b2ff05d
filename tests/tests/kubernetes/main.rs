//! The driver as it is shipped on a real Kubernetes: real kubelets, real pods, the image and the manifest of a release.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and their folders are their own"
)]

mod cdi;
mod scheduling;
mod snapshots;
mod volumes;

/// The program that takes the cluster apart when the tests have ended.
const GUARD: &str = env!("CARGO_BIN_EXE_cluster");
