//! What people see of the programs from outside: metrics, `/healthz` and `/readyz`, the log.
//!
//! ```text
//! Registry ── metrics of a program ──┐
//! GrpcLayer ── one span, one count per gRPC call ──┤──> http::serve: /metrics /healthz /readyz
//! Check closures ────────────────────┘
//! ```
//! It knows no other crate of the project. Metrics are kept by `prometheus-client`, the Prometheus project's own library for
//! Rust. It is re-exported; a crate that derives label sets needs it as a dependency of its own.
#![forbid(unsafe_code)]

pub mod build;
pub mod grpc;
pub mod http;
pub mod log;
pub mod process;

pub use prometheus_client as prometheus;

/// A registry for one program: every metric in it gets the prefix `vd_`, and it has [`build`] and [`process`] metrics.
#[must_use]
pub fn registry(
    program: &'static str,
    version: &'static str,
) -> prometheus_client::registry::Registry {
    let mut registry = prometheus_client::registry::Registry::with_prefix("vd");
    build::register(&mut registry, program, version);
    process::register(&mut registry);
    registry
}
