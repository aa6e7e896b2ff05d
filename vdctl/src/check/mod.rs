//! `vdctl pool check`: the invariants of a pool that one node can prove by itself.
//!
//! | Invariant | where |
//! |---|---|
//! | every record can be trusted and names its own folder; no folder is without one | [`objects`] |
//! | every image is there, has its size, its mode, and nothing else lies beside it | [`objects`] |
//! | a snapshot is read-only, standalone, consistent, and what its record says | [`snapshots`] |
//! | a loop device of ours belongs to exactly one volume, never to a deleted one; none is written through two | [`devices`] |
//! | what is mounted, published or held was staged by its record, and no folder of a filesystem is all that is mounted of it | [`devices`] |
//! | what is promised fits | [`space`] |
//! | nothing is left in tmp/, trash/ or beside a record while nobody works on the pool | [`space`], [`objects`] |
//!
//! It reads only, also while a server works on the pool; what is then in the making is not a finding. Nor is what it cannot see: the
//! data of snapshots (`vdctl snapshot verify`), the orchestrator's objects, and whether a mounted filesystem is frozen, which the
//! kernel tells only to whoever tries to freeze or thaw it.

mod devices;
mod objects;
mod snapshots;
mod space;

use std::process::ExitCode;

use pool::View;
use serde::Serialize;

use crate::args::{Output, ReadArgs};
use crate::output;

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Report {
    pool: String,
    volumes: usize,
    snapshots: usize,
    devices: usize,
    findings: Vec<Finding>,
}

/// Something that is not as it has to be.
#[derive(Debug, Serialize)]
struct Finding {
    /// What it is about: an id, a path, a device.
    what: String,
    /// What is wrong.
    problem: String,
}

impl Report {
    fn add(&mut self, what: impl Into<String>, problem: impl Into<String>) {
        self.findings.push(Finding {
            what: what.into(),
            problem: problem.into(),
        });
    }
}

pub(crate) fn run(read: &ReadArgs) -> anyhow::Result<ExitCode> {
    let view = View::open(&read.pool)?;
    let mut report = Report {
        pool: view.path().display().to_string(),
        volumes: view.volumes().len(),
        snapshots: view.snapshots().len(),
        ..Report::default()
    };
    objects::check(&view, &mut report)?;
    snapshots::check(&view, &mut report)?;
    devices::check(&view, &mut report)?;
    space::check(&view, &mut report)?;
    match read.output {
        Output::Json => output::print_json(&report)?,
        Output::Table => output::print(&text(&report))?,
    }
    Ok(if report.findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn text(report: &Report) -> String {
    let mut text: String = report
        .findings
        .iter()
        .map(|finding| format!("{}: {}\n", finding.what, finding.problem))
        .collect();
    let verdict = match report.findings.len() {
        0 => "clean".to_owned(),
        1 => "1 finding".to_owned(),
        more => format!("{more} findings"),
    };
    text.push_str(&format!(
        "{}: {} volumes, {} snapshots, {} loop devices: {verdict}\n",
        report.pool, report.volumes, report.snapshots, report.devices
    ));
    text
}
