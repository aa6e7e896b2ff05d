//! Records, images, and what lies beside them.

use nix::sys::stat::FileStat;
use pool::{Part, View};

use super::Report;

const VOLUME_FILES: [&str; 2] = ["disk.img", "record"];
const RECORD_TEMPORARY: &str = "record.tmp";
const SNAPSHOT_FILES: [&str; 2] = ["image.qcow2", "record"];

pub(super) fn check(view: &View, report: &mut Report) -> anyhow::Result<()> {
    for folder in view.quarantined() {
        report.add(folder.path.clone(), folder.reason.clone());
    }
    for volume in view.volumes() {
        let id = volume.id.as_str();
        let Some(files) = files(view, Part::Volumes, id)? else {
            continue;
        };
        strangers(&files, &VOLUME_FILES, id, report);
        leftover(view, &files, id, report)?;
        match size(&files, "disk.img") {
            None => report.add(id, "its image disk.img is missing"),
            // While a volume grows, its image may have any size up to the goal.
            Some(size) if !(volume.size_bytes..=volume.charge_bytes()).contains(&size) => {
                report.add(
                    id,
                    format!(
                        "its image has {size} bytes, its record says {}",
                        volume.size_bytes
                    ),
                );
            }
            Some(_) => {}
        }
        mode(&files, "disk.img", 0o600, id, report);
    }
    for snapshot in view.snapshots() {
        let id = snapshot.id.as_str();
        let Some(files) = files(view, Part::Snapshots, id)? else {
            continue;
        };
        strangers(&files, &SNAPSHOT_FILES, id, report);
        leftover(view, &files, id, report)?;
        if size(&files, "image.qcow2").is_none() {
            report.add(id, "its image image.qcow2 is missing");
        }
        mode(&files, "image.qcow2", 0o400, id, report);
    }
    Ok(())
}

type Files = Vec<(String, FileStat)>;

/// The files of an object; `None` when it was deleted meanwhile.
fn files(view: &View, part: Part, id: &str) -> anyhow::Result<Option<Files>> {
    match view.object_files(part, id) {
        Ok(files) => Ok(Some(files)),
        Err(error) if error.kind() == pool::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn strangers(files: &Files, known: &[&str], id: &str, report: &mut Report) {
    for (name, _) in files {
        if !known.contains(&name.as_str()) && name != RECORD_TEMPORARY {
            report.add(id, format!("{name:?} lies in its folder and is not ours"));
        }
    }
}

/// What a record was to be replaced by. A server may be doing that right now.
fn leftover(view: &View, files: &Files, id: &str, report: &mut Report) -> anyhow::Result<()> {
    let is_there = files.iter().any(|(name, _)| name == RECORD_TEMPORARY);
    if is_there && !view.is_owned()? {
        report.add(
            id,
            format!(
                "{RECORD_TEMPORARY} was left by an interrupted change; the next start removes it"
            ),
        );
    }
    Ok(())
}

fn size(files: &Files, name: &str) -> Option<u64> {
    let (_, stat) = files.iter().find(|(found, _)| found == name)?;
    u64::try_from(stat.st_size).ok()
}

fn mode(files: &Files, name: &str, expected: u32, id: &str, report: &mut Report) {
    if let Some((_, stat)) = files.iter().find(|(found, _)| found == name)
        && stat.st_mode & 0o7777 != expected
    {
        report.add(
            id,
            format!(
                "{name} has mode {:04o} instead of {expected:04o}",
                stat.st_mode & 0o7777
            ),
        );
    }
}
