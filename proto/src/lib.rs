//! CSI 1.13.0 as Rust types and gRPC services, and what every part of the driver that speaks CSI
//! must agree on: the one table of error codes, how nodes are named in topology, and what the driver
//! promises beyond CSI.
//!
//! This crate knows no other crate of the project.

pub mod errors;
pub mod manifest;
pub mod topology;

mod redact;

/// The Container Storage Interface.
pub mod csi {
    /// Package `csi.v1`, generated from `proto/csi/csi.proto`.
    ///
    /// `Debug` of a message with secrets or mount flags prints how many there are, never what
    /// they are.
    #[allow(
        missing_docs,
        unreachable_pub,
        rust_2018_idioms,
        clippy::all,
        clippy::allow_attributes_without_reason,
        clippy::too_many_lines,
        clippy::missing_errors_doc,
        clippy::semicolon_if_nothing_returned,
        clippy::large_futures,
        clippy::needless_pass_by_value,
        reason = "generated code"
    )]
    pub mod v1 {
        tonic::include_proto!("csi.v1");
        include!(concat!(env!("OUT_DIR"), "/csi.v1.debug.rs"));
    }
}

/// kubelet's plugin registration, package `pluginregistration`, generated from
/// `proto/pluginregistration/pluginregistration.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    rust_2018_idioms,
    clippy::all,
    clippy::too_many_lines,
    clippy::allow_attributes_without_reason,
    clippy::missing_errors_doc,
    clippy::semicolon_if_nothing_returned,
    clippy::needless_pass_by_value,
    reason = "generated code"
)]
pub mod pluginregistration {
    tonic::include_proto!("pluginregistration");
}

/// What `vdctl` asks of the owner of a pool, package `vd.v1`, generated from `proto/vd/admin.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    rust_2018_idioms,
    clippy::all,
    clippy::too_many_lines,
    clippy::allow_attributes_without_reason,
    clippy::missing_errors_doc,
    clippy::semicolon_if_nothing_returned,
    clippy::needless_pass_by_value,
    reason = "generated code"
)]
pub mod admin {
    tonic::include_proto!("vd.v1");
}

#[cfg(test)]
mod tests;
