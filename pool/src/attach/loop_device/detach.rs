//! Releasing a loop device, when nothing uses it.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::{LoopDevice, bound, exclusive, node, read_status, status};
use crate::attach::mountinfo::MountTable;
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
    let mounts = MountTable::read()?;
    if let Some(mount) = mounts.of_filesystem(device.device_number()).next() {
        return Ok(Usage::Mounted(mount.mount_point.clone()));
    }
    if let Some(mount) = mounts.of_loop_node(device.number).next() {
        return Ok(Usage::Published(mount.mount_point.clone()));
    }
    let holder = bound()?
        .into_iter()
        .find(|other| other.backing_rdev == device.rdev && other.number != device.number);
    Ok(holder.map_or(Usage::None, |holder| Usage::Held(holder.number)))
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
        user => return Err(in_use(device, &user)),
    }
    // An exclusive open fails when the device is mounted in another mount namespace, and keeps anybody from mounting
    // it before it is gone.
    let file = match node::open(device.number, true) {
        Ok(file) => file,
        Err(error) if super::is_gone(&error) => return Ok(()),
        Err(error) if error.errno() == Some(libc::EBUSY) => {
            return Err(Error::new(
                ErrorKind::InUse,
                format!(
                    "{} is claimed: mounted in another container or part of another device",
                    device.path().display()
                ),
            ));
        }
        Err(error) => return Err(error),
    };
    if read_status(device.number, &file)?.is_none_or(|now| now.image != device.image) {
        return Ok(());
    }
    match sys::loop_clear(&file) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Ok(()),
        Err(error) => {
            return Err(error).context_with(|| format!("release {}", device.path().display()));
        }
    }
    drop(file);
    // A device that a process keeps open must not hold up all others.
    drop(lock);
    wait_until_gone(device)
}

/// The last close releases the device, so every look at it is short and the pauses between them grow.
fn wait_until_gone(device: &LoopDevice) -> Result<()> {
    let end = Instant::now() + RELEASE;
    let mut pause = Duration::from_micros(200);
    while still_bound(device)? {
        if Instant::now() >= end {
            return Err(Error::new(
                ErrorKind::InUse,
                format!(
                    "a process has {} open; it is released when that process closes it",
                    device.path().display()
                ),
            ));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    Ok(())
}

fn still_bound(device: &LoopDevice) -> Result<bool> {
    if !node::is_bound(device.number) {
        return Ok(false);
    }
    Ok(status(device.number)?.is_some_and(|now| now.image == device.image))
}

fn in_use(device: &LoopDevice, user: &Usage) -> Error {
    let path = device.path();
    let path = path.display();
    let text = match user {
        Usage::None => format!("{path} is in use"),
        Usage::Mounted(at) => format!("{path} is mounted at {}", at.display()),
        Usage::Published(at) => format!("{path} is published at {}", at.display()),
        Usage::Held(number) => format!("{path} is held by /dev/loop{number}"),
    };
    Error::new(ErrorKind::InUse, text)
}
