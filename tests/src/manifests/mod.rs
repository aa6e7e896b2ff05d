//! What the tests of `deploy/` stand on: its YAML, and a real API server that says what it thinks of it.

pub mod api_server;
pub mod documents;
pub mod metrics;
pub mod programs;
pub mod sidecars;
