//! The figures beside what they should be.

use crate::measure::{Figures, Plan};

const MIB: f64 = 1_048_576.0;

/// Everything, as Markdown.
pub(crate) fn of(plan: &Plan, ours: &Figures, upstream: &Figures) -> String {
    let mut lines = vec![
        row(&["what", "ours", "upstream pair", "aim", ""]),
        row(&["---", "---:", "---:", "---:", "---"]),
    ];
    lines.extend(times(plan, ours, upstream));
    lines.extend(requests(plan, ours, upstream));
    lines.extend(needs(plan, ours, upstream));
    lines.push(String::new());
    for (side, figures) in [("ours", ours), ("upstream", upstream)] {
        lines.push(format!(
            "{side}, made: {}",
            figures.few.made.each(plan.alone)
        ));
        lines.push(format!(
            "{side}, deleted: {}",
            figures.few.deleted.each(plan.alone)
        ));
        lines.push(format!(
            "{side}, at the start with many: {}",
            figures.many.at_start.each(1)
        ));
    }
    lines.join("\n")
}

fn times(plan: &Plan, ours: &Figures, upstream: &Figures) -> Vec<String> {
    let (mine, theirs) = (ours.few.alone, upstream.few.alone);
    let quick = mine.as_millis() <= 400 && mine * 4 <= theirs;
    #[expect(clippy::cast_precision_loss, reason = "dozens")]
    let rate = |figures: &Figures| plan.burst as f64 / figures.few.burst.as_secs_f64();
    let start = ours.many.start.as_secs_f64();
    vec![
        row(&[
            "VolumeSnapshot created to readyToUse, one at a time, p50",
            &format!("{} ms", mine.as_millis()),
            &format!("{} ms", theirs.as_millis()),
            "400 ms, and a quarter of upstream's",
            verdict(quick),
        ]),
        row(&[
            &format!("{} at once", plan.burst),
            &format!("{:.1}/s", rate(ours)),
            &format!("{:.1}/s", rate(upstream)),
            "10/s",
            verdict(rate(ours) >= 10.0),
        ]),
        row(&[
            &format!(
                "start with {} snapshots until one that waited is ready",
                plan.many
            ),
            &format!("{start:.1} s"),
            &format!("{:.1} s", upstream.many.start.as_secs_f64()),
            "10 s",
            verdict(start <= 10.0),
        ]),
    ]
}

fn requests(plan: &Plan, ours: &Figures, upstream: &Figures) -> Vec<String> {
    #[expect(clippy::cast_precision_loss, reason = "hundreds")]
    let each = |count: usize| format!("{:.1}", count as f64 / plan.alone as f64);
    let (mine, theirs) = (ours.few.made.count(None), upstream.few.made.count(None));
    let (mine_gone, theirs_gone) = (
        ours.few.deleted.count(None),
        upstream.few.deleted.count(None),
    );
    let lists = |figures: &Figures| figures.many.at_start.count(Some("list"));
    vec![
        row(&[
            "requests to the API server for a snapshot that is made",
            &each(mine),
            &each(theirs),
            "not more than upstream",
            verdict(mine <= theirs),
        ]),
        row(&[
            "the same for its deletion",
            &each(mine_gone),
            &each(theirs_gone),
            "not more than upstream",
            verdict(mine_gone <= theirs_gone),
        ]),
        row(&[
            &format!("lists at a start with {} snapshots", plan.many),
            &lists(ours).to_string(),
            &lists(upstream).to_string(),
            "not more than upstream",
            verdict(lists(ours) <= lists(upstream)),
        ]),
    ]
}

fn needs(plan: &Plan, ours: &Figures, upstream: &Figures) -> Vec<String> {
    let fits = ours.many.needs.resident <= 48 << 20;
    vec![
        row(&[
            "memory with one snapshot",
            &mib(ours.few.needs.resident),
            &mib(upstream.few.needs.resident),
            "",
            "",
        ]),
        row(&[
            &format!(
                "memory with {} snapshots (the most there ever was)",
                plan.many
            ),
            &format!(
                "{} ({})",
                mib(ours.many.needs.resident),
                mib(ours.many.needs.peak)
            ),
            &format!(
                "{} ({})",
                mib(upstream.many.needs.resident),
                mib(upstream.many.needs.peak)
            ),
            "48 MiB",
            verdict(fits),
        ]),
        row(&[
            &format!(
                "processor time with {} snapshots and nothing to do",
                plan.many
            ),
            &format!("{:.1} m", ours.many.idle),
            &format!("{:.1} m", upstream.many.idle),
            "not more than upstream",
            verdict(ours.many.idle <= upstream.many.idle),
        ]),
    ]
}

fn mib(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let bytes = bytes as f64;
    format!("{:.1} MiB", bytes / MIB)
}

fn verdict(holds: bool) -> &'static str {
    if holds { "OK" } else { "NO" }
}

fn row(cells: &[&str]) -> String {
    format!("| {} |", cells.join(" | "))
}
