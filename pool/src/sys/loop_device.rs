//! Loop devices, `loop(4)`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::abi::{
    BLKGETSIZE64, LOOP_CLR_FD, LOOP_CONFIGURE, LOOP_CTL_ADD, LOOP_CTL_REMOVE, LOOP_GET_STATUS64,
    LOOP_SET_CAPACITY, LOOP_SET_STATUS64, LoopConfigAbi, LoopInfo64,
};
use super::clone::check;

const FLAG_READ_ONLY: u32 = 1;
const FLAG_AUTOCLEAR: u32 = 4;
const FLAG_DIRECT_IO: u32 = 16;

/// What a loop device is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopConfig {
    /// Refuse writes to the device.
    pub read_only: bool,
    /// Bypass the page cache of the file.
    pub direct_io: bool,
    /// Logical sector size in bytes.
    pub block_size: u32,
}

/// What a loop device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopStatus {
    /// `st_dev` of the file behind it, in the kernel's encoding, as in `stat(2)` on 64-bit machines.
    pub device: u64,
    /// `st_ino` of the file behind it.
    pub inode: u64,
    /// `st_rdev` of what is behind it, where that is a block device itself; else 0.
    pub backing_rdev: u64,
    /// The number N of `/dev/loopN`.
    pub number: u32,
    /// It refuses writes.
    pub read_only: bool,
    /// It goes away with its last user.
    pub autoclear: bool,
    /// It bypasses the page cache of the file.
    pub direct_io: bool,
    /// Byte offset into the file where the device starts; ours always start at 0.
    pub offset: u64,
    /// Upper limit of the device's size in bytes; 0 is none.
    pub size_limit: u64,
}

/// Makes the loop device with this number, bound to nothing.
///
/// # Errors
/// `EEXIST` when there is one, `EINVAL` when the kernel has no such number.
pub fn loop_add(control: &File, number: u32) -> io::Result<()> {
    let number = libc::c_long::from(i32::try_from(number).map_err(|_large| invalid())?);
    // SAFETY: the descriptor is open; the argument is a plain number.
    made(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_ADD, number) })
}

/// Removes the loop device with this number.
///
/// # Errors
/// `ENODEV` when there is none, `EBUSY` when it is bound or open.
pub fn loop_remove(control: &File, number: u32) -> io::Result<()> {
    let number = libc::c_long::from(i32::try_from(number).map_err(|_large| invalid())?);
    // SAFETY: the descriptor is open; the argument is a plain number.
    made(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_REMOVE, number) })
}

/// These calls answer with the number of the device.
fn made(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Binds `backing` to the loop device `device` in one step.
///
/// # Errors
/// `EBUSY` when another process was faster, `EINVAL` for a block size the file's filesystem cannot do.
pub fn loop_configure(device: &File, backing: &File, config: LoopConfig) -> io::Result<()> {
    let mut info = LoopInfo64::zeroed();
    if config.read_only {
        info.flags |= FLAG_READ_ONLY;
    }
    if config.direct_io {
        info.flags |= FLAG_DIRECT_IO;
    }
    let request = LoopConfigAbi {
        fd: u32::try_from(backing.as_raw_fd()).map_err(|_negative| invalid())?,
        block_size: config.block_size,
        info,
        reserved: [0; 8],
    };
    // SAFETY: `request` is a live, fully initialised structure of the kernel's layout; the kernel only reads it.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const request) })
}

/// What `device` is bound to.
///
/// # Errors
/// `ENXIO` when it is bound to nothing.
pub fn loop_status(device: &File) -> io::Result<LoopStatus> {
    let info = status64(device)?;
    Ok(LoopStatus {
        device: info.device,
        inode: info.inode,
        backing_rdev: info.rdevice,
        number: info.number,
        read_only: info.flags & FLAG_READ_ONLY != 0,
        autoclear: info.flags & FLAG_AUTOCLEAR != 0,
        direct_io: info.flags & FLAG_DIRECT_IO != 0,
        offset: info.offset,
        size_limit: info.size_limit,
    })
}

/// Chooses whether the device goes away with its last user.
///
/// # Errors
/// `ENXIO` when it is bound to nothing.
pub fn loop_set_autoclear(device: &File, autoclear: bool) -> io::Result<()> {
    let mut info = status64(device)?;
    if autoclear {
        info.flags |= FLAG_AUTOCLEAR;
    } else {
        info.flags &= !FLAG_AUTOCLEAR;
    }
    // SAFETY: `info` is a live structure of the kernel's layout; the kernel only reads it.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_STATUS64, &raw const info) })
}

fn status64(device: &File) -> io::Result<LoopInfo64> {
    let mut info = LoopInfo64::zeroed();
    // SAFETY: the kernel fills `info`, which has its layout and lives longer than the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) })?;
    Ok(info)
}

/// Makes the device as large as its file is now.
///
/// # Errors
/// `ENXIO` when it is bound to nothing.
pub fn loop_set_capacity(device: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open; the call takes no argument.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_CAPACITY) })
}

/// Unbinds the device. Where somebody has it open, the kernel only marks it to go away with its last user.
///
/// # Errors
/// `ENXIO` when it is bound to nothing.
pub fn loop_clear(device: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open; the call takes no argument.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD) })
}

/// The size of a block device in bytes.
///
/// # Errors
/// `ENOTTY` when it is no block device.
pub fn block_device_bytes(device: &File) -> io::Result<u64> {
    let mut bytes: u64 = 0;
    // SAFETY: the kernel writes one u64 that lives longer than the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), BLKGETSIZE64, &raw mut bytes) })?;
    Ok(bytes)
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}
