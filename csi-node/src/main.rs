//! `csi-node`: the agent of one Kubernetes node.
#![forbid(unsafe_code)]

mod args;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use csi_node::agent::{self, supervisor};
use pool::attach::freeze::{GUARD_ARGUMENT, guard_main};

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let first = arguments.get(1).cloned().unwrap_or_default();
    // The watchdog of a freeze is this same program, so that it is there wherever the driver is.
    if first == GUARD_ARGUMENT {
        return guard_main();
    }
    let is_child = first == supervisor::CHILD_ARGUMENT;
    if is_child {
        arguments.remove(1);
    }
    let args = args::Args::parse_from(&arguments);
    telemetry::log::start(args.log_json);
    let result = if !is_child && (args.supervise || supervisor::is_first_process()) {
        supervisor::supervise(arguments.into_iter().skip(1))
    } else {
        if is_child {
            supervisor::follow_supervisor();
        }
        run(args).map(|()| 0)
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tracing::error!(reason = format!("{error:#}"), "csi-node cannot go on");
            ExitCode::from(2)
        }
    }
}

fn run(args: args::Args) -> anyhow::Result<()> {
    let settings = args.settings()?;
    csi_controller::open_files::raise();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("csi-node")
        .enable_all()
        .build()
        .context("start the runtime")?;
    let served = runtime.block_on(agent::run(settings));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}
