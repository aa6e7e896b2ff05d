//! Every call of the API server and of the driver is cut, before it arrives and after it was done, with the program alive and
//! killed at that moment. Whatever was cut: the user gets what was asked for, and nothing is left of what was deleted.
//!
//! Which calls there are is not written down here: a run without a cut tells, and so does each run with one up to that. A new call
//! cannot be forgotten.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::cuts::{Cut, When};
use crate::flows::{self, Flow};
use crate::plane::{Plane, plane};
use crate::run::play;

/// One way to cut a call.
type Way = (When, bool);

const ALL: [Way; 4] = [
    (When::Before, false),
    (When::After, false),
    (When::Before, true),
    (When::After, true),
];

/// What is done and not known to be done is the hard case.
const HARD: [Way; 2] = [(When::After, false), (When::After, true)];

/// In `make test` the hard ways have to do where the flow has much in common with another one; `make soak` sets VD_CUTTING.
fn hard() -> &'static [Way] {
    if std::env::var_os("VD_CUTTING").is_some() {
        &ALL
    } else {
        &HARD
    }
}

/// Cuts each call of a flow that is wanted, in each of these ways.
async fn cut_every_call(flow: &Flow, ways: &[Way], wanted: fn(&str) -> bool) {
    let plane = tokio::task::spawn_blocking(plane).await.unwrap();
    let begun = Instant::now();
    let uncut = play(plane, flow, 0, None).await.calls;
    let sure: BTreeSet<String> = uncut.iter().filter(|call| is_sure(call)).cloned().collect();
    let mut campaign = Campaign {
        plane,
        flow,
        ways,
        runs: 1,
        missed: Vec::new(),
    };
    let mut open: Vec<String> = uncut.into_iter().filter(|call| wanted(call)).collect();
    let mut known: BTreeSet<String> = open.iter().cloned().collect();
    while let Some(call) = open.pop() {
        for found in campaign.cut(&call).await {
            if wanted(&found) && known.insert(found.clone()) {
                open.push(found);
            }
        }
    }
    eprintln!(
        "{}: {} calls, {} runs, {} s; not always called, and then not cut: {:?}",
        flow.name,
        known.len(),
        campaign.runs,
        begun.elapsed().as_secs(),
        campaign.missed
    );
    let missed: Vec<_> = campaign
        .missed
        .iter()
        .filter(|call| sure.contains(*call))
        .collect();
    assert!(missed.is_empty(), "never cut: {missed:?}");
}

/// Whether each run has such a call. How often one comes again depends on who is faster, and so does whether something has to be
/// read once more, because the other half of the program has just written it; a Lease is renewed when it is time.
fn is_sure(call: &str) -> bool {
    let sometimes = ["GET volumesnapshot", "PUT leases"];
    !sometimes.iter().any(|one| call.starts_with(one))
        && !call.ends_with(|c: char| c.is_ascii_digit())
}

struct Campaign<'a> {
    plane: &'a Plane,
    flow: &'a Flow,
    ways: &'a [Way],
    runs: usize,
    missed: Vec<String>,
}

impl Campaign<'_> {
    /// The calls that there were until this one was cut.
    async fn cut(&mut self, call: &str) -> Vec<String> {
        let mut calls = Vec::new();
        for &(when, kill) in self.ways {
            let cut = Cut {
                call: call.to_owned(),
                when,
                kill,
            };
            eprintln!("{} {}: {cut}", self.flow.name, self.runs);
            let played = play(self.plane, self.flow, self.runs, Some(cut.clone())).await;
            self.runs += 1;
            calls.extend(played.calls);
            if !played.was_cut {
                self.missed.push(call.to_owned());
                break;
            }
        }
        calls
    }
}

fn all(_call: &str) -> bool {
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_a_claim_is_made_and_deleted_whatever_call_is_cut() {
    cut_every_call(&flows::DYNAMIC, &ALL, all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_given_content_is_bound_and_deleted_whatever_call_is_cut() {
    cut_every_call(&flows::GIVEN, hard(), all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_given_content_is_retained_whatever_call_is_cut() {
    cut_every_call(&flows::RETAINED, hard(), all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stays_of_a_snapshot_that_is_deleted_while_it_is_made_whatever_call_is_cut() {
    cut_every_call(&flows::DROPPED, hard(), all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_with_a_lease_works_whatever_call_about_that_is_cut() {
    let ways = [(When::Before, false), (When::After, false)];
    cut_every_call(&flows::LEASED, &ways, |call| call.contains("leases")).await;
}

/// After each kill the driver is given the time in which an abandoned call may still end, so this takes long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a quarter of an hour: make soak"]
async fn nothing_stays_of_a_snapshot_that_is_refused_for_ever_whatever_call_is_cut() {
    cut_every_call(&flows::REFUSED, &HARD, all).await;
}
