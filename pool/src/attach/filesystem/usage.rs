//! How full a mounted filesystem is.

use std::os::fd::AsFd;

use nix::sys::statvfs::fstatvfs;

use crate::error::{Context, Result};

/// Bytes and inodes of a mounted filesystem, counted as `df` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes that a program without privileges can still write.
    pub available_bytes: u64,
    /// Inodes in all.
    pub total_inodes: u64,
    /// Inodes in use.
    pub used_inodes: u64,
    /// Inodes left.
    pub free_inodes: u64,
}

/// Measures the filesystem that `any_file` lies on.
///
/// # Errors
/// `Io`.
pub fn usage(any_file: impl AsFd) -> Result<Usage> {
    let found = fstatvfs(any_file).during("measure the filesystem")?;
    let unit = found.fragment_size();
    Ok(Usage {
        total_bytes: found.blocks() * unit,
        used_bytes: found.blocks().saturating_sub(found.blocks_free()) * unit,
        available_bytes: found.blocks_available() * unit,
        total_inodes: found.files(),
        used_inodes: found.files().saturating_sub(found.files_free()),
        free_inodes: found.files_free(),
    })
}
