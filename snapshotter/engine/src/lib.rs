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
//! [`Cut::finish`] and [`ReadBack::compare`]. The image is private to the caller until it is finished and published; nothing here renames,
//! deletes or names a file, so what is left behind by a failure is the caller's private file alone.
//!
//! A snapshot may later be packed ([`pack`]): another qcow2 file of the same disk, compressed and compact. All the others here
//! take either; which one it is, the record says.
//!
//! Snapshots are read only when they are the images that this crate wrote, whose digest a record holds. What anybody
//! else may have made goes through the strict [`reader`], which is a world of its own. Everything blocks; nothing panics
//! on what it reads. Errors are [`pool::Error`]s.
#![forbid(unsafe_code)]

mod advice;
mod capture;
mod compact;
mod copy;
mod data_digest;
mod data_map;
mod digest;
mod direct;
mod export;
mod gang;
mod header;
mod huge;
mod import;
mod layout;
mod mapping;
mod pack;
mod packed;
pub mod reader;
mod restore;
mod tables;
mod unpack;
mod verify;

pub use capture::{Captured, Cut, ReadBack};
pub use copy::{Watch, data_bytes};
pub use data_digest::{data_digest, verify_with_data};
pub use digest::metadata_digest;
pub use export::{export, export_compressed};
pub use import::{import_qcow2, import_raw};
pub use layout::{CLUSTER_BYTES, Layout, MAX_VIRTUAL_BYTES, MIN_VIRTUAL_BYTES};
pub use pack::{Pack, PackedFile, Proof, pack};
pub use restore::{clone_raw, copy_raw, restore};
pub use verify::{Findings, Problem, verify};
