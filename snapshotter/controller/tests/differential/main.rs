//! One table of scenarios, played at once on three control planes: on the upstream snapshot-controller and csi-snapshotter v8.6.0,
//! on ours in full mode, and on ours in sidecar mode beside the upstream controller. What each has made of it is compared field by
//! field, and only what `wanted` lists may differ.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::needless_pass_by_value,
    clippy::wildcard_imports,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and no test uses everything"
)]

#[path = "../cluster/driver.rs"]
mod driver;
#[path = "../cluster/plane.rs"]
mod plane;
#[path = "../cluster/program.rs"]
mod program;
#[path = "../cluster/stage.rs"]
mod stage;

mod beat;
mod compare;
mod mirror;
mod part;
mod picture;
mod play;
mod scenarios;
mod side;
mod waiting;
mod wanted;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::compare::Report;
use crate::play::{AT_A_TIME, House, play};
use crate::scenarios::{ALONE, AT_ONCE, MANY, ONE_BY_ONE, RESTARTED};
use crate::side::Side;
use crate::wanted::WANTED;

/// Who shares a restart plays at one time.
const TOGETHER: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ours_differs_from_upstream_only_where_it_should() {
    let (upstream, full, beside) = tokio::join!(
        House::open(Side::Upstream),
        House::open(Side::Full),
        House::open(Side::Beside)
    );
    let houses = [upstream, full, beside];
    let report = Arc::new(Mutex::new(Report::default()));
    let one_by_one = async {
        let mut failed = BTreeSet::new();
        for table in ONE_BY_ONE {
            failed.extend(play(&houses, table, &report, TOGETHER).await);
        }
        failed
    };
    let (mut failed, more) = tokio::join!(play(&houses, AT_ONCE, &report, AT_A_TIME), one_by_one);
    failed.extend(more);
    for table in [RESTARTED, MANY, ALONE] {
        failed.extend(play(&houses, table, &report, TOGETHER).await);
    }
    let mut page = String::new();
    for house in &houses {
        let measured = house.servers.stop().await;
        if house.side == Side::Full {
            page = measured.unwrap();
        }
    }
    let report = report.lock().unwrap();
    let Report {
        wrong,
        used,
        compared,
    } = &*report;
    assert!(
        failed.is_empty() && wrong.is_empty(),
        "compared {compared} times; failed: {failed:#?}; wrong: {wrong:#?}"
    );
    if std::env::var_os("VD_SCENARIO").is_some() {
        return;
    }
    let idle: Vec<_> = WANTED
        .iter()
        .enumerate()
        .filter(|(number, _)| !used.contains(number))
        .map(|(_, row)| row)
        .collect();
    assert!(idle.is_empty(), "these do not differ any more: {idle:#?}");
    for name in [
        "snapshot_controller_operation_total_seconds_count{driver_name=\"vd.csi.io\",operation_name=\"CreateSnapshotAndReady\",snapshot_type=\"dynamic\",operation_status=\"success\"}",
        "csi_sidecar_operations_seconds_count{driver_name=\"vd.csi.io\",method_name=\"/csi.v1.Controller/CreateSnapshot\",grpc_status_code=\"OK\"}",
        "vd_snapshotter_leading 1",
        "vd_build_info{program=\"snapshotter\"",
    ] {
        assert!(page.contains(name), "{name} is not in {page}");
    }
}
