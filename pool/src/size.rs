//! Sizes: how they are rounded, printed and read.

use crate::error::{Error, ErrorKind, Result};

/// 1 MiB. Every image is a multiple of it: 512-byte and 4 KiB sectors, filesystem blocks and qcow2 clusters all divide it.
pub const MIB: u64 = 1 << 20;
/// 1 GiB.
pub const GIB: u64 = 1 << 30;
/// The smallest XFS that `mkfs.xfs` makes.
pub const XFS_MIN_BYTES: u64 = 300 * MIB;
/// No image is larger: what XFS can address in one file, less the room a snapshot's tables take.
pub const MAX_BYTES: u64 = 1 << 60;

/// The image size for a size asked for: the next multiple of 1 MiB, at least `minimum`.
///
/// # Errors
/// `OutOfRange` above [`MAX_BYTES`].
pub fn image_bytes(requested: u64, minimum: u64) -> Result<u64> {
    let wanted = requested.max(minimum).max(MIB);
    if wanted > MAX_BYTES {
        return Err(Error::new(
            ErrorKind::OutOfRange,
            format!("{requested} bytes is more than a volume can have ({MAX_BYTES} bytes)"),
        ));
    }
    Ok(wanted.div_ceil(MIB) * MIB)
}

/// A size for people: `1.5 GiB`.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "for display only")]
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_up_to_a_mebibyte() {
        assert_eq!(image_bytes(0, 0).unwrap(), MIB);
        assert_eq!(image_bytes(1, 0).unwrap(), MIB);
        assert_eq!(image_bytes(MIB + 1, 0).unwrap(), 2 * MIB);
        assert_eq!(image_bytes(MIB, XFS_MIN_BYTES).unwrap(), 300 * MIB);
        assert_eq!(image_bytes(11_381_663_335, 0).unwrap(), 11_382_292_480);
    }

    #[test]
    fn rounding_is_idempotent_and_bounded() {
        let rounded = image_bytes(123_456_789, 0).unwrap();
        assert_eq!(image_bytes(rounded, 0).unwrap(), rounded);
        assert_eq!(
            image_bytes(u64::MAX, 0).unwrap_err().kind(),
            ErrorKind::OutOfRange
        );
    }

    #[test]
    fn sizes_print_for_people() {
        assert_eq!(human(512), "512 B");
        assert_eq!(human(3 * GIB / 2), "1.5 GiB");
    }
}
