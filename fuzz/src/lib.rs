//! Hostile input for everything in this project that reads what others wrote.
//!
//! | Module | What it is |
//! |---|---|
//! | [`targets`] | one function for each reader: takes any bytes, and panics when a promise is broken |
//! | [`seeds`] | images by `qemu-img`, in every form that is accepted |
//! | [`anatomy`] | where the fields and tables of an image are |
//! | [`mutation`] | changes that know what they change, repeatable by a number |
//! | [`handmade`] | images that no tool would make |
//! | [`campaign`] | many mutated images through the strict reader, with bounds on time and memory |
//!
//! The same [`targets`] are called by libFuzzer (`tools/fuzz.sh`) and, with every input that ever broke one, by
//! `cargo test`.
#![forbid(unsafe_code)]
#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a broken promise is reported by a panic"
)]

pub mod anatomy;
pub mod campaign;
pub mod handmade;
pub mod mutation;
pub mod seeds;
pub mod targets;
