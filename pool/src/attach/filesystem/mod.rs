//! The filesystem in an image: making, checking, growing and measuring it.
//!
//! Whether there is a filesystem is a fact of the volume's record and never a finding in the bytes of the image, which
//! a guest wrote. mkfs runs on the image file before any device exists, so no device can show old bytes from a cache.

mod blank;
mod check;
mod ext4;
mod grow;
mod make;
mod size;
mod usage;
mod xfs;

pub use blank::refuse_unless_blank;
pub use check::check;
pub use grow::{Grown, grow, grow_before_mount};
pub use make::ensure_made;
pub use usage::{Usage, usage};
