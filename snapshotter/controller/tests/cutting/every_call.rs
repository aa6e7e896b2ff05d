//! Every call of the API server and of the driver is cut, before it arrives and after it was done, with the program alive and
//! killed at that moment. Whatever was cut: the user gets what was asked for, and nothing is left of what was deleted.
//!
//! Which calls there are is not written down here: a run without a cut tells, and so does each run with one up to that. A new call
//! cannot be forgotten.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::task::JoinSet;

use crate::cuts::{Cut, Cuts, When};
use crate::flows::{self, Flow};
use crate::plane::{Plane, plane};
use crate::run::{play, play_behind};

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

/// With a Lease a program that is killed is one whose Lease has to run out.
const ALIVE: [Way; 2] = [(When::Before, false), (When::After, false)];

/// In `make test` the hard ways have to do where the flow has much in common with another one; `make soak` sets VD_CUTTING.
fn hard() -> &'static [Way] {
    if std::env::var_os("VD_CUTTING").is_some() {
        &ALL
    } else {
        &HARD
    }
}

/// How many cuts of a flow are played at once: most of the time each waits.
const AT_ONCE: usize = 4;

/// Cuts each call of a flow that is wanted, in each of these ways.
async fn cut_every_call(flow: &'static Flow, ways: &'static [Way], wanted: fn(&str) -> bool) {
    let plane = tokio::task::spawn_blocking(plane).await.unwrap();
    let begun = Instant::now();
    let uncut = play(plane, flow, 0, None).await.calls;
    let sure: BTreeSet<String> = uncut.iter().filter(|call| is_sure(call)).cloned().collect();
    let mut open: Vec<String> = uncut.into_iter().filter(|call| wanted(call)).collect();
    let mut known: BTreeSet<String> = open.iter().cloned().collect();
    let runs = Arc::new(AtomicUsize::new(1));
    let (mut running, mut missed) = (JoinSet::new(), Vec::new());
    loop {
        while running.len() < AT_ONCE
            && let Some(call) = open.pop()
        {
            running.spawn(cut(plane, flow, ways, call, Arc::clone(&runs)));
        }
        let Some(done) = running.join_next().await else {
            break;
        };
        let done = done.unwrap();
        missed.extend(done.missed);
        for found in done.calls {
            if wanted(&found) && known.insert(found.clone()) {
                open.push(found);
            }
        }
    }
    eprintln!(
        "{}: {} calls, {} runs, {} s; not always called, and then not cut: {missed:?}",
        flow.name,
        known.len(),
        runs.load(Ordering::Relaxed),
        begun.elapsed().as_secs(),
    );
    let missed: Vec<_> = missed.iter().filter(|call| sure.contains(*call)).collect();
    assert!(missed.is_empty(), "never cut: {missed:?}");
}

/// Whether each run has such a call. How often one comes again depends on who is faster, and so does whether something has to be
/// read once more, because the other half of the program has just written it; a Lease is renewed when it is time.
fn is_sure(call: &str) -> bool {
    let sometimes = ["GET volumesnapshot", "PUT leases"];
    !sometimes.iter().any(|one| call.starts_with(one))
        && !call.ends_with(|c: char| c.is_ascii_digit())
}

/// What came of cutting a call.
struct Done {
    /// The calls that there were until it was cut.
    calls: Vec<String>,
    /// It, if it was not there to be cut.
    missed: Option<String>,
}

async fn cut(
    plane: &'static Plane,
    flow: &'static Flow,
    ways: &'static [Way],
    call: String,
    runs: Arc<AtomicUsize>,
) -> Done {
    let mut calls = Vec::new();
    for &(when, kill) in ways {
        let cut = Cut {
            call: call.clone(),
            when,
            kill,
        };
        let number = runs.fetch_add(1, Ordering::Relaxed);
        eprintln!("{} {number}: {cut}", flow.name);
        let played = play(plane, flow, number, Some(cut)).await;
        calls.extend(played.calls);
        if !played.was_cut {
            return Done {
                calls,
                missed: Some(call),
            };
        }
    }
    Done {
        calls,
        missed: None,
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
    cut_every_call(&flows::LEASED, &ALIVE, |call| call.contains("leases")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stays_of_a_snapshot_that_is_refused_for_ever_whatever_call_is_cut() {
    cut_every_call(&flows::REFUSED, hard(), all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_an_upstream_controller_a_snapshot_is_made_and_deleted_whatever_call_is_cut() {
    cut_every_call(&flows::BESIDE, hard(), all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_an_upstream_controller_nothing_stays_of_what_is_deleted_while_it_is_made() {
    cut_every_call(&flows::DROPPED_BESIDE, hard(), all).await;
}

/// Somebody else has always been faster; a call of the driver is not made again for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_wish_comes_true_though_every_write_meets_a_conflict_first() {
    let plane = tokio::task::spawn_blocking(plane).await.unwrap();
    for (flow, made) in [
        (&flows::DYNAMIC, 1),
        (&flows::GIVEN, 0),
        (&flows::RETAINED, 0),
        (&flows::BESIDE, 1),
        (&flows::LEASED, 1),
    ] {
        let cuts = Cuts::contested();
        // A number that no cut has.
        let played = play_behind(plane, flow, 9999, cuts).await;
        let calls = |method: &str| {
            let all = played.calls.iter();
            all.filter(|call| call.starts_with(method)).count()
        };
        assert_eq!(calls("CreateSnapshot"), made, "{}", flow.name);
        assert!(calls("DeleteSnapshot") <= 1, "{}", flow.name);
    }
}
