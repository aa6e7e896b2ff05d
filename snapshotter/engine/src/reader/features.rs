//! The feature bits of version 3, and what they say about compression.

use super::header::Compression;
use super::refusal::{Reason, Refusal};

const INCOMPATIBLE: u64 = 72;
const AUTOCLEAR: u64 = 88;
const COMPRESSION_TYPE: u64 = 104;
/// The one incompatible feature that is accepted: the field of the compression type counts.
const COMPRESSION_BIT: u64 = 1 << 3;

/// Refuses every incompatible feature but the compression type, and what autoclear features say of data elsewhere.
/// `compression` is the field and the seven bytes of padding behind it.
///
/// Compatible features, and autoclear features without a meaning, change nothing for a reader: the format says so.
pub(crate) fn accept(
    incompatible: u64,
    autoclear: u64,
    compression: u64,
) -> Result<Compression, Refusal> {
    for bit in 0..u64::BITS {
        if incompatible & !COMPRESSION_BIT & (1 << bit) != 0 {
            return Err(incompatible_feature(bit));
        }
    }
    if autoclear & 1 != 0 {
        return Err(bitmaps(AUTOCLEAR));
    }
    if autoclear & 2 != 0 {
        return Err(data_file(AUTOCLEAR));
    }
    compression_type(incompatible & COMPRESSION_BIT != 0, compression)
}

fn incompatible_feature(bit: u32) -> Refusal {
    let (reason, text) = match bit {
        0 => (
            Reason::Dirty,
            "the image was not closed by its last writer (dirty bit): repair it with `qemu-img check -r all`".to_owned(),
        ),
        1 => (
            Reason::Corrupt,
            "the image is marked as corrupt: repair it with `qemu-img check -r all`".to_owned(),
        ),
        2 => return data_file(INCOMPATIBLE),
        4 => (
            Reason::ExtendedL2,
            "the image has extended L2 entries: convert it with `qemu-img convert -O qcow2`".to_owned(),
        ),
        _ => (
            Reason::UnknownFeature,
            format!("the image needs a feature that is not known (incompatible bit {bit})"),
        ),
    };
    Refusal::at(reason, INCOMPATIBLE, text)
}

pub(crate) fn data_file(offset: u64) -> Refusal {
    Refusal::at(
        Reason::DataFile,
        offset,
        "the image keeps its data in another file, which is never opened: flatten it with `qemu-img convert`",
    )
}

pub(crate) fn bitmaps(offset: u64) -> Refusal {
    Refusal::at(
        Reason::Bitmaps,
        offset,
        "the image holds dirty bitmaps: remove them with `qemu-img bitmap --remove`, or take the disk alone with \
         `qemu-img convert`",
    )
}

fn compression_type(bit: bool, field: u64) -> Result<Compression, Refusal> {
    let [kind, padding @ ..] = field.to_be_bytes();
    let refused = |text: String| Err(Refusal::at(Reason::CompressionType, COMPRESSION_TYPE, text));
    if padding != [0; 7] {
        return refused("the padding behind the compression type is not zero".to_owned());
    }
    match (bit, kind) {
        (false, 0) => Ok(Compression::Zlib),
        (true, 1) => Ok(Compression::Zstd),
        (true, 0) => refused(
            "the image says that its compression is not zlib, and that it is zlib".to_owned(),
        ),
        (true, other) => refused(format!(
            "compression type {other} is not known, only zlib and zstd are"
        )),
        (false, other) => refused(format!(
            "the image has compression type {other} without the feature bit that says so"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_incompatible_bit_but_one_is_refused_by_name() {
        for bit in (0..64).filter(|bit| *bit != 3) {
            let expected = match bit {
                0 => Reason::Dirty,
                1 => Reason::Corrupt,
                2 => Reason::DataFile,
                4 => Reason::ExtendedL2,
                _ => Reason::UnknownFeature,
            };
            assert_eq!(
                accept(1 << bit, 0, 0).unwrap_err().reason,
                expected,
                "bit {bit}"
            );
        }
    }

    #[test]
    fn compression_is_what_bit_and_field_agree_on() {
        let kind = |kind: u64| kind << 56;
        assert_eq!(accept(0, 0, 0), Ok(Compression::Zlib));
        assert_eq!(accept(8, 0, kind(1)), Ok(Compression::Zstd));
        for (bits, field) in [
            (8, 0),
            (0, kind(1)),
            (8, kind(2)),
            (0, kind(255)),
            (8, kind(1) | 1),
        ] {
            let reason = accept(bits, 0, field).unwrap_err().reason;
            assert_eq!(reason, Reason::CompressionType, "{bits} {field:#x}");
        }
    }

    #[test]
    fn autoclear_bits_without_a_meaning_are_ignored() {
        assert_eq!(accept(0, 1, 0).unwrap_err().reason, Reason::Bitmaps);
        assert_eq!(accept(0, 2, 0).unwrap_err().reason, Reason::DataFile);
        assert_eq!(accept(0, !3, 0), Ok(Compression::Zlib));
    }
}
