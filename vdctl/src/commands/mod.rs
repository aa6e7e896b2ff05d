//! The verbs.

mod pool;
mod snapshot;
mod volume;

use std::process::ExitCode;

use anyhow::Context;

use crate::args::{Args, Command, PoolCommand};
use crate::{check, serve};

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Pool(PoolCommand::Init { dir, node }) => {
            pool::init(&dir, node).map(|()| ExitCode::SUCCESS)
        }
        Command::Pool(PoolCommand::Status(read)) => pool::status(&read).map(|()| ExitCode::SUCCESS),
        Command::Pool(PoolCommand::Check(read)) => check::run(&read),
        Command::Volume(command) => volume::run(&command).map(|()| ExitCode::SUCCESS),
        Command::Snapshot(command) => snapshot::run(&command).map(|()| ExitCode::SUCCESS),
        Command::Serve(args) => serve::run(args).map(|()| ExitCode::SUCCESS),
    }
}

/// This machine's name, as the kernel knows it.
pub(crate) fn machine_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("ask this machine's name; give --node")?;
    name.into_string()
        .ok()
        .context("this machine's name is not UTF-8; give --node")
}
