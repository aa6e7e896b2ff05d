//! `vdctl`: look at a pool, check it, and serve it on one machine without Kubernetes.
#![forbid(unsafe_code)]

mod args;
mod check;
mod commands;
mod image;
mod output;
mod serve;

use std::process::ExitCode;

use clap::Parser;
use pool::attach::freeze::{GUARD_ARGUMENT, guard_main};

fn main() -> ExitCode {
    // The watchdog of a freeze is this same program, so that it is there wherever the driver is.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == GUARD_ARGUMENT)
    {
        return guard_main();
    }
    let args = args::Args::parse();
    match commands::run(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vdctl: {error:#}");
            ExitCode::from(2)
        }
    }
}
