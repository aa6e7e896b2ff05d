//! The kernel calls that have no safe wrapper in a library.
//!
//! This module is the only place in the project with `unsafe`. Every function is one call: it takes file descriptors
//! and plain numbers, and answers what the kernel answered. No policy, no retries, no paths.
#![allow(
    unsafe_code,
    reason = "the one module of the project for raw kernel calls"
)]

mod abi;
mod clone;
mod extents;
mod freeze;
mod grow;
mod inode_flags;
mod loop_device;
mod priority;
mod write_out;

pub use clone::{clone_file, clone_range};
pub use extents::{Extent, extents};
pub use freeze::{freeze, shutdown_xfs, thaw};
pub use grow::{XfsGeometry, grow_ext4, grow_xfs, xfs_geometry};
pub use inode_flags::{cow_extent_size, is_nocow, set_cow_extent_size, set_nocow};
pub use loop_device::{
    LoopConfig, LoopStatus, block_device_bytes, loop_add, loop_clear, loop_configure, loop_remove,
    loop_set_autoclear, loop_set_capacity, loop_status,
};
pub use priority::{give_way, yield_to_others};
pub use write_out::{begin_write_out, write_out};
