//! `make demo`: the main job of the project on one machine, shown for real.
//!
//! It makes a pool (in a file, unless `POOL` names one), starts the driver, and does through the CSI
//! socket what an orchestrator would do. What it prints was measured in that run. It ends with exit
//! code 0 only if everything it says was found true, and takes away all that it made, also when it
//! is stopped or fails half-way.

mod command;
mod content;
mod driver;
mod figures;
mod filesystem_story;
mod machine;
mod space;
mod tell;
mod undo;
mod vm_story;
mod worker;
mod workplace;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::driver::Driver;
use crate::vm_story::Stage;
use crate::workplace::Workplace;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let started = Instant::now();
    match demo().await {
        Ok(()) => {
            tell::plain(format!("\nDone in {}.", figures::time(started.elapsed())));
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell::plain(format!("\nFAILED: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Result<()> {
    let mut stop = Stop::listen()?;
    let guest = guest()?;
    let pool = std::env::var_os("POOL")
        .filter(|pool| !pool.is_empty())
        .map(PathBuf::from);
    let mut place = Workplace::prepare(pool)?;
    let outcome = in_place(&mut place, &mut stop, guest).await;
    let cleaned = place.take_apart();
    match (&outcome, &cleaned) {
        (Err(_), Err(left)) => tell::plain(format!("{left:#}")),
        (Ok(()), Ok(())) => tell::fact("left behind", "no process, mount, loop device or file"),
        _one => {}
    }
    outcome.and(cleaned)
}

async fn in_place(place: &mut Workplace, stop: &mut Stop, guest: PathBuf) -> Result<()> {
    tell::plain("vd-csi: volumes, snapshots and restores through CSI, shown on a real VM\n");
    let pool = stop.unless(place.set_up()).await?;
    tell::fact("pool", pool);
    let driver = stop.unless(Driver::start(place)).await?;
    tell::fact("driver", "vdctl serve on a unix socket, without Kubernetes");
    let told = stop.unless(story(place, &driver, guest)).await;
    if told.is_err() {
        tell::plain("\nThis did not work out; taking everything away again.");
    } else {
        tell::chapter("5. And everything is taken away again");
    }
    let undone = undo(place, &driver, told.is_ok()).await;
    let undone = undone.and(driver.stop().await);
    if let (Err(_why), Err(error)) = (&told, &undone) {
        tell::plain(format!("{error:#}"));
    }
    told.and(undone)
}

async fn story(place: &Workplace, driver: &Driver, guest: PathBuf) -> Result<()> {
    let (accelerator, told) = {
        let _progress = tell::doing("machine", "looking for hardware virtualisation that works");
        machine::choose_accelerator(&guest).await
    };
    tell::fact("machine", told);
    let stage = Stage {
        place,
        driver,
        guest,
        accelerator,
    };
    vm_story::tell(&stage).await?;
    filesystem_story::tell(&stage).await
}

/// Checks the pool if the story went well, then deletes what was made in it.
async fn undo(place: &Workplace, driver: &Driver, check: bool) -> Result<()> {
    let checked = if check {
        pool_check(place.pool()).await
    } else {
        Ok(())
    };
    let (volumes, snapshots) = undo::all(driver).await?;
    undo::drained(place.pool()).await?;
    checked?;
    if check {
        let text = format!("{volumes} volumes, {snapshots} snapshots; the driver is stopped");
        tell::fact("deleted", text);
    }
    Ok(())
}

async fn pool_check(pool: &Path) -> Result<()> {
    let pool = pool.to_string_lossy();
    let told = command::run(&driver::vdctl(), &["pool", "check", "--pool", &pool]).await?;
    // The last line begins with the pool's folder, which means nothing to the reader.
    let line = told.lines().last().unwrap_or_default();
    let verdict = line
        .split_once(": ")
        .map_or(line, |(_folder, verdict)| verdict);
    tell::fact("vdctl pool check", verdict);
    Ok(())
}

/// The guest's disk, built by `tests/guest/build.sh`. `VD_GUEST` names another one.
fn guest() -> Result<PathBuf> {
    let built = || tests::binaries::project().join(".cache/guest/guest.raw");
    let disk = std::env::var_os("VD_GUEST").map_or_else(built, PathBuf::from);
    ensure!(
        disk.is_file(),
        "there is no guest at {}: use `make demo`",
        disk.display()
    );
    disk.canonicalize().context("find the guest's disk")
}

/// Ctrl-C and its kin. From the first moment on they are handled here: what was made is taken away.
struct Stop {
    signals: [(&'static str, Signal); 3],
}

impl Stop {
    fn listen() -> Result<Self> {
        Ok(Self {
            signals: [
                ("Ctrl-C", signal(SignalKind::interrupt())?),
                ("SIGTERM", signal(SignalKind::terminate())?),
                ("SIGHUP", signal(SignalKind::hangup())?),
            ],
        })
    }

    /// Does `work` to its end unless a signal comes before; then the work is dropped where it is.
    async fn unless<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let [(one, first), (two, second), (three, third)] = &mut self.signals;
        let name = tokio::select! {
            outcome = work => return outcome,
            _signal = first.recv() => *one,
            _signal = second.recv() => *two,
            _signal = third.recv() => *three,
        };
        Err(anyhow!("stopped by {name}"))
    }
}
