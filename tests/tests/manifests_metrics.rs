//! Alerts and dashboard ask for metrics that exist, and every alert says what to do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::collections::BTreeSet;

use serde_json::Value;
use tests::binaries;
use tests::manifests::documents::{deploy, parse, text};
use tests::manifests::metrics::{EXPORTED, base, named};

fn rules() -> Vec<Value> {
    let file = parse(&text(&deploy("chart/vd-csi/files/alerts/vd-csi.yaml")));
    let groups = file[0]["groups"].as_array().expect("groups").clone();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules").clone())
        .collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&text(&deploy("chart/vd-csi/files/grafana/vd-csi.json")))
        .expect("a dashboard is JSON")
}

/// Every value of `key` below `value`.
fn all<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get(key));
            for inner in object.values() {
                all(inner, key, found);
            }
        }
        Value::Array(array) => {
            for inner in array {
                all(inner, key, found);
            }
        }
        _ => {}
    }
}

fn check(queries: impl Iterator<Item = String>) -> BTreeSet<String> {
    let mut asked = BTreeSet::new();
    for query in queries {
        for name in named(&query) {
            assert!(
                EXPORTED.contains(&base(name)),
                "nothing exports {name}, in {query}"
            );
            asked.insert(base(name).to_owned());
        }
    }
    asked
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_are_exported() {
    let dashboard = dashboard();
    let mut queries = Vec::new();
    all(&dashboard, "expr", &mut queries);
    all(&dashboard, "query", &mut queries);
    let shown = check(
        queries
            .iter()
            .filter_map(|query| query.as_str().map(str::to_owned)),
    );
    let watched = check(rules().iter().map(|rule| rule["expr"].to_string()));
    assert!(!watched.is_empty());
    // What is measured is to be seen somewhere, but for details of a process.
    let details = ["vd_process_threads", "vd_process_open_files"];
    for name in EXPORTED.iter().filter(|name| !details.contains(name)) {
        assert!(
            shown.contains(*name) || watched.contains(*name),
            "{name} is shown nowhere"
        );
    }
}

#[test]
fn every_alert_has_an_entry_in_the_runbook_and_says_what_it_means() {
    let runbook = text(&binaries::project().join("docs/runbook.md"));
    let mut names = BTreeSet::new();
    for rule in rules() {
        let name = rule["alert"].as_str().expect("a name").to_owned();
        let link = rule["annotations"]["runbook"].as_str().unwrap_or_default();
        let anchor = link.strip_prefix("docs/runbook.md#").unwrap_or_default();
        let heading = runbook.lines().any(|line| {
            line.strip_prefix("## ")
                .is_some_and(|title| title.to_lowercase() == anchor)
        });
        assert!(
            heading,
            "{name}: docs/runbook.md has no heading for {link:?}"
        );
        assert!(
            rule["annotations"]["summary"].is_string(),
            "{name} says nothing"
        );
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        assert!(
            ["info", "warning", "critical"].contains(&severity),
            "{name}: {severity:?}"
        );
        assert!(names.insert(name.clone()), "{name} is there twice");
    }
}

#[test]
fn panels_of_the_dashboard_lie_side_by_side() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    let place = |panel: &Value, key: &str| panel["gridPos"][key].as_u64().expect("a place");
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(
            ids.insert(panel["id"].as_u64().expect("an id")),
            "{} twice",
            panel["id"]
        );
        for x in place(panel, "x")..place(panel, "x") + place(panel, "w") {
            for y in place(panel, "y")..place(panel, "y") + place(panel, "h") {
                assert!(x < 24, "{} is wider than the page", panel["title"]);
                assert!(taken.insert((x, y)), "{} lies on another", panel["title"]);
            }
        }
    }
}
