//! From an image file to something a pod can use: loop device, filesystem, mount, target path.
//!
//! Nothing here is remembered. What is mounted is read from `/proc/self/mountinfo`, what is attached from the loop
//! devices themselves, so a killed and restarted agent sees exactly what the one before it left. An image is known by
//! its device and inode number and never by a path or by the number of a loop device, which the kernel gives out again.
//!
//! ```text
//! image file --mkfs--> filesystem --attach--> /dev/loopN --mount--> staging path --bind--> target path
//!                                                \------------- bind onto a file ------------^  (Block)
//! ```

pub mod filesystem;
pub mod freeze;

pub mod loop_device;
pub mod mount;
pub mod mount_options;
pub mod mountinfo;
pub mod target;
mod tool;
