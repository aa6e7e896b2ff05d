//! The loop over scenarios and steps.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use pool::fault::{Operation, Step};

use super::case::Case;
use super::errno::{self, Errno};
use super::scenario::{Fault, Scenario, Story, fault_at};
use crate::scratch_fs::{FsKind, GIB, ScratchFs};

/// How often the server dies before it may recover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crashes {
    /// In the act.
    Once,
    /// In the act, and again in the recovery from that.
    Twice,
}

/// How long a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failing {
    /// The first time only; the server goes on.
    Once,
    /// Until the server is started again.
    Always,
}

/// Runs cases on one filesystem, each on a pool of its own, and remembers those that fail.
#[derive(Debug)]
pub struct Campaign {
    name: &'static str,
    kind: FsKind,
    fs: ScratchFs,
    started: Instant,
    cases: usize,
    failed: Vec<String>,
}

impl Campaign {
    /// A campaign on a fresh XFS.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self::on(name, FsKind::Xfs)
    }

    /// A campaign on a fresh filesystem of `kind`: XFS or ext4, from which the power can be taken.
    #[must_use]
    pub fn on(name: &'static str, kind: FsKind) -> Self {
        Self {
            name,
            kind,
            fs: scratch(kind),
            started: Instant::now(),
            cases: 0,
            failed: Vec::new(),
        }
    }

    /// Crashes each of `scenarios` at each of its steps.
    pub fn crash_at_every_step(&mut self, scenarios: &[Scenario], fault: Fault) {
        for scenario in scenarios {
            for step in scenario.steps() {
                let number = self.cases;
                let label = format!("{} at {}", scenario.name, step.name());
                self.case(&label, |fs| {
                    crash(fs, number, scenario, step, fault, Crashes::Once);
                });
            }
        }
    }

    /// Crashes each of `scenarios` at each of its steps, and then in the recovery from that: by kills and by power
    /// losses in turn, at the steps of recovery in turn.
    pub fn crash_twice_at_every_step(&mut self, scenarios: &[Scenario]) {
        for scenario in scenarios {
            for step in scenario.steps() {
                let number = self.cases;
                let fault = [Fault::Kill, Fault::PowerLoss][number % 2];
                let label = format!("{} at {} and again: {fault:?}", scenario.name, step.name());
                self.case(&label, |fs| {
                    crash(fs, number, scenario, step, fault, Crashes::Twice);
                });
            }
        }
    }

    /// Does each of `scenarios` without a fault, and pulls the plug as soon as it is acknowledged.
    pub fn lose_power_when_acknowledged(&mut self, scenarios: &[Scenario]) {
        for scenario in scenarios.iter().filter(|scenario| !scenario.at_start) {
            let number = self.cases;
            let label = format!("{}, acknowledged", scenario.name);
            self.case(&label, |fs| {
                let mut case = Case::new(fs, number, Fault::PowerLoss);
                let mut story = (scenario.story)();
                story.prepare(&mut case);
                case.lose_power_after(|case| story.act(case));
                case.start();
                settle(case, story.as_mut(), true);
            });
        }
    }

    /// Lets each of `scenarios` fail at each of its steps: by EIO, and by one of the other errors of a disk, in turn; by one of the
    /// two for good, and by the other one once, in turn too.
    pub fn fail_at_every_step(&mut self, scenarios: &[Scenario]) {
        let others = [Errno::Enospc, Errno::Edquot, Errno::Erofs];
        for scenario in scenarios {
            for (at, step) in scenario.steps().into_iter().enumerate() {
                let (eio, other) = match at % 2 {
                    0 => (Failing::Once, Failing::Always),
                    _ => (Failing::Always, Failing::Once),
                };
                for (errno, failing) in [(Errno::Eio, eio), (others[at % others.len()], other)] {
                    let number = self.cases;
                    let name = scenario.name;
                    let label = format!("{name} at {}: {errno:?} {failing:?}", step.name());
                    self.case(&label, |fs| match failing {
                        Failing::Once => fail_once(fs, number, scenario, step, errno),
                        Failing::Always => fail(fs, number, scenario, step, errno),
                    });
                }
            }
        }
    }

    /// Runs one case. A panic in it is noted, and the next case gets a fresh filesystem.
    pub fn case(&mut self, label: &str, body: impl FnOnce(&ScratchFs)) {
        self.cases += 1;
        if catch_unwind(AssertUnwindSafe(|| body(&self.fs))).is_err() {
            eprintln!("FAILED: {}: {label}", self.name);
            self.failed.push(label.to_owned());
            self.fs = scratch(self.kind);
        }
    }

    /// Prints the count. Every case must have held.
    #[allow(clippy::print_stdout, reason = "the count is the test's report")]
    #[track_caller]
    pub fn end(self) {
        println!(
            "{}: {} cases, {} failed, {:.1} s",
            self.name,
            self.cases,
            self.failed.len(),
            self.started.elapsed().as_secs_f64()
        );
        assert!(self.failed.is_empty(), "{:#?}", self.failed);
    }
}

