//! What goes wrong in a real cluster, and what must hold then: nothing is lost, what is wrong is said, nothing is made or
//! removed by guessing. The shipped image and manifest, real kubelets, real pods.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and their folders are their own"
)]

mod api_server;
mod chaos;
mod disks;
mod forgotten;
mod identity;
mod load;
mod objects;
mod sanity;
mod stage;
mod upgrade;
mod writer;
