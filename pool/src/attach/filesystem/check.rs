//! Checking a filesystem before it is mounted for writing.

use std::path::Path;
use std::time::Duration;

use super::ext4;
use crate::attach::tool;
use crate::error::Result;
use crate::record::FsType;

/// A clean filesystem takes milliseconds. A damaged one of many terabytes takes long, and must not be stopped lightly.
const LIMIT: Duration = Duration::from_hours(2);

/// Checks the filesystem on `device`, which must not be mounted.
///
/// ext4 gets `e2fsck -p`: the journal is replayed, and what is safe is repaired. XFS has no such step: the kernel
/// replays its log when it is mounted, and `xfs_repair` is a decision that throws data away.
///
/// # Errors
/// `Corrupt` when a person must decide; the text has the command. `Precondition` when e2fsck is not installed.
pub fn check(device: &Path, fs: FsType) -> Result<()> {
    match fs {
        FsType::Xfs => Ok(()),
        FsType::Ext4 => {
            let name = device.display().to_string();
            let outcome = tool::run("e2fsck", &["-p", &name], LIMIT)?;
            if outcome.code != Some(0) {
                tracing::warn!(device = %name, code = ?outcome.code, output = %outcome.output, "e2fsck");
            }
            ext4::judge_check(&outcome, &name)
        }
    }
}
