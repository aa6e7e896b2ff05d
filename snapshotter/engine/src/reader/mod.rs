//! A strict reader of qcow2 images that somebody else made.
//!
//! [`open`] opens one regular file, [`check`] holds it against an accept-list (`docs/images.md`), and only what passes can
//! be read, as an [`Image`]. Reading it gives the bytes that `qemu-img convert -O raw` gives. No path in an image is ever
//! opened, nothing panics on any bytes, and what an image claims decides neither about memory nor about time.
//!
//! | Module | Decides (pure) | Module | Acts |
//! |---|---|---|---|
//! | `header`, `features`, `extensions` | what the header may say | `open` | opens |
//! | `geometry`, `entry` | what the entries of tables mean | `pieces`, `table` | reads numbers and tables |
//! | `decode` | what a compressed cluster holds | `check`, `refcounts`, `compressed` | walks and compares |
//! | `used` | which clusters are taken | `image` | reads the disk |

mod check;
mod compressed;
mod decode;
mod entry;
mod extensions;
mod features;
mod geometry;
mod header;
mod image;
mod open;
mod pieces;
mod refcounts;
mod refusal;
mod table;
mod used;

pub use check::check;
pub use decode::{Decoder, Fault};
pub(crate) use entry::{Extent, Mapping, l1, l2};
pub use header::Compression;
pub(crate) use header::{Header, parse};
pub use image::{Content, Facts, Image, Run};
pub use open::open;
pub(crate) use pieces::fill;
pub use refusal::{Failure, Reason, Refusal};
