//! What the entries of an image's tables say. Pure: a number in, its meaning or its fault out.

use super::geometry::Geometry;
use super::refusal::{Reason, Refusal};

/// "The reference count of what this points to is exactly one."
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;
/// Where a pointer of an L1 or L2 table stands.
const OFFSET: u64 = ((1 << 56) - 1) & !511;
const SECTOR: u64 = 512;

/// What an L2 entry says of one cluster of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// It reads as zero. `reserved`: a cluster of the file that is kept for it.
    Zero { reserved: Option<u64> },
    /// It is the cluster at this byte of the file.
    Data { offset: u64 },
    /// It is compressed.
    Compressed(Extent),
}

/// Where compressed data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Extent {
    /// Its first byte in the file.
    pub(crate) offset: u64,
    /// The byte behind the last sector that may hold some of it.
    pub(crate) end: u64,
}

/// What is wrong with an entry: the place is the caller's to say.
pub(crate) type Fault = (Reason, String);

/// The place of an L2 table in an L1 entry, `None` where there is no table.
pub(crate) fn l1(entry: u64, geometry: Geometry) -> Result<Option<u64>, Fault> {
    if entry == 0 {
        return Ok(None);
    }
    if entry & !(COPIED | OFFSET) != 0 {
        return Err(reserved("L1", entry));
    }
    let offset = whole_cluster("an L2 table", entry & OFFSET, geometry)?;
    copied(entry, "L1")?;
    Ok(Some(offset))
}

/// The place of a refcount block in an entry of the refcount table, `None` where there is no block.
pub(crate) fn refcount_block(entry: u64, geometry: Geometry) -> Result<Option<u64>, Fault> {
    if entry == 0 {
        return Ok(None);
    }
    if !entry.is_multiple_of(SECTOR) {
        return Err(reserved("refcount table", entry));
    }
    whole_cluster("a refcount block", entry, geometry).map(Some)
}

/// What an L2 entry says.
pub(crate) fn l2(entry: u64, geometry: Geometry) -> Result<Mapping, Fault> {
    if entry == 0 {
        return Ok(Mapping::Zero { reserved: None });
    }
    if entry & COMPRESSED != 0 {
        return compressed(entry, geometry).map(Mapping::Compressed);
    }
    if entry & !(COPIED | OFFSET | ZERO) != 0 {
        return Err(reserved("L2", entry));
    }
    if entry & ZERO != 0 && geometry.version < 3 {
        return Err((
            Reason::ReservedBits,
            "an L2 entry has the zero flag, which version 2 does not know".to_owned(),
        ));
    }
    if entry == ZERO {
        return Ok(Mapping::Zero { reserved: None });
    }
    let offset = aligned("a cluster of the disk", entry & OFFSET, geometry)?;
    // The last cluster of a file may end before its time: the disk is zero there.
    if offset >= geometry.file_bytes {
        return Err(outside("a cluster of the disk", offset, geometry));
    }
    copied(entry, "L2")?;
    if entry & ZERO != 0 {
        return Ok(Mapping::Zero {
            reserved: Some(offset),
        });
    }
    Ok(Mapping::Data { offset })
}

fn compressed(entry: u64, geometry: Geometry) -> Result<Extent, Fault> {
    if entry & COPIED != 0 {
        let text = "the entry of a compressed cluster says that it is the only one to refer to it"
            .to_owned();
        return Err((Reason::ReservedBits, text));
    }
    let bits = geometry.compressed_offset_bits();
    let offset = entry & ((1 << bits) - 1);
    if offset >> 56 != 0 {
        return Err(reserved("L2", entry));
    }
    if offset < geometry.cluster_bytes() {
        return Err((
            Reason::Overlap,
            "compressed data lies in the header".to_owned(),
        ));
    }
    let sectors = ((entry & !COMPRESSED) >> bits) + 1;
    let end = (offset & !(SECTOR - 1)) + sectors * SECTOR;
    // The sector that the file ends in counts as a whole.
    if offset >= geometry.file_bytes || end > geometry.file_bytes.next_multiple_of(SECTOR) {
        let text = format!(
            "compressed data from byte {offset} to byte {end} is not wholly in the file of {} bytes",
            geometry.file_bytes
        );
        return Err((Reason::OutsideFile, text));
    }
    Ok(Extent { offset, end })
}

/// A cluster that has to lie in the file from its first to its last byte.
fn whole_cluster(what: &str, offset: u64, geometry: Geometry) -> Result<u64, Fault> {
    let offset = aligned(what, offset, geometry)?;
    let end = offset.checked_add(geometry.cluster_bytes());
    if end.is_none_or(|end| end > geometry.file_bytes) {
        return Err(outside(what, offset, geometry));
    }
    Ok(offset)
}

fn aligned(what: &str, offset: u64, geometry: Geometry) -> Result<u64, Fault> {
    if offset == 0 {
        return Err((Reason::Overlap, format!("{what} lies in the header")));
    }
    if !offset.is_multiple_of(geometry.cluster_bytes()) {
        let text = format!("{what} begins at byte {offset}, which is not where a cluster begins");
        return Err((Reason::Misaligned, text));
    }
    Ok(offset)
}

