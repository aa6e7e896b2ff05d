//! Mounting, binding and unmounting. Every path given to the kernel starts at an open descriptor.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use sys_mount::{Mount, MountFlags, UnmountFlags};

use super::loop_device::LoopDevice;
use super::mount_options::MountOptions;
use super::target::Target;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::record::FsType;

/// Mounts the filesystem on `device` at the folder `target`.
///
/// # Errors
/// `Corrupt` with advice when the kernel does not take the filesystem, `NotFound` when the folder is gone, `Io`.
pub fn mount_filesystem(
    device: &LoopDevice,
    fs: FsType,
    options: &MountOptions,
    target: &Target,
) -> Result<()> {
    let place = target.reference()?;
    // Makes the node in `/dev`, which mount(2) needs by path, and holds the device meanwhile.
    let _open = device.open()?;
    let data = options.data(fs);
    Mount::builder()
        .fstype(fs.as_str())
        .flags(options.flags())
        .data(&data)
        .mount(device.path(), by_descriptor(&place))
        .map(drop)
        .map_err(|error| {
            let advice = advice(error.raw_os_error(), fs, device);
            let error = Error::io(
                format!(
                    "mount the {fs} filesystem on {} at {}",
                    device.path().display(),
                    target.path().display()
                ),
                error,
            );
            match advice {
                Some(advice) => error.context(advice).with_kind(ErrorKind::Corrupt),
                None => error,
            }
        })
}

/// The kernel says why it refuses only in its log.
fn advice(errno: Option<i32>, fs: FsType, device: &LoopDevice) -> Option<String> {
    let path = device.path();
    let path = path.display();
    let repair = match fs {
        FsType::Ext4 => format!("e2fsck -f {path}"),
        FsType::Xfs => format!("xfs_repair {path}"),
    };
    match errno {
        Some(libc::EUCLEAN | libc::EBADMSG) => Some(format!(
            "the {fs} filesystem is damaged; keep a copy of disk.img, then run by hand: {repair}"
        )),
        Some(libc::EINVAL) => Some(format!(
            "the kernel finds no usable {fs} filesystem in the volume (dmesg says more); it is never formatted again; \
             if it should be there, keep a copy of disk.img, then run by hand: {repair}"
        )),
        _ => None,
    }
}

/// Makes what is mounted at the folder `source` visible at the folder `target` too.
///
/// # Errors
/// `Io`. Nothing stays mounted at `target` then.
pub fn bind_folder(source: &Target, target: &Target, options: &MountOptions) -> Result<()> {
    let source_place = source.reference()?;
    bind(&source_place, target)?;
    let flags = options.bind_flags() | MountFlags::BIND | MountFlags::REMOUNT;
    remount(target, flags).inspect_err(|_error| {
        // The bind mount without its flags must not stay; the first error is the one to report.
        unmount_top(target).ok();
    })
}

/// Makes the node of `device` visible at the file `target`. The mount is not `nodev`: it is a device.
///
/// # Errors
/// `Io`.
pub fn bind_device(device: &LoopDevice, target: &Target) -> Result<()> {
    // Makes the node where a container has none.
    drop(device.open()?);
    let path = device.path();
    let node = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(&path)
        .context_with(|| format!("open {}", path.display()))?;
    let found = node
        .metadata()
        .context_with(|| format!("examine {}", path.display()))?
        .rdev();
    if found != device.rdev {
        return Err(Error::new(
            ErrorKind::Busy,
            format!("{} was replaced at this moment: try again", path.display()),
        ));
    }
    bind(&node.into(), target)
}

fn bind(source: &OwnedFd, target: &Target) -> Result<()> {
    let place = target.reference()?;
    Mount::builder()
        .fstype("none")
        .flags(MountFlags::BIND)
        .mount(by_descriptor(source), by_descriptor(&place))
        .map(drop)
        .context_with(|| format!("bind-mount at {}", target.path().display()))
}

fn remount(target: &Target, flags: MountFlags) -> Result<()> {
    let place = target.reference()?;
    Mount::builder()
        .fstype("none")
        .flags(flags)
        .mount("none", by_descriptor(&place))
        .map(drop)
        .context_with(|| format!("set the mount flags of {}", target.path().display()))
}

/// How long an unmount waits for a user that is only passing. A program that is being started (mkfs, the freeze guard) holds
/// every file of the process that starts it until it becomes that program: microseconds, on a busy machine milliseconds.
const PASSING: Duration = Duration::from_millis(500);

/// Unmounts the visible mount at `target`. Never lazily: a mount that is busy is an error, not a thing to hide.
///
/// # Errors
/// `InUse` when a process is in it for longer than an instant, `NotFound` when nothing is mounted there, `Io`.
pub fn unmount_top(target: &Target) -> Result<()> {
    let end = Instant::now() + PASSING;
    loop {
        match unmount_now(target) {
            Err(error) if error.kind() == ErrorKind::InUse && Instant::now() < end => {
                thread::sleep(Duration::from_millis(5));
            }
            answer => return answer,
        }
    }
}

fn unmount_now(target: &Target) -> Result<()> {
    let flags = UnmountFlags::from_bits_retain(libc::UMOUNT_NOFOLLOW);
    sys_mount::unmount(target.path_by_parent(), flags).map_err(|error| {
        let kind = match error.raw_os_error() {
            Some(libc::EBUSY) => Some(ErrorKind::InUse),
            Some(libc::EINVAL | libc::ENOENT) => Some(ErrorKind::NotFound),
            _ => None,
        };
        let error = Error::io(format!("unmount {}", target.path().display()), error);
        match kind {
            Some(kind) => error.with_kind(kind),
            None => error,
        }
    })
}

fn by_descriptor(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
