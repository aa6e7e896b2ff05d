//! What the tests against a real API server share.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "tests: a panic is how they report, and no test uses everything"
)]

pub mod agent;
pub mod driver;
pub mod foreign;
pub mod plane;