fn outside(what: &str, offset: u64, geometry: Geometry) -> Fault {
    let text = format!(
        "{what} at byte {offset} is not wholly in the file of {} bytes",
        geometry.file_bytes
    );
    (Reason::OutsideFile, text)
}

fn reserved(table: &str, entry: u64) -> Fault {
    let text = format!("an entry of the {table} table has reserved bits set: {entry:#018x}");
    (Reason::ReservedBits, text)
}

/// Without internal snapshots every cluster in use has one reference, and its entry has to say so.
fn copied(entry: u64, table: &str) -> Result<(), Fault> {
    if entry & COPIED != 0 {
        return Ok(());
    }
    let text = format!(
        "an entry of the {table} table says that what it points to is referred to from elsewhere too ({entry:#018x}): \
         repair it with `qemu-img check -r all`"
    );
    Err((Reason::Refcount, text))
}

/// A fault with its place.
pub(crate) fn found_at(offset: u64) -> impl FnOnce(Fault) -> Refusal {
    move |(reason, text)| Refusal::at(reason, offset, text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn geometry(version: u32, cluster_bits: u32) -> Geometry {
        Geometry {
            version,
            cluster_bits,
            refcount_order: 4,
            file_bytes: 100 << 16,
        }
    }

    #[test]
    fn l2_entries_mean_what_the_format_says() {
        let (two, three) = (geometry(2, 16), geometry(3, 16));
        let reason = |entry, geometry| l2(entry, geometry).unwrap_err().0;
        assert_eq!(l2(0, two), Ok(Mapping::Zero { reserved: None }));
        assert_eq!(l2(1, three), Ok(Mapping::Zero { reserved: None }));
        assert_eq!(
            l2(5 << 16 | COPIED, two),
            Ok(Mapping::Data { offset: 5 << 16 })
        );
        assert_eq!(
            l2(5 << 16 | COPIED | ZERO, three),
            Ok(Mapping::Zero {
                reserved: Some(5 << 16)
            })
        );
        assert_eq!(reason(1, two), Reason::ReservedBits);
        assert_eq!(reason(5 << 16, three), Reason::Refcount);
        assert_eq!(reason(COPIED, three), Reason::Overlap);
        assert_eq!(reason(COPIED | 5 << 16 | 2, three), Reason::ReservedBits);
        assert_eq!(
            reason(COPIED | 5 << 16 | 1 << 56, three),
            Reason::ReservedBits
        );
        assert_eq!(reason(COPIED | 5 << 16 | 512, three), Reason::Misaligned);
        assert_eq!(reason(COPIED | 100 << 16, three), Reason::OutsideFile);
    }

    #[test]
    fn only_the_last_cluster_of_a_disk_may_be_cut_off() {
        let cut = Geometry {
            file_bytes: (5 << 16) + 1,
            ..geometry(3, 16)
        };
        assert!(l2(COPIED | 5 << 16, cut).is_ok());
        assert_eq!(
            l1(COPIED | 5 << 16, cut).unwrap_err().0,
            Reason::OutsideFile
        );
        assert_eq!(
            refcount_block(5 << 16, cut).unwrap_err().0,
            Reason::OutsideFile
        );
    }

    #[test]
    fn compressed_extents_end_with_their_last_sector() {
        let shift = geometry(3, 16).compressed_offset_bits();
        let entry = |offset: u64, more: u64| COMPRESSED | more << shift | offset;
        let extent = |offset, end| Ok(Mapping::Compressed(Extent { offset, end }));
        let in_16 = |entry| l2(entry, geometry(3, 16));
        assert_eq!(in_16(entry(70_000, 0)), extent(70_000, 70_144));
        assert_eq!(
            in_16(entry(70_000, 255)),
            extent(70_000, 69_632 + 256 * 512)
        );
        let end = 100 << 16;
        assert_eq!(in_16(entry(end - 512, 0)), extent(end - 512, end));
        assert_eq!(
            in_16(entry(end - 512, 1)).unwrap_err().0,
            Reason::OutsideFile
        );
        assert_eq!(in_16(entry(end, 0)).unwrap_err().0, Reason::OutsideFile);
        assert_eq!(in_16(entry(65_535, 0)).unwrap_err().0, Reason::Overlap);
        assert_eq!(
            in_16(entry(70_000, 0) | COPIED).unwrap_err().0,
            Reason::ReservedBits
        );
    }

    proptest! {
        #[test]
        fn no_entry_makes_them_panic_or_leads_out_of_the_file(
            entry: u64, cluster_bits in 9..=21u32, version in 2..=3u32, file_bytes in 0..1u64 << 63
        ) {
            let geometry = Geometry { version, cluster_bits, refcount_order: 0, file_bytes };
            for offset in [l1(entry, geometry), refcount_block(entry, geometry)].into_iter().flatten().flatten() {
                prop_assert!(offset + geometry.cluster_bytes() <= file_bytes);
            }
            match l2(entry, geometry) {
                Ok(Mapping::Data { offset } | Mapping::Zero { reserved: Some(offset) }) => prop_assert!(offset < file_bytes),
                Ok(Mapping::Compressed(extent)) => prop_assert!(extent.end < file_bytes + 512),
                Ok(Mapping::Zero { reserved: None }) | Err(_) => {}
            }
        }
    }
}
