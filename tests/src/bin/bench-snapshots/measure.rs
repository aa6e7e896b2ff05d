//! The figures of one side.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;
use kube::Client;
use kube::api::DeleteParams;

use crate::calls::Calls;
use crate::filling::fill;
use crate::note;
use crate::objects::{NAME, make, set_up, snapshot, snapshots};
use crate::plane::Plane;
use crate::programs::{Needs, Programs, Side, millicores};
use crate::watch::Watch;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Snapshots that are made one after the other.
    pub(crate) alone: usize,
    /// Snapshots that are made at once.
    pub(crate) burst: usize,
    /// Snapshots with which memory, processor time and restart are measured.
    pub(crate) many: usize,
    /// How long processor time is counted.
    pub(crate) idle: Duration,
}

impl Plan {
    pub(crate) fn new(quick: bool) -> Self {
        Self {
            alone: if quick { 5 } else { 15 },
            burst: 40,
            many: if quick { 1000 } else { 5000 },
            idle: Duration::from_secs(if quick { 10 } else { 60 }),
        }
    }
}

/// After that, what goes on beside the last snapshot (events, finalizers of claims) is over.
const TAIL: Duration = Duration::from_secs(5);

/// What was measured.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) few: Few,
    pub(crate) many: Many,
}

/// With next to no snapshots there.
#[derive(Clone, Debug)]
pub(crate) struct Few {
    /// From the request to the event that shows it ready: the middle of several.
    pub(crate) alone: Duration,
    /// Until the last of a burst was ready.
    pub(crate) burst: Duration,
    /// Requests for snapshots that are made one after the other.
    pub(crate) made: Calls,
    /// Requests for their deletion.
    pub(crate) deleted: Calls,
    pub(crate) needs: Needs,
}

/// With thousands there.
#[derive(Clone, Debug)]
pub(crate) struct Many {
    /// From the start of the programs until a snapshot is ready that had waited for them.
    pub(crate) start: Duration,
    /// Requests until then.
    pub(crate) at_start: Calls,
    pub(crate) needs: Needs,
    /// Thousandths of a processor with nothing to do.
    pub(crate) idle: f64,
}

/// Measures one side.
pub(crate) async fn measure(
    side: Side,
    plan: &Plan,
    plane: &Plane,
    socket: &Path,
    volume: &str,
) -> Result<Figures> {
    let bench = Bench {
        client: plane.client().await?,
        side,
        plan,
        plane,
        socket,
    };
    set_up(&bench.client, volume).await?;
    Ok(Figures {
        few: bench.with_few().await?,
        many: bench.with_many().await?,
    })
}

struct Bench<'a> {
    client: Client,
    side: Side,
    plan: &'a Plan,
    plane: &'a Plane,
    socket: &'a Path,
}

impl Bench<'_> {
    async fn with_few(&self) -> Result<Few> {
        let mut programs = Programs::start(self.side, self.plane, self.socket)?;
        // It waits for Leases and lists, and is not counted.
        let first = ["first".to_owned()];
        let _first = self.ready_in(&first).await?;
        self.tail().await;
        let needs = programs.needs()?;

        self.note(&format!(
            "{} snapshots one after the other",
            self.plan.alone
        ));
        let alone = names("alone", self.plan.alone);
        let (mut times, before) = (Vec::new(), self.calls()?);
        for name in &alone {
            times.push(self.ready_in(std::slice::from_ref(name)).await?);
        }
        self.tail().await;
        let between = self.calls()?;
        self.gone(&alone).await?;
        self.tail().await;
        let after = self.calls()?;

        self.note(&format!("{} at once", self.plan.burst));
        let burst = names("burst", self.plan.burst);
        let last = self.ready_in(&burst).await?;
        self.gone(&burst).await?;
        self.gone(&first).await?;
        programs.stop()?;
        Ok(Few {
            alone: median(times),
            burst: last,
            made: between.since(&before),
            deleted: after.since(&between),
            needs,
        })
    }

    async fn with_many(&self) -> Result<Many> {
        self.note(&format!("{} snapshots are put there", self.plan.many));
        fill(&self.client, self.plan.many).await?;
        let before = self.calls()?;
        let mut watch = Watch::start(&self.client).await?;
        let waits = ["waits".to_owned()];
        let _waits = make(&snapshots(&self.client), snapshot(&waits[0], NAME)).await?;
        let begun = Instant::now();
        let mut programs = Programs::start(self.side, self.plane, self.socket)?;
        watch.until_ready(&waits).await?;
        let start = begun.elapsed();
        drop(watch);
        self.tail().await;
        let at_start = self.calls()?.since(&before);

        self.note(&format!("nothing for {} s", self.plan.idle.as_secs()));
        let (before, since) = (programs.needs()?, Instant::now());
        tokio::time::sleep(self.plan.idle).await;
        let needs = programs.needs()?;
        let idle = millicores(before, needs, since.elapsed());
        self.gone(&waits).await?;
        programs.stop()?;
        Ok(Many {
            start,
            at_start,
            needs,
            idle,
        })
    }

    /// Makes snapshots at once: how long until the last of them is ready.
    async fn ready_in(&self, names: &[String]) -> Result<Duration> {
        let mut watch = Watch::start(&self.client).await?;
        let api = snapshots(&self.client);
        let begun = Instant::now();
        let made = names.iter().map(|name| make(&api, snapshot(name, NAME)));
        let (_made, seen) = tokio::join!(try_join_all(made), watch.until_ready(names));
        seen?;
        Ok(begun.elapsed())
    }

    /// Deletes snapshots and waits until they are gone.
    async fn gone(&self, names: &[String]) -> Result<()> {
        let mut watch = Watch::start(&self.client).await?;
        let api = snapshots(&self.client);
        let at_once = DeleteParams::default();
        let asked = names.iter().map(|name| api.delete(name, &at_once));
        let _asked = try_join_all(asked).await?;
        watch.until_gone(names).await
    }

    fn calls(&self) -> Result<Calls> {
        Calls::of(&self.plane.audit_log(), self.side.users())
    }

    async fn tail(&self) {
        tokio::time::sleep(TAIL).await;
    }

    fn note(&self, text: &str) {
        note(&format!("{}: {text}", self.side.name()));
    }
}

fn names(of: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{of}-{number}")).collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
