//! The shipped program, cut off from the API server and from the driver at every one of its calls, and killed; and what happens
//! when the API server itself restarts, or another controller takes over.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::needless_pass_by_value,
    clippy::wildcard_imports,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and no test uses everything"
)]

#[path = "../cluster/driver.rs"]
mod driver;
#[path = "../cluster/plane.rs"]
mod plane;
#[path = "../cluster/program.rs"]
mod program;
#[path = "../cluster/stage.rs"]
mod stage;

mod clock;
mod cuts;
mod every_call;
mod flows;
mod malformed;
mod proxy;
mod restarts;
mod run;
mod switch;
mod upstream;
