//! Brings the sides of a scenario together and compares what each has made of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::beat::Beat;
use crate::picture::{Picture, Source};
use crate::side::{SIDES, Side};
use crate::wanted::{SOMETIMES, WANTED, Wanted};

/// Longest wait for a side.
const PATIENCE: Duration = Duration::from_secs(200);
/// Longest wait until the sides differ only where they should. What does not come to that by then never does.
const AGREES: Duration = Duration::from_secs(60);

/// What one side has otherwise than upstream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    pub path: String,
    pub upstream: String,
    pub ours: String,
}

/// What was found in all scenarios.
#[derive(Default)]
pub struct Report {
    /// What should not be.
    pub wrong: BTreeSet<String>,
    /// The rows of the table that were needed.
    pub used: BTreeSet<usize>,
    /// How often it was compared.
    pub compared: usize,
}

#[derive(Clone, Default)]
struct Progress {
    arrived: [usize; 3],
    judged: usize,
    broken: bool,
}

/// One scenario on all sides.
pub struct Meeting {
    pub scenario: &'static str,
    sources: [Source; 3],
    beats: [Beat; 3],
    progress: watch::Sender<Progress>,
    report: Arc<Mutex<Report>>,
}

impl Meeting {
    pub fn new(
        scenario: &'static str,
        sources: [Source; 3],
        beats: [Beat; 3],
        report: Arc<Mutex<Report>>,
    ) -> Self {
        Self {
            scenario,
            sources,
            beats,
            progress: watch::channel(Progress::default()).0,
            report,
        }
    }

    /// A side has failed: nobody needs to wait for it.
    pub fn give_up(&self) {
        self.progress.send_modify(|progress| progress.broken = true);
    }

    /// Waits until all sides are here, and have come to rest with only the differences that are wanted.
    pub async fn compare(&self, side: Side, at: &'static str) {
        let mut progress = self.progress.subscribe();
        self.progress
            .send_modify(|progress| progress.arrived[side as usize] += 1);
        let round = self.progress.borrow().arrived[side as usize];
        let all = |now: &Progress| now.broken || now.arrived.iter().all(|n| *n >= round);
        self.wait(&mut progress, side, at, all).await;
        if side == Side::Upstream {
            self.judge(at).await;
            self.progress.send_modify(|now| now.judged = round);
        }
        let judged = |now: &Progress| now.broken || now.judged >= round;
        self.wait(&mut progress, side, at, judged).await;
    }

    async fn wait(
        &self,
        progress: &mut watch::Receiver<Progress>,
        side: Side,
        at: &str,
        holds: impl Fn(&Progress) -> bool,
    ) {
        let waited = timeout(PATIENCE, progress.wait_for(|now| holds(now))).await;
        let now = waited.map(|now| now.unwrap().clone());
        let name = self.scenario;
        match now {
            Ok(now) if !now.broken => {}
            Ok(_broken) => panic!("{name}: {side:?} at {at:?}: another side has failed"),
            Err(_elapsed) => panic!("{name}: {side:?} at {at:?}: another side does not come"),
        }
    }

    async fn judge(&self, at: &'static str) {
        let mut changes = self
            .sources
            .each_ref()
            .map(|source| source.mirror.changes(&source.namespace));
        let agreeing = async {
            loop {
                for receiver in &mut changes {
                    receiver.mark_unchanged();
                }
                if self.findings(at).is_empty() {
                    // It may be on its way still: what is made after it goes through all first.
                    join_all(self.beats.iter().map(Beat::one)).await;
                    if self.findings(at).is_empty() {
                        return;
                    }
                    continue;
                }
                let [a, b, c] = &mut changes;
                // The driver tells nothing by itself, but what it was asked is seen in objects sooner or later.
                tokio::select! {
                    _ = a.changed() => {}
                    _ = b.changed() => {}
                    _ = c.changed() => {}
                    () = tokio::time::sleep(Duration::from_millis(500)) => {}
                }
            }
        };
        let agreed = timeout(AGREES, agreeing).await;
        let findings = self.findings(at);
        let mut report = self.report.lock().unwrap();
        report.compared += 1;
        for (side, differences) in self.differences() {
            for difference in differences {
                report
                    .used
                    .extend(rows(self.scenario, at, side, &difference));
            }
        }
        if agreed.is_err() {
            for finding in &findings {
                // Told at once, too: a run that is cut short has found something.
                eprintln!("{finding}");
            }
            for (side, source) in SIDES.iter().zip(&self.sources) {
                for line in source.told() {
                    eprintln!("{}: {side:?}: {line}", self.scenario);
                }
            }
            report.wrong.extend(findings);
        }
    }

    fn differences(&self) -> Vec<(Side, Vec<Difference>)> {
        let [upstream, full, beside] = self.sources.each_ref().map(Source::picture);
        vec![
            (Side::Full, differences(&upstream, &full)),
            (Side::Beside, differences(&upstream, &beside)),
        ]
    }

    /// What differs though it should not, and what does not though it should.
    fn findings(&self, at: &'static str) -> Vec<String> {
        let mut findings = Vec::new();
        for (side, differences) in self.differences() {
            let mut used = BTreeSet::new();
            for difference in &differences {
                let rows = rows(self.scenario, at, side, difference);
                let may = |row: &Wanted| row.covers(self.scenario, at, side, difference);
                if rows.is_empty() && !SOMETIMES.iter().any(may) {
                    let Difference {
                        path,
                        upstream,
                        ours,
                    } = difference;
                    findings.push(format!(
                        "{} at {at:?}, {side:?}: {path}: upstream {upstream:?}, ours {ours:?}",
                        self.scenario
                    ));
                }
                used.extend(rows);
            }
            let due = |(number, row): &(usize, &Wanted)| {
                row.is_due(self.scenario, at, side) && !used.contains(number)
            };
            for (_, row) in WANTED.iter().enumerate().filter(due) {
                findings.push(format!(
                    "{} at {at:?}, {side:?}: {} should be upstream {:?} and ours {:?}, but does not differ so",
                    self.scenario, row.path, row.upstream, row.ours
                ));
            }
        }
        findings
    }
}

fn rows(scenario: &str, at: &str, side: Side, difference: &Difference) -> Vec<usize> {
    let covers = |row: &Wanted| row.covers(scenario, at, side, difference);
    let all = WANTED.iter().enumerate();
    all.filter(|(_, row)| covers(row))
        .map(|(number, _)| number)
        .collect()
}

fn differences(upstream: &Picture, ours: &Picture) -> Vec<Difference> {
    let paths: BTreeSet<&String> = upstream.keys().chain(ours.keys()).collect();
    let mut differences = Vec::new();
    for path in paths {
        let (there, here) = (upstream.get(path), ours.get(path));
        // Of an object that only one side has, that alone is told.
        let about = path.split(' ').next().unwrap_or_default();
        let alone = upstream.contains_key(about) != ours.contains_key(about);
        let of_events = path.ends_with(" events") || path.ends_with(" told by");
        if there == here || (alone && path != about && !of_events) {
            continue;
        }
        let value = |side: Option<&String>| side.cloned().unwrap_or_else(|| "-".to_owned());
        differences.push(Difference {
            path: path.clone(),
            upstream: value(there),
            ours: value(here),
        });
    }
    differences
}
