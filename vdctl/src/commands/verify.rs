//! `vdctl snapshot verify`: is a snapshot still what its record says?
//!
//! It reads like any other reader, with the agent up or down. Only where a mark has to be set or taken back does it turn to
//! the owner of the pool: the agent, or itself when there is none. The owner believes nobody and reads for itself.

use std::process::ExitCode;

use anyhow::{Context, bail};
use csi_node::LocalNode;
use csi_node::pool_handle::PoolHandle;
use pool::{ErrorKind, Options, SnapshotId, View};
use proto::admin::VerifySnapshotRequest;
use proto::admin::admin_client::AdminClient;
use serde::Serialize;
use snapshot_engine::{Watch, verify_with_data};
use tonic::transport::Endpoint;

use crate::args::{Output, VerifyArgs};
use crate::output;

/// Where the owner of a pool listens if nothing else was said to it.
const USUAL: [&str; 2] = [
    "unix:///run/vd/csi.sock",
    "unix:///var/lib/kubelet/plugins/vd.csi.io/csi.sock",
];

/// What was found; the fields keep their names.
#[derive(Debug, Serialize)]
struct Report {
    id: String,
    /// `sound` or `damaged`.
    verdict: &'static str,
    /// The data was compared with a digest.
    data_checked: bool,
    problems: Vec<String>,
    more: u64,
    /// The record says that it is damaged.
    marked: bool,
}

pub(crate) fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let view = View::open(&args.read.pool)?;
    let id = SnapshotId::parse(&args.id)?;
    let mut report = look(&view, &id)?;
    let damaged = !report.problems.is_empty();
    if damaged != report.marked {
        match tell_owner(args, &view, &id) {
            Ok(()) => {
                let record = View::open(&args.read.pool)?.snapshot(&id)?;
                report.marked = record.damage.is_some();
            }
            Err(error) => eprintln!("vdctl: the record was not changed: {error:#}"),
        }
    }
    match args.read.output {
        Output::Json => output::print_json(&report)?,
        Output::Table => output::print(&report.text())?,
    }
    Ok(if damaged {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn look(view: &View, id: &SnapshotId) -> anyhow::Result<Report> {
    /// It is replaced once in its life, by its compression.
    const TRIES: usize = 2;
    for _replaced in 0..TRIES {
        let record = view.snapshot(id)?;
        let (problems, more) = match view.open_snapshot(id) {
            Ok(opened) => {
                let watch = Watch {
                    // What is deleted is not freed as long as it is read.
                    keep_going: &|| view.is_current(&opened),
                    ..Watch::UNWATCHED
                };
                let looked = verify_with_data(opened.image(), &opened.record, &watch);
                if !view.is_current(&opened) {
                    continue;
                }
                let findings = looked?;
                let problems = findings.problems.iter().map(ToString::to_string);
                (problems.collect(), findings.more)
            }
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                // It may have gone with its whole folder.
                view.snapshot(id)?;
                (vec![error.to_string()], 0)
            }
            Err(error) => return Err(error.into()),
        };
        let checksum = record.checksum.as_ref();
        return Ok(Report {
            id: record.id.to_string(),
            verdict: if problems.is_empty() {
                "sound"
            } else {
                "damaged"
            },
            data_checked: checksum.is_some_and(|checksum| checksum.digest.is_some()),
            problems,
            more,
            marked: record.damage.is_some(),
        });
    }
    bail!("{id} was deleted or replaced while it was read")
}

/// Lets the owner of the pool read the snapshot and record what it finds.
fn tell_owner(args: &VerifyArgs, view: &View, id: &SnapshotId) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    if view.is_owned()? {
        let request = VerifySnapshotRequest {
            pool_uuid: view.marker().uuid.clone(),
            snapshot_id: id.to_string(),
        };
        return runtime.block_on(ask(args.agent.as_deref(), request));
    }
    let handle = PoolHandle::new(args.read.pool.clone(), Options::default());
    let node = LocalNode::new(view.marker().node.clone(), handle);
    runtime.block_on(node.verify_snapshot(id))?;
    Ok(())
}

async fn ask(agent: Option<&str>, request: VerifySnapshotRequest) -> anyhow::Result<()> {
    let sockets = match agent {
        Some(one) => vec![one],
        None => USUAL.to_vec(),
    };
    let mut reason = anyhow::anyhow!("no socket to try");
    for socket in sockets {
        match ask_one(socket, request.clone()).await {
            Ok(()) => return Ok(()),
            Err(error) => reason = error,
        }
    }
    Err(reason.context(
        "the process that owns the pool has to do it, and could not be asked: name its socket with --agent",
    ))
}

async fn ask_one(socket: &str, request: VerifySnapshotRequest) -> anyhow::Result<()> {
    let channel = Endpoint::from_shared(socket.to_owned())
        .with_context(|| format!("{socket} is no address: give unix:///path/to/csi.sock"))?
        .connect()
        .await
        .with_context(|| format!("connect to {socket}"))?;
    AdminClient::new(channel)
        .verify_snapshot(request)
        .await
        .map_err(|status| anyhow::anyhow!("{socket}: {}", status.message()))?;
    Ok(())
}

impl Report {
    fn text(&self) -> String {
        let mut text = format!(
            "{:<9}{}\ndata     {}\n",
            self.verdict,
            self.id,
            if self.data_checked {
                "compared with its digest"
            } else {
                "has no digest; the metadata was compared"
            }
        );
        for problem in &self.problems {
            text.push_str(&format!("problem  {problem}\n"));
        }
        if self.more > 0 {
            text.push_str(&format!("         and {} more\n", self.more));
        }
        if self.marked {
            text.push_str("marked   as damaged: nothing is restored from it\n");
        }
        text
    }
}
