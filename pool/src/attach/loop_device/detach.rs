//! Releasing a loop device, when nothing uses it.

use std::fs::File;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::{LoopDevice, bound, exclusive, node, number, read_status, status};
use crate::attach::mountinfo::{DeviceNumber, MountTable};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys;

/// How long a release may take until we say that somebody holds the device. The kernel releases within microseconds,
/// but a passing `blkid` or `udevd` may have it open.
const RELEASE: Duration = Duration::from_secs(3);

/// Who uses a loop device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Nobody that can be seen. A process may still have it open.
    None,
    /// Its filesystem is mounted here.
    Mounted(PathBuf),
    /// The device is bind-mounted here: a Block volume is published.
    Published(PathBuf),
    /// Another loop device lies on it, as kubelet makes one for each Block volume that a pod uses.
    Held(u32),
}

/// Who uses `device`, as far as mounts and other loop devices tell.
///
/// # Errors
/// `Io` when `/proc` or sysfs cannot be read.
pub fn usage(device: &LoopDevice) -> Result<Usage> {
    usage_of(device.number, device.rdev)
}

pub(super) fn usage_of(number: u32, rdev: u64) -> Result<Usage> {
    let mounts = MountTable::read()?;
    if let Some(mount) = mounts.of_filesystem(DeviceNumber::from_raw(rdev)).next() {
        return Ok(Usage::Mounted(mount.mount_point.clone()));
    }
    if let Some(mount) = mounts.of_loop_node(number).next() {
        return Ok(Usage::Published(mount.mount_point.clone()));
    }
    Ok(on_top(number, rdev)?.map_or(Usage::None, Usage::Held))
}

/// Whether another loop device lies on `device`, which [`usage`] tells only of one that is neither mounted nor published.
///
/// # Errors
/// `Io` when sysfs cannot be read.
pub fn is_held(device: &LoopDevice) -> Result<bool> {
    Ok(on_top(device.number, device.rdev)?.is_some())
}

/// The number of the loop device that lies on this one.
fn on_top(number: u32, rdev: u64) -> Result<Option<u32>> {
    let holder = bound()?
        .into_iter()
        .find(|other| other.backing_rdev == rdev && other.number != number);
    Ok(holder.map(|holder| holder.number))
}

/// Whether somebody has claimed `device` whom [`usage`] may not see: it is mounted in another mount namespace, or part of another
/// device. A pod keeps its mounts when kubelet takes the node's away from under it.
///
/// It is asked by claiming the device for an instant: nobody may be mounting it just now.
///
/// # Errors
/// `Io` when the device cannot be opened.
pub fn is_claimed(device: &LoopDevice) -> Result<bool> {
    let _lock = exclusive();
    match holder(device.number) {
        Ok(_free) => Ok(false),
        Err(error) if error.kind() == ErrorKind::InUse => Ok(true),
        Err(error) => Err(error),
    }
}

/// Unbinds `device` from its image and waits until that is so. Idempotent: a device that is no longer bound to that
/// image is left alone.
///
/// # Errors
/// `InUse` when it is mounted, published, held or open; nothing was changed then, but that a device which a process has
/// open goes away with that process.
pub fn detach(device: &LoopDevice) -> Result<()> {
    let lock = exclusive();
    if !still_bound(device)? {
        return Ok(());
    }
    match usage(device)? {
        Usage::None => {}
        user => return Err(in_use(device.number, &user)),
    }
    let Some(file) = holder(device.number)? else {
        return Ok(());
    };
    if read_status(device.number, &file)?.is_none_or(|now| now.image != device.image) {
        return Ok(());
    }
    clear(device.number, &file)?;
    drop(file);
    // A device that a process keeps open must not hold up all others.
    drop(lock);
    wait_until(device.number, || Ok(!still_bound(device)?))?;
    number::remove(device.number)
}

/// Takes the devices of volume `name` out of the kernel that are bound to nothing: one that a process had open when it was
/// detached went away later, and its number is still there for others to take.
///
/// # Errors
/// `Io`.
pub fn remove_unused(name: &str) -> Result<()> {
    for read_only in [false, true] {
        if let Some(own) = number::of(name, read_only).next() {
            number::remove(own)?;
        }
    }
    Ok(())
}

/// Opens a device so that nobody can mount it before it is gone; `None` if it is gone already. An exclusive open fails when
/// the device is mounted in another mount namespace.
pub(super) fn holder(number: u32) -> Result<Option<File>> {
    match node::open(number, true) {
        Ok(file) => Ok(Some(file)),
        Err(error) if super::is_gone(&error) => Ok(None),
        Err(error) if error.errno() == Some(libc::EBUSY) => Err(Error::new(
            ErrorKind::InUse,
            format!(
                "{} is claimed: mounted in another container or part of another device",
                node::path(number).display()
            ),
        )),
        Err(error) => Err(error),
    }
}

/// Tells the kernel to unbind the device once `file`, and who else has it open, is closed.
pub(super) fn clear(number: u32, file: &File) -> Result<()> {
    match sys::loop_clear(file) {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(()),
        Err(error) => {
            Err(error).context_with(|| format!("release {}", node::path(number).display()))
        }
    }
}

/// The last close releases the device, so every look at it is short and the pauses between them grow.
pub(super) fn wait_until(number: u32, is_gone: impl Fn() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + RELEASE;
    let mut pause = Duration::from_micros(200);
    while !is_gone()? {
        if Instant::now() >= end {
            return Err(held_open(number));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    Ok(())
}

fn held_open(number: u32) -> Error {
    Error::new(
        ErrorKind::InUse,
        format!(
            "a process has {} open; it is released when that process closes it",
            node::path(number).display()
        ),
    )
}

fn still_bound(device: &LoopDevice) -> Result<bool> {
    if !node::is_bound(device.number) {
        return Ok(false);
    }
    Ok(status(device.number)?.is_some_and(|now| now.image == device.image))
}

pub(super) fn in_use(number: u32, user: &Usage) -> Error {
    let path = node::path(number);
    let path = path.display();
    let text = match user {
        Usage::None => format!("{path} is in use"),
        Usage::Mounted(at) => format!("{path} is mounted at {}", at.display()),
        Usage::Published(at) => format!("{path} is published at {}", at.display()),
        Usage::Held(number) => format!("{path} is held by /dev/loop{number}"),
    };
    Error::new(ErrorKind::InUse, text)
}
