//! `vdctl pool init` and `vdctl pool status`.

use std::path::Path;

use ::pool::size::human;
use ::pool::{Part, Quarantined, View};
use anyhow::Context;
use serde::Serialize;

use super::machine_name;
use crate::args::{Output, ReadArgs};
use crate::output;

pub(crate) fn init(dir: &Path, node: Option<String>) -> anyhow::Result<()> {
    let node = node.map_or_else(machine_name, Ok)?;
    let marker = ::pool::init(dir, &node)?;
    output::print(&format!(
        "made the pool {} of node {} in {}{}\n",
        marker.uuid,
        marker.node,
        dir.display(),
        if marker.nocow {
            " (Btrfs: images are NOCOW)"
        } else {
            ""
        }
    ))
}

#[derive(Serialize)]
struct Status {
    pool: String,
    uuid: String,
    node: String,
    owned: bool,
    filesystem: String,
    size_bytes: u64,
    used_bytes: u64,
    volumes: usize,
    volume_bytes: u64,
    snapshots: usize,
    snapshot_bytes: u64,
    foreign_bytes: u64,
    committed_bytes: u64,
    unfinished: usize,
    trash: usize,
    quarantined: Vec<Bad>,
}

#[derive(Serialize)]
struct Bad {
    path: String,
    reason: String,
}

pub(crate) fn status(read: &ReadArgs) -> anyhow::Result<()> {
    let view = View::open(&read.pool)?;
    let status = gather(&view).with_context(|| format!("look at {}", read.pool.display()))?;
    match read.output {
        Output::Json => output::print_json(&status),
        Output::Table => output::print(&text(&status)),
    }
}

fn gather(view: &View) -> anyhow::Result<Status> {
    let figures = view.figures()?;
    Ok(Status {
        pool: view.path().display().to_string(),
        uuid: view.marker().uuid.clone(),
        node: view.marker().node.clone(),
        owned: view.is_owned()?,
        filesystem: format!("{:?}", view.filesystem()?).to_lowercase(),
        size_bytes: figures.size,
        used_bytes: figures.used,
        volumes: view.volumes().len(),
        volume_bytes: figures.volume_sizes,
        snapshots: view.snapshots().len(),
        snapshot_bytes: figures.snapshot_charges,
        foreign_bytes: figures.foreign(),
        committed_bytes: figures.committed(),
        unfinished: view.names(Part::Tmp)?.len(),
        trash: view.names(Part::Trash)?.len(),
        quarantined: view.quarantined().iter().map(bad).collect(),
    })
}

fn bad(folder: &Quarantined) -> Bad {
    Bad {
        path: folder.path.clone(),
        reason: folder.reason.clone(),
    }
}

fn text(status: &Status) -> String {
    let percent = |bytes: u64| bytes.saturating_mul(100) / status.size_bytes.max(1);
    let mut text = format!(
        "pool       {} ({}) on {}\n\
         node       {}, {}\n\
         size       {}, {} used ({} %)\n\
         promised   {} at most ({} %)\n\
         volumes    {}, {} in all\n\
         snapshots  {}, {} in all\n\
         others     {}\n",
        status.pool,
        status.uuid,
        status.filesystem,
        status.node,
        if status.owned {
            "served by a running process"
        } else {
            "not served now"
        },
        human(status.size_bytes),
        human(status.used_bytes),
        percent(status.used_bytes),
        human(status.committed_bytes),
        percent(status.committed_bytes),
        status.volumes,
        human(status.volume_bytes),
        status.snapshots,
        human(status.snapshot_bytes),
        human(status.foreign_bytes),
    );
    if status.unfinished + status.trash > 0 {
        let line = format!(
            "pending    {} unfinished, {} deleted and not freed yet\n",
            status.unfinished, status.trash
        );
        text.push_str(&line);
    }
    for folder in &status.quarantined {
        text.push_str(&format!(
            "KEPT, NOT USED  {}: {}\n",
            folder.path, folder.reason
        ));
    }
    text
}
