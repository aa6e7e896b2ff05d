//! What the pool's own operations have to know of loop devices.

use std::fs::File;

use crate::attach::freeze;
use crate::attach::loop_device::{self, ImageKey};
use crate::error::{Error, ErrorKind, Result};

/// Makes every writable loop device on `image` as large as the image is now.
pub(crate) fn grow_loops(image: &File) -> Result<()> {
    for device in loop_device::find(ImageKey::of(image)?)? {
        loop_device::set_capacity(&device, image)?;
    }
    Ok(())
}

/// `InUse` while a loop device is bound to `image`.
pub(crate) fn refuse_if_attached(image: &File, id: &str) -> Result<()> {
    match loop_device::find(ImageKey::of(image)?)?.first() {
        None => Ok(()),
        Some(device) => Err(Error::new(
            ErrorKind::InUse,
            format!(
                "{id} is attached as {}: unpublish and unstage it first",
                device.path().display()
            ),
        )),
    }
}

/// Thaws filesystems in volumes of the pool on `pool_device` that a dead process left frozen.
pub(crate) fn thaw_all(pool_device: u64) -> Result<()> {
    let thawed = freeze::thaw_all(pool_device)?;
    if thawed > 0 {
        tracing::warn!(
            thawed,
            "thawed filesystems that a stopped process had left frozen"
        );
    }
    Ok(())
}
