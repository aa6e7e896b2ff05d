//! What csi-controller keeps in order by itself, against a real API server. The nodes' agents are played by a small one in the test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "tests: a panic is how they report"
)]

mod adoption;
mod claims;
mod classes;
mod forgotten;
mod objects;
mod selected_node;
#[path = "../support/mod.rs"]
mod support;
