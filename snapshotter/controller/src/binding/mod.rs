//! The half of the upstream snapshot-controller: which content belongs to which snapshot, what the snapshot's status says, and
//! who may go when.
//!
//! ```text
//! stores ── observe ──> plan (pure) ──> steps ──> act: one write each, by version
//!    ^                                              |
//!    └──────────────── what was written ────────────┘   until nothing is left to do
//! ```

mod act;
mod content;
mod deletion;
mod dynamic;
mod observe;
mod plan;
mod preprovisioned;
mod refusal;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use self::act::Binding;
