//! The real agent, against a real API server, with a pool on a filesystem of its own.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and no test uses everything; what a test writes need not be durable"
)]

mod machine;
mod objects;
#[path = "../../../csi-controller/tests/support/plane.rs"]
mod plane;
mod proxy;

mod api_lost;
mod compression;
mod integrity;
mod life;
mod older;
mod pool_identity;
mod refused;
mod registration;
mod safety;
