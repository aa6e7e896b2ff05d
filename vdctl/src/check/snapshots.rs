//! Snapshot images, against their records and against the format.

use pool::View;

use super::Report;
use crate::output::Progress;

pub(super) fn check(view: &View, report: &mut Report) -> anyhow::Result<()> {
    let snapshots = view.snapshots();
    let progress = Progress::new("checking snapshot", snapshots.len());
    for (number, snapshot) in snapshots.enumerate() {
        progress.at(number + 1);
        let id = snapshot.id.as_str();
        let image = match view.snapshot_image(&snapshot.id) {
            Ok(image) => image,
            // Deleted meanwhile, or missing: said elsewhere.
            Err(error) if error.kind() == pool::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        let findings = snapshot_engine::verify(&image, snapshot)?;
        for problem in &findings.problems {
            report.add(id, problem.to_string());
        }
        if findings.more > 0 {
            report.add(id, format!("{} more problems", findings.more));
        }
    }
    Ok(())
}
