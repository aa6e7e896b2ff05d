//! The shipped program on a real API server with the upstream definitions, and a driver that answers as a test wants.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::wildcard_imports,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and no test uses everything"
)]

mod copies;
mod driver;
mod plane;
mod program;
mod stage;
