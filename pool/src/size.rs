//! Sizes: which an image can have, and how they are printed.

use crate::error::{Error, ErrorKind, Result};

/// 1 MiB. Every image is a multiple of it: 512-byte and 4 KiB sectors, filesystem blocks and qcow2 clusters all divide it.
pub const MIB: u64 = 1 << 20;
/// 1 GiB.
pub const GIB: u64 = 1 << 30;
/// No image is larger, 64 TiB: its snapshot has to fit in one qcow2 file of ours.
pub const MAX_BYTES: u64 = 64 << 40;

/// Refuses a size that no image can have. Sizes come rounded, from whoever decided them.
///
/// # Errors
/// `OutOfRange` above [`MAX_BYTES`], `InvalidInput` unless it is a positive multiple of 1 MiB.
pub(crate) fn check_image_bytes(bytes: u64) -> Result<()> {
    if bytes > MAX_BYTES {
        return Err(Error::new(
            ErrorKind::OutOfRange,
            format!(
                "{bytes} bytes are more than a volume can have ({})",
                human(MAX_BYTES)
            ),
        ));
    }
    if bytes == 0 || !bytes.is_multiple_of(MIB) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{bytes} bytes are not a whole number of MiB"),
        ));
    }
    Ok(())
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
    fn an_image_is_a_whole_number_of_mebibytes_up_to_the_largest_snapshot() {
        assert!(check_image_bytes(MIB).is_ok() && check_image_bytes(MAX_BYTES).is_ok());
        for (bytes, kind) in [
            (0, ErrorKind::InvalidInput),
            (MIB + 1, ErrorKind::InvalidInput),
            (MAX_BYTES + MIB, ErrorKind::OutOfRange),
            (u64::MAX, ErrorKind::OutOfRange),
        ] {
            assert_eq!(
                check_image_bytes(bytes).unwrap_err().kind(),
                kind,
                "{bytes}"
            );
        }
    }

    #[test]
    fn sizes_print_for_people() {
        assert_eq!(human(512), "512 B");
        assert_eq!(human(3 * GIB / 2), "1.5 GiB");
    }
}
