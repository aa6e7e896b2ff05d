//! CSI 1.13.0 as Rust types and gRPC services, and the one table of error codes.
//!
//! This crate knows no other crate of the project: everything that speaks CSI depends on it.

pub mod errors;
