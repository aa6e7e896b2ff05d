//! Leftovers, and whether what was promised can be kept.

use pool::capacity::Policy;
use pool::size::human;
use pool::{Part, View};

use super::Report;

pub(super) fn check(view: &View, report: &mut Report) -> anyhow::Result<()> {
    let figures = view.figures()?;
    // The owner may run with a reserve of its own; more than there is can never be kept at ratio 1.0.
    let everything = Policy {
        overcommit: 1.0,
        reserve: pool::capacity::Reserve::Bytes(0),
    };
    if figures.committed() > figures.limit(&everything) {
        report.add(
            "capacity",
            format!(
                "volumes and snapshots may come to hold {}, the filesystem has {} (expected at an overcommit above 1.0, or when others fill it)",
                human(figures.committed()),
                human(figures.size)
            ),
        );
    }
    if view.is_owned()? {
        return Ok(());
    }
    for name in view.names(Part::Tmp)? {
        report.add(
            format!("tmp/{name}"),
            "was left by an interrupted operation; the next start removes it",
        );
    }
    for name in view.names(Part::Trash)? {
        report.add(
            format!("trash/{name}"),
            "was deleted and is not freed; the next start frees it",
        );
    }
    Ok(())
}
