//! What the integration tests stand on: a scratch filesystem, the real server on a socket, a client, and the checks that
//! every test ends with.
//!
//! A test starts from one [`Fixture`](fixture::Fixture): it makes a filesystem in a file, initialises a pool on it and
//! starts `vdctl serve`. When it goes out of scope, `vdctl pool check` must be clean and nothing of the test may be left:
//! no mount, no loop device, no process. Everything here panics with a sentence when it fails: that is how a test reports.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "code for tests: a panic is how it reports"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the ban on std::fs::write and friends protects pools; tests make and remove their own folders"
)]

pub mod bad_disk;
pub mod binaries;
pub mod capabilities;
pub mod chance;
pub mod check;
pub mod client;
pub mod cluster;
pub mod content;
pub mod crash;
pub mod damage;
pub mod file_writer;
pub mod fixture;
pub mod history;
pub mod integrity;
pub mod kubelet;
pub mod kubernetes;
pub mod loops;
pub mod manifests;
pub mod memory;
pub mod mounts;
pub mod packing;
pub mod populate;
pub mod records;
pub mod requests;
pub mod residue;
pub mod rewrite;
pub mod sanity;
pub mod scratch_fs;
pub mod server;
pub mod siege;
pub mod small_disk;
pub mod tools;
pub mod tree;
pub mod wait;
pub mod writer;

pub use proto::csi::v1 as csi;
