//! Medians, ratios and Markdown.

use std::fmt::Write as _;
use std::time::Duration;

/// A table as Markdown: a header and rows of as many cells.
pub(crate) struct Table {
    text: String,
}

impl Table {
    /// With these columns; all but the first are figures.
    pub(crate) fn new(columns: &[&str]) -> Self {
        let mut table = Self {
            text: String::new(),
        };
        table.row(columns);
        let rule: Vec<&str> = (0..columns.len())
            .map(|at| if at == 0 { "---" } else { "---:" })
            .collect();
        table.row(&rule);
        table
    }

    /// One more row.
    pub(crate) fn row<S: AsRef<str>>(&mut self, cells: &[S]) {
        for cell in cells {
            // Writing into a String does not fail.
            let _written = write!(self.text, "| {} ", cell.as_ref());
        }
        self.text.push_str("|\n");
    }

    /// The whole table.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// The middle one; of an even number the mean of the two in the middle. Zero of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match (sorted.get(half), sorted.len() % 2) {
        (None, _none) => 0.0,
        (Some(middle), 1) => *middle,
        (Some(upper), _even) => f64::midpoint(sorted[half - 1], *upper),
    }
}

/// The median of durations, in milliseconds.
pub(crate) fn median_ms(values: &[Duration]) -> f64 {
    let values: Vec<f64> = values
        .iter()
        .map(|value| value.as_secs_f64() * 1000.0)
        .collect();
    median(&values)
}

/// Milliseconds as a cell: with as many digits as mean something.
pub(crate) fn ms(value: f64) -> String {
    match value {
        _ if value < 10.0 => format!("{value:.1} ms"),
        _ if value < 10_000.0 => format!("{value:.0} ms"),
        _ => format!("{:.1} s", value / 1000.0),
    }
}

/// A measured value beside its limit.
pub(crate) fn verdict(holds: bool) -> &'static str {
    if holds { "yes" } else { "**no**" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_what_was_measured() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new(&["a", "b"]);
        table.row(&["1".to_owned(), ms(12.34)]);
        assert_eq!(table.text(), "| a | b |\n| --- | ---: |\n| 1 | 12 ms |\n");
    }
}
