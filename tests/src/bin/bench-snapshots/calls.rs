//! Who has asked the API server for what.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// How often what was asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(BTreeMap<String, usize>);

impl Calls {
    /// All requests of these users so far. Leases are left out: they have to do with time and not with snapshots.
    pub(crate) fn of(log: &Path, users: &[&str]) -> Result<Self> {
        let mut calls = Self::default();
        let file = std::fs::File::open(log).with_context(|| log.display().to_string())?;
        for line in BufReader::new(file).lines() {
            let event: Value = serde_json::from_str(&line?).context("a line of the audit log")?;
            let user = event.pointer("/impersonatedUser/username");
            let user = user.and_then(Value::as_str).unwrap_or_default();
            if !users.contains(&user) {
                continue;
            }
            let text = |path: &str| {
                event
                    .pointer(path)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            let (kind, part) = (text("/objectRef/resource"), text("/objectRef/subresource"));
            let begins = text("/stage") == "ResponseStarted";
            if kind == "leases" || begins != (text("/verb") == "watch") {
                continue;
            }
            let slash = if part.is_empty() { "" } else { "/" };
            let uri = text("/requestURI");
            // A list may come in pages, and as the beginning of a watch.
            let verb = if uri.contains("continue=") {
                "page"
            } else if uri.contains("sendInitialEvents=true") {
                "list"
            } else {
                text("/verb")
            };
            let name = format!("{verb} {kind}{slash}{part}");
            *calls.0.entry(name).or_default() += 1;
        }
        Ok(calls)
    }

    /// What was asked since.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let less = |(name, count): (&String, &usize)| {
            let earlier = before.0.get(name).copied().unwrap_or_default();
            (*count > earlier).then(|| (name.clone(), count - earlier))
        };
        Self(self.0.iter().filter_map(less).collect())
    }

    /// How many of a verb, or of all.
    pub(crate) fn count(&self, verb: Option<&str>) -> usize {
        let named = |name: &str| verb.is_none_or(|verb| name.starts_with(&format!("{verb} ")));
        self.0
            .iter()
            .filter(|(name, _)| named(name))
            .map(|(_, count)| count)
            .sum()
    }

    /// Each with how often it came for one of so many.
    pub(crate) fn each(&self, of: usize) -> String {
        #[expect(clippy::cast_precision_loss, reason = "hundreds")]
        let each =
            |(name, count): (&String, &usize)| format!("{:.1} {name}", *count as f64 / of as f64);
        self.0.iter().map(each).collect::<Vec<_>>().join(", ")
    }
}
