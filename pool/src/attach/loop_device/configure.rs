//! Binding an image to a loop device.

use std::fs::File;

use super::{
    ImageKey, LoopDevice, SECTOR_BYTES, exclusive, find, is_gone, node, number, read_status,
};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys;

/// How many numbers of devices are tried that others have taken.
const ATTEMPTS: usize = 64;

/// A device, and whether it is new.
#[derive(Clone, Copy, Debug)]
pub struct Attached {
    /// The device.
    pub device: LoopDevice,
    /// We bound it just now: whoever fails after this detaches it again.
    pub fresh: bool,
}

/// The loop device of `image`, made if there is none. Idempotent; safe from any number of threads. What is made has the number
/// that belongs to `name`, the volume's, unless that is taken.
///
/// A writable and a read-only device of one image may exist beside each other, but never two writable ones. An existing
/// device is grown to the size of the image. `image` must be open for writing unless `read_only`.
///
/// # Errors
/// `InUse` when somebody bound only a part of the image, or bound it twice; `Busy` when others took each device that it may
/// have; `Io`.
pub fn attach(image: &File, name: &str, read_only: bool) -> Result<Attached> {
    let key = ImageKey::of(image)?;
    let control = number::control()?;
    let _lock = exclusive();
    number::keep_spare(&control)?;
    let existing = find(key)?;
    if let Some(device) = choose(&existing, read_only)? {
        return Ok(Attached {
            device: adopt(device, image)?,
            fresh: false,
        });
    }
    let device = configure(&control, image, key, name, read_only)?;
    Ok(Attached {
        device,
        fresh: true,
    })
}

/// Makes the device as large as its image is now. Never shrinks. Answers the size in bytes.
///
/// # Errors
/// `NotFound` when the device is gone, `Io`.
pub fn set_capacity(device: &LoopDevice, image: &File) -> Result<u64> {
    let wanted = image.metadata().during("examine the image")?.len();
    let file = device.open()?;
    let present = sys::block_device_bytes(&file).during("ask the size of a loop device")?;
    if present >= wanted {
        return Ok(present);
    }
    sys::loop_set_capacity(&file)
        .context_with(|| format!("grow {} to {wanted} bytes", device.path().display()))?;
    sys::block_device_bytes(&file).during("ask the size of a loop device")
}

/// Which of the image's devices serves, if any: pure, so that every refusal is tested.
fn choose(existing: &[LoopDevice], read_only: bool) -> Result<Option<LoopDevice>> {
    if let Some(part) = existing.iter().find(|device| !device.whole) {
        return Err(Error::new(
            ErrorKind::InUse,
            format!(
                "{} shows a part of the image and was not made by this program: detach it (losetup -d {0})",
                part.path().display()
            ),
        ));
    }
    let mut matching = existing
        .iter()
        .filter(|device| device.read_only == read_only);
    match (matching.next(), matching.next()) {
        (Some(first), Some(second)) if !read_only => Err(Error::new(
            ErrorKind::InUse,
            format!(
                "the image is bound for writing to both {} and {}: detach the one that nobody uses (losetup -d)",
                first.path().display(),
                second.path().display()
            ),
        )),
        (first, _) => Ok(first.copied()),
    }
}

fn adopt(device: LoopDevice, image: &File) -> Result<LoopDevice> {
    if device.autoclear {
        let file = device.open()?;
        sys::loop_set_autoclear(&file, false)
            .context_with(|| format!("keep {}", device.path().display()))?;
    }
    set_capacity(&device, image)?;
    Ok(LoopDevice {
        autoclear: false,
        ..device
    })
}

fn configure(
    control: &File,
    image: &File,
    key: ImageKey,
    name: &str,
    read_only: bool,
) -> Result<LoopDevice> {
    for number in number::of(name, read_only).take(ATTEMPTS) {
        number::add(control, number)?;
        let opened = if read_only {
            node::open(number, false)
        } else {
            node::open_for_writing(number)
        };
        let file = match opened {
            Ok(file) => file,
            // Somebody is just removing it.
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        if bind(&file, image, read_only)? {
            return verify(number, &file, key, read_only);
        }
    }
    Err(Error::new(
        ErrorKind::Busy,
        format!(
            "others have taken each of {ATTEMPTS} loop devices that the volume may have: try again"
        ),
    ))
}

/// Answers false when another process took the device first.
fn bind(device: &File, image: &File, read_only: bool) -> Result<bool> {
    let mut config = sys::LoopConfig {
        read_only,
        direct_io: true,
        block_size: SECTOR_BYTES,
    };
    let mut result = sys::loop_configure(device, image, config);
    if let Err(error) = &result
        && error.raw_os_error() == Some(libc::EINVAL)
    {
        // A filesystem without direct I/O: a slower device is better than none, and the status says so.
        config.direct_io = false;
        result = sys::loop_configure(device, image, config);
    }
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(false),
        Err(error) => Err(Error::io("bind the image to a loop device", error)),
    }
}

/// What the kernel made of the request; releases it again when that is not what was asked.
fn verify(number: u32, file: &File, key: ImageKey, read_only: bool) -> Result<LoopDevice> {
    let device = read_status(number, file)?;
    if let Some(device) = device
        && device.image == key
        && device.read_only == read_only
        && device.whole
    {
        if !device.direct_io {
            tracing::warn!(
                device = %device.path().display(),
                "no direct I/O: the disk below cannot do it with 512-byte sectors"
            );
        }
        return Ok(device);
    }
    sys::loop_clear(file).during("release a loop device")?;
    Err(Error::new(
        ErrorKind::Internal,
        format!(
            "/dev/loop{number} did not become what was asked (read-only: {read_only}): {device:?}"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: u32, read_only: bool) -> LoopDevice {
        LoopDevice {
            number,
            rdev: 0x700,
            image: ImageKey {
                device: 1,
                inode: 2,
            },
            read_only,
            direct_io: true,
            autoclear: false,
            whole: true,
            backing_rdev: 0,
        }
    }

    #[test]
    fn the_device_of_the_same_kind_serves() {
        let both = [device(1, true), device(2, false)];
        assert_eq!(choose(&both, false).unwrap().unwrap().number, 2);
        assert_eq!(choose(&both, true).unwrap().unwrap().number, 1);
        assert!(choose(&both[..1], false).unwrap().is_none());
        assert!(choose(&[], true).unwrap().is_none());
    }

    #[test]
    fn an_image_bound_twice_for_writing_is_refused() {
        let twice = [device(1, false), device(2, false)];
        assert_eq!(choose(&twice, false).unwrap_err().kind(), ErrorKind::InUse);
        assert!(choose(&twice, true).unwrap().is_none());
    }

    #[test]
    fn a_device_over_a_part_of_the_image_is_refused() {
        let part = LoopDevice {
            whole: false,
            ..device(1, true)
        };
        for read_only in [true, false] {
            assert_eq!(
                choose(&[part], read_only).unwrap_err().kind(),
                ErrorKind::InUse
            );
        }
    }
}
