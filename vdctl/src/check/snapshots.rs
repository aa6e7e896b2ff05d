//! Snapshot images, against their records and against the format.

use pool::ErrorKind::{Corrupt, NotFound};
use pool::View;

use super::Report;
use crate::output::Progress;

pub(super) fn check(view: &View, report: &mut Report) -> anyhow::Result<()> {
    let snapshots = view.snapshots();
    let progress = Progress::new("checking snapshot", snapshots.len());
    for (number, snapshot) in snapshots.enumerate() {
        progress.at(number + 1);
        let id = snapshot.id.as_str();
        if let Some(damage) = &snapshot.damage {
            report.add(id, format!("marked as damaged: {}", damage.reason));
        }
        // Anew, and both at once: since the list was read it may have been replaced.
        let opened = match view.open_snapshot(&snapshot.id) {
            Ok(opened) => opened,
            // Deleted meanwhile, or damaged or missing: said elsewhere.
            Err(error) if matches!(error.kind(), NotFound | Corrupt) => continue,
            Err(error) => return Err(error.into()),
        };
        let findings = snapshot_engine::verify(opened.image(), &opened.record)?;
        for problem in &findings.problems {
            report.add(id, problem.to_string());
        }
        if findings.more > 0 {
            report.add(id, format!("{} more problems", findings.more));
        }
    }
    Ok(())
}
