//! Generates the CSI types and services.

fn main() {}
