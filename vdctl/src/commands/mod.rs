//! The verbs.

mod export;
mod import;
mod pool;
mod snapshot;
mod verify;
mod volume;

use std::process::ExitCode;

use anyhow::Context;

use crate::args::{Args, Command, PoolCommand, SnapshotCommand};
use crate::{check, image, serve};

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Pool(PoolCommand::Init { dir, node }) => {
            pool::init(&dir, node).map(|()| ExitCode::SUCCESS)
        }
        Command::Pool(PoolCommand::Status(read)) => pool::status(&read).map(|()| ExitCode::SUCCESS),
        Command::Pool(PoolCommand::Check(read)) => check::run(&read),
        Command::Volume(command) => volume::run(&command).map(|()| ExitCode::SUCCESS),
        Command::Snapshot(SnapshotCommand::Look(command)) => {
            snapshot::run(&command).map(|()| ExitCode::SUCCESS)
        }
        Command::Snapshot(SnapshotCommand::Export(args)) => {
            export::run(&args).map(|()| ExitCode::SUCCESS)
        }
        Command::Snapshot(SnapshotCommand::Import(args)) => {
            import::run(&args).map(|()| ExitCode::SUCCESS)
        }
        Command::Snapshot(SnapshotCommand::Verify(args)) => verify::run(&args),
        Command::Image(command) => image::run(&command),
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
