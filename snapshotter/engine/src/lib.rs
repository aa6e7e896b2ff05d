//! Raw disk images to standalone qcow2 files and back.
//!
//! A snapshot is one qcow2 file in the identity layout ([`Layout`]): all metadata in front, and behind it the disk's
//! bytes in one piece, in disk order. On a filesystem that shares blocks between files, capturing a live disk is
//! therefore one ioctl, and restoring it is one ioctl back; elsewhere both are sparse copies with the same result.
//!
//! ```text
//!   source.img            image.qcow2                              target.img
//!   0 ........ V          0 ..... M ................ M+V           0 ........ V ... T
//!   |  disk   |  --cut->  | meta  |  disk          |   --restore-> |  disk   | zero |
//! ```
//!
//! The order of a capture is [`Cut::prepare`], then [`Cut::reflink`] or [`Cut::copy`] (the point in time), then
//! [`Cut::finish`]. The image is private to the caller until it is finished and published; nothing here renames,
//! deletes or names a file, so what is left behind by a failure is the caller's private file alone.
//!
//! This crate reads only images that it wrote itself and whose digest a record holds. Everything blocks; nothing
//! panics on what it reads. Errors are [`pool::Error`]s.
#![forbid(unsafe_code)]

mod capture;
mod copy;
mod data_map;
mod digest;
mod header;
mod layout;
mod mapping;
mod restore;
mod tables;
mod verify;

pub use capture::{Captured, Cut};
pub use copy::Watch;
pub use digest::metadata_digest;
pub use layout::{CLUSTER_BYTES, Layout, MAX_VIRTUAL_BYTES, MIN_VIRTUAL_BYTES};
pub use restore::{clone_raw, copy_raw, restore};
pub use verify::{Findings, Problem, verify};
