//! Taking back what a forgotten unstage left.
//!
//! kubelet forgets NodeUnstage when it is restarted at the wrong moment, and never makes up for it. The volume's deletion
//! comes all the same, with a mount or a loop device still there.

use std::fs::File;

use pool::attach::loop_device::{self, ImageKey, Usage};
use pool::attach::mount;
use pool::attach::mountinfo::MountTable;
use pool::attach::target::TargetBase;
use pool::{Error, ErrorKind, Result};

use super::forgotten;

/// Unmounts and detaches what nobody uses any more. A filesystem that is mounted in one place only is staged and not
/// published; the kernel refuses to unmount it while a process has a file open there.
///
/// # Errors
/// `InUse` when somebody uses it; it is left as it is then.
pub(super) fn release_unused(image: &File) -> Result<()> {
    for device in loop_device::find(ImageKey::of(image)?)? {
        forgotten::unpublish(&device)?;
        if let Usage::Mounted(at) = loop_device::usage(&device)? {
            let mounts = MountTable::read()?;
            let places = mounts.of_filesystem(device.device_number()).count();
            let published = || {
                Error::new(
                    ErrorKind::InUse,
                    format!(
                        "it is mounted at {} and in {places} places in all",
                        at.display()
                    ),
                )
            };
            if places > 1 {
                return Err(published());
            }
            let path = at.to_str().ok_or_else(published)?;
            if let Some(target) = TargetBase::anywhere().open(path)? {
                mount::unmount_top(&target)?;
                tracing::info!(
                    at = path,
                    "unmounted a volume that was staged and not used any more"
                );
            }
        }
        loop_device::detach(&device)?;
    }
    Ok(())
}