fn scratch(kind: FsKind) -> ScratchFs {
    ScratchFs::new(kind, 24 * GIB)
}

fn crash(
    fs: &ScratchFs,
    number: usize,
    scenario: &Scenario,
    step: Step,
    fault: Fault,
    crashes: Crashes,
) {
    let mut case = Case::new(fs, number, fault);
    let mut story = (scenario.story)();
    story.prepare(&mut case);
    let at_step = fault_at(step, fault.action());
    let acknowledged = if scenario.at_start {
        case.die_starting_with(&at_step);
        false
    } else {
        case.die_in(&at_step, |case| story.act(case))
    };
    case.after_the_fault();
    if crashes == Crashes::Twice {
        case.die_starting_with(&fault_at(recovery_step(number), fault.action()));
        case.after_the_fault();
    }
    case.start();
    settle(case, story.as_mut(), acknowledged);
}

fn fail(fs: &ScratchFs, number: usize, scenario: &Scenario, step: Step, errno: Errno) {
    let mut case = Case::new(fs, number, Fault::Kill);
    let mut story = (scenario.story)();
    story.prepare(&mut case);
    case.start_with(&fault_at(step, errno.action()));
    hears_the_failure(&case, story.as_ref(), scenario, errno);
    case.bystanders_are_whole();
    // The same call, and the same step fails again; or the first call has done all that was left to do.
    let acknowledged = match story.act(&case) {
        Ok(()) => true,
        Err(status) => {
            errno.suits(scenario.operations, &status);
            false
        }
    };
    case.server.kill();
    case.start();
    settle(case, story.as_mut(), acknowledged);
}

/// The step fails once. Nobody starts the server again, others go on with their work, and then the same call succeeds.
fn fail_once(fs: &ScratchFs, number: usize, scenario: &Scenario, step: Step, errno: Errno) {
    let mut case = Case::new(fs, number, Fault::Kill);
    let mut story = (scenario.story)();
    story.prepare(&mut case);
    let action = format!("once-{}", errno.action());
    case.start_with(&fault_at(step, &action));
    let openings = case.openings();
    let undone = hears_the_failure(&case, story.as_ref(), scenario, errno);
    case.server.wait_ready();
    if undone {
        assert_eq!(case.openings(), openings, "nothing failed but that call");
    }
    case.bystanders_are_whole();
    case.others_go_on();
    story
        .act(&case)
        .unwrap_or_else(|status| panic!("the same call again: {status:?}"));
    settle(case, story.as_mut(), true);
}

/// The call fails, and says so in a way that is true. Whether it was undone.
fn hears_the_failure(
    case: &Case<'_>,
    story: &dyn Story,
    scenario: &Scenario,
    errno: Errno,
) -> bool {
    let before = case.contents();
    let status = story
        .act(case)
        .expect_err("a step failed, and it was acknowledged");
    errno.suits(scenario.operations, &status);
    let undone = errno::is_final(&status);
    if undone {
        assert_eq!(case.contents(), before, "said to be undone: {status:?}");
    }
    undone
}

/// Proves what a crash may have left, does the act again, and proves that it is whole then.
fn settle(mut case: Case<'_>, story: &mut dyn Story, acknowledged: bool) {
    story.verify(&case, acknowledged);
    case.bystanders_are_whole();
    case.nothing_is_unfinished();
    case.rebooted = false;
    story
        .act(&case)
        .unwrap_or_else(|status| panic!("the same call again: {status:?}"));
    story.verify(&case, true);
    story.clear(&case);
    case.bystanders_are_whole();
    case.nothing_is_left();
    case.remove();
}

/// Cases take turns with the steps of recovery that are reached at every start.
fn recovery_step(number: usize) -> Step {
    let steps: Vec<Step> = Step::ALL
        .iter()
        .copied()
        .filter(|step| step.operation() == Operation::Recovery)
        .collect();
    steps[number % steps.len()]
}
