//! The header of an image: the accept-list that comes before everything else. Pure: bytes in, values out.

use super::extensions;
use super::features;
use super::geometry::{Geometry, MAX_CLUSTER_BITS, MIN_CLUSTER_BITS};
use super::refusal::{Reason, Refusal};
use crate::layout::MAX_VIRTUAL_BYTES;

const MAGIC: u32 = u32::from_be_bytes(*b"QFI\xfb");
const VERSION_2_LENGTH: u64 = 72;
const VERSION_3_LENGTH: u64 = 104;
/// The limits of qemu.
const MAX_L1_BYTES: u64 = 32 << 20;
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
/// What may be mapped behind the disk: the state of a VM, while there was an internal snapshot. The table stays as large.
const MAX_VM_STATE_BYTES: u64 = 4 << 40;
const SECTOR: u64 = 512;
/// As many bytes as the fields that are looked at have.
const FIELDS: usize = 112;

/// How clusters are compressed, if any are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Raw deflate.
    Zlib,
    /// Zstandard frames.
    Zstd,
}

impl Compression {
    /// The name, as qemu has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// What an accepted header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) geometry: Geometry,
    pub(crate) virtual_bytes: u64,
    pub(crate) compression: Compression,
    pub(crate) l1: Table,
    pub(crate) refcounts: Table,
}

/// A table that lies in one piece in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// Where it begins, in bytes.
    pub(crate) offset: u64,
    /// How many entries of 8 bytes it has.
    pub(crate) entries: u64,
}

impl Table {
    pub(crate) fn bytes(self) -> u64 {
        self.entries * 8
    }
}

/// The bytes of the header as numbers.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// The big-endian number of 4 bytes at `at`; 0 behind the end of the file.
    fn u32(&self, at: usize) -> u32 {
        let bytes = self.0.get(at..).and_then(<[u8]>::first_chunk);
        bytes.copied().map_or(0, u32::from_be_bytes)
    }

    /// The big-endian number of 8 bytes at `at`; 0 behind the end of the file.
    fn u64(&self, at: usize) -> u64 {
        let bytes = self.0.get(at..).and_then(<[u8]>::first_chunk);
        bytes.copied().map_or(0, u64::from_be_bytes)
    }
}

/// How many bytes at the beginning of a file [`parse`] wants to see: its header cluster, as far as that can be told.
pub(crate) fn wanted(start: &[u8]) -> u64 {
    let bits = Fields(start)
        .u32(20)
        .clamp(MIN_CLUSTER_BITS, MAX_CLUSTER_BITS);
    1 << bits
}

/// Reads the header cluster `bytes` of a file of `file_bytes` bytes.
///
/// # Errors
/// The first thing that is not on the accept-list.
pub(crate) fn parse(bytes: &[u8], file_bytes: u64) -> Result<Header, Refusal> {
    let fields = Fields(bytes);
    if file_bytes < VERSION_2_LENGTH || fields.u32(0) != MAGIC {
        return Err(Refusal::at(Reason::NotQcow2, 0, "this is not a qcow2 file"));
    }
    let version = fields.u32(4);
    if !matches!(version, 2 | 3) {
        let text = format!("qcow2 version {version} is not known, only 2 and 3 are");
        return Err(Refusal::at(Reason::Version, 4, text));
    }
    let cluster_bits = fields.u32(20);
    if !(MIN_CLUSTER_BITS..=MAX_CLUSTER_BITS).contains(&cluster_bits) {
        let text = format!("a cluster of 2^{cluster_bits} bytes is not one of 512 bytes to 2 MiB");
        return Err(Refusal::at(Reason::ClusterSize, 20, text));
    }
    let name = backing_name(&fields, cluster_bits)?;
    foreign_data(&fields, cluster_bits)?;
    let length = header_length(&fields, version, cluster_bits)?;
    let compression = match version {
        2 => Compression::Zlib,
        _ => features::accept(
            fields.u64(72),
            fields.u64(88),
            compression_type(&fields, length),
        )?,
    };
    extensions::accept(until(bytes, name), length)?;
    let geometry = Geometry {
        version,
        cluster_bits,
        refcount_order: refcount_order(&fields, version)?,
        file_bytes,
    };
    let virtual_bytes = virtual_size(fields.u64(24))?;
    let with_size = |refusal| Refusal {
        virtual_bytes: Some(virtual_bytes),
        ..refusal
    };
    let l1 = l1_table(&fields, geometry, virtual_bytes).map_err(with_size)?;
    let refcounts = refcount_table(&fields, geometry).map_err(with_size)?;
    Ok(Header {
        geometry,
        virtual_bytes,
        compression,
        l1,
        refcounts,
    })
}

/// Where the name of the backing file would stand, which ends the header extensions. It has to be empty: that is what an image is
/// left with whose backing file was taken away (`qemu-img rebase -b ""` of older versions), and qemu reads it as none.
fn backing_name(fields: &Fields<'_>, cluster_bits: u32) -> Result<Option<u64>, Refusal> {
    match (fields.u64(8), fields.u32(16)) {
        (0, 0) => Ok(None),
        (place, 0) if place <= 1 << cluster_bits => Ok(Some(place)),
        (_, 0) => Err(Refusal::at(
            Reason::Header,
            8,
            "the name of the backing file, though empty, is not in the header cluster",
        )),
        _ => Err(Refusal::at(
            Reason::BackingFile,
            8,
            "the image has a backing file, which is never opened: flatten it with `qemu-img convert`",
        )),
    }
}

fn until(bytes: &[u8], end: Option<u64>) -> &[u8] {
    let end = end.and_then(|end| usize::try_from(end).ok());
    end.and_then(|end| bytes.get(..end)).unwrap_or(bytes)
}

/// Refuses whatever would make the disk's bytes depend on more than this file's own clusters.
fn foreign_data(fields: &Fields<'_>, cluster_bits: u32) -> Result<(), Refusal> {
    match fields.u32(32) {
        0 => {}
        method => {
            let method = match method {
                1 => "AES".to_owned(),
                2 => "LUKS".to_owned(),
                other => format!("method {other}"),
            };
            let text =
                format!("the image is encrypted ({method}): decrypt it with `qemu-img convert`");
            return Err(Refusal::at(Reason::Encryption, 32, text));
        }
    }
    match (fields.u32(60), fields.u64(64)) {
        (0, offset) if offset.is_multiple_of(1 << cluster_bits) && offset < 1 << 63 => Ok(()),
        (0, _crooked) => Err(Refusal::at(
            Reason::Misaligned,
            64,
            "the table of internal snapshots, though empty, does not begin with a cluster",
        )),
        (count, _) => Err(Refusal::at(
            Reason::InternalSnapshots,
            60,
            format!(
                "the image holds {count} internal snapshots: delete them with `qemu-img snapshot -d`, or take the disk \
                 alone with `qemu-img convert`"
            ),
        )),
    }
}

fn header_length(fields: &Fields<'_>, version: u32, cluster_bits: u32) -> Result<u64, Refusal> {
    if version == 2 {
        return Ok(VERSION_2_LENGTH);
    }
    let length = u64::from(fields.u32(100));
    let fits = (VERSION_3_LENGTH..=1 << cluster_bits).contains(&length);
    if fits && length.is_multiple_of(8) {
        return Ok(length);
    }
    let text = format!(
        "a header of {length} bytes is impossible: version 3 has {VERSION_3_LENGTH} to {} in steps of 8",
        1u64 << cluster_bits
    );
    Err(Refusal::at(Reason::Header, 100, text))
}

/// The field of the compression type and the padding behind it, or 0 where the header ends before it.
fn compression_type(fields: &Fields<'_>, length: u64) -> u64 {
    if length >= FIELDS as u64 {
        fields.u64(FIELDS - 8)
    } else {
        0
    }
}

fn refcount_order(fields: &Fields<'_>, version: u32) -> Result<u32, Refusal> {
    match (version, fields.u32(96)) {
        (2, _not_a_field) => Ok(4),
        (_, order @ 0..=6) => Ok(order),
        (_, order) => Err(Refusal::at(
            Reason::Header,
            96,
            format!("reference counts of 2^{order} bits are impossible, at most they have 64"),
        )),
    }
}

fn virtual_size(bytes: u64) -> Result<u64, Refusal> {
    let refused = |text: String| Err(Refusal::at(Reason::VirtualSize, 24, text));
    if bytes == 0 {
        return refused("the disk has no bytes".to_owned());
    }
    if !bytes.is_multiple_of(SECTOR) {
        return refused(format!(
            "a disk of {bytes} bytes does not end with a sector of {SECTOR}"
        ));
    }
    if bytes > MAX_VIRTUAL_BYTES {
        return refused(format!(
            "a disk of {bytes} bytes is larger than any volume can be ({MAX_VIRTUAL_BYTES} bytes)"
        ));
    }
    Ok(bytes)
}

fn l1_table(fields: &Fields<'_>, geometry: Geometry, virtual_bytes: u64) -> Result<Table, Refusal> {
    let table = Table {
        offset: fields.u64(40),
        entries: u64::from(fields.u32(36)),
    };
    let needed = virtual_bytes.div_ceil(geometry.bytes_per_l2());
    if table.entries < needed {
        let text = format!(
            "the L1 table has {} entries where the disk needs {needed}",
            table.entries
        );
        return Err(Refusal::at(Reason::Table, 36, text));
    }
    // An image that was shrunk keeps the table of its larger disk, and a table grows by half more than it has to.
    let largest = (MAX_VIRTUAL_BYTES + MAX_VM_STATE_BYTES).div_ceil(geometry.bytes_per_l2());
    let most = (largest + largest / 2).min(MAX_L1_BYTES / 8);
    if table.entries > most {
        let text = format!(
            "the L1 table has {} entries, more than the {most} that any disk needs",
            table.entries
        );
        return Err(Refusal::at(Reason::Table, 36, text));
    }
    place("the L1 table", table, geometry, 40)?;
    Ok(table)
}

fn refcount_table(fields: &Fields<'_>, geometry: Geometry) -> Result<Table, Refusal> {
    let clusters = u64::from(fields.u32(56));
    if clusters == 0 {
        let text = "the image has no table of reference counts";
        return Err(Refusal::at(Reason::Table, 56, text));
    }
    let bytes = clusters << geometry.cluster_bits;
    if bytes > MAX_REFCOUNT_TABLE_BYTES {
        let text =
            format!("a refcount table of {bytes} bytes is larger than {MAX_REFCOUNT_TABLE_BYTES}");
        return Err(Refusal::at(Reason::Table, 56, text));
    }
    let table = Table {
        offset: fields.u64(48),
        entries: bytes / 8,
    };
    place("the refcount table", table, geometry, 48)?;
    Ok(table)
}

/// Refuses a table that does not begin with a cluster behind the header or does not end in the file.
fn place(what: &str, table: Table, geometry: Geometry, field: u64) -> Result<(), Refusal> {
    let offset = table.offset;
    if !offset.is_multiple_of(geometry.cluster_bytes()) {
        let text = format!("{what} begins at byte {offset}, which is not where a cluster begins");
        return Err(Refusal::at(Reason::Misaligned, field, text));
    }
    if offset == 0 {
        let text = format!("{what} lies in the header");
        return Err(Refusal::at(Reason::Overlap, field, text));
    }
    let end = offset.checked_add(table.bytes());
    if end.is_none_or(|end| end > geometry.file_bytes) {
        let text = format!(
            "{what}, {} bytes from byte {offset}, is not wholly in the file of {} bytes",
            table.bytes(),
            geometry.file_bytes
        );
        return Err(Refusal::at(Reason::OutsideFile, field, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLUSTER: usize = 65536;
    const FILE: u64 = 1 << 30;

    /// The header of a disk of 1 GiB: refcount table in cluster 1, L1 table in cluster 3.
    fn good(version: u32) -> Vec<u8> {
        let mut bytes = vec![0; CLUSTER];
        let fields: [(usize, &[u8]); 8] = [
            (0, b"QFI\xfb"),
            (4, &version.to_be_bytes()),
            (20, &16u32.to_be_bytes()),
            (24, &(1u64 << 30).to_be_bytes()),
            (36, &2u32.to_be_bytes()),
            (40, &(3u64 << 16).to_be_bytes()),
            (48, &(1u64 << 16).to_be_bytes()),
            (56, &1u32.to_be_bytes()),
        ];
        for (at, field) in fields {
            bytes[at..at + field.len()].copy_from_slice(field);
        }
        if version == 3 {
            bytes[99] = 4;
            bytes[103] = 104;
        }
        bytes
    }

    fn with(version: u32, at: usize, field: &[u8]) -> Result<Header, Refusal> {
        let mut bytes = good(version);
        bytes[at..at + field.len()].copy_from_slice(field);
        parse(&bytes, FILE)
    }

    #[test]
    fn good_headers_are_read() {
        for version in [2, 3] {
            let header = parse(&good(version), FILE).unwrap();
            assert_eq!(header.virtual_bytes, 1 << 30);
            assert_eq!(header.geometry.refcount_order, 4);
            assert_eq!((header.l1.offset, header.l1.entries), (3 << 16, 2));
            assert_eq!(
                (header.refcounts.offset, header.refcounts.entries),
                (1 << 16, 8192)
            );
        }
    }

    #[test]
    fn each_wrong_field_is_refused_at_its_own_place() {
        let cases: [(usize, &[u8], Reason); 30] = [
            (0, b"KDMV", Reason::NotQcow2),
            (4, &1u32.to_be_bytes(), Reason::Version),
            (4, &4u32.to_be_bytes(), Reason::Version),
            (8, &65_537u64.to_be_bytes(), Reason::Header),
            (8, &u64::MAX.to_be_bytes(), Reason::Header),
            (16, &1u32.to_be_bytes(), Reason::BackingFile),
            (20, &8u32.to_be_bytes(), Reason::ClusterSize),
            (20, &22u32.to_be_bytes(), Reason::ClusterSize),
            (20, &u32::MAX.to_be_bytes(), Reason::ClusterSize),
            (24, &0u64.to_be_bytes(), Reason::VirtualSize),
            (24, &1000u64.to_be_bytes(), Reason::VirtualSize),
            (24, &(1u64 << 60).to_be_bytes(), Reason::VirtualSize),
            (32, &2u32.to_be_bytes(), Reason::Encryption),
            (36, &1u32.to_be_bytes(), Reason::Table),
            (36, &u32::MAX.to_be_bytes(), Reason::Table),
            (36, &(4u32 << 20).to_be_bytes(), Reason::Table),
            (40, &0u64.to_be_bytes(), Reason::Overlap),
            (40, &512u64.to_be_bytes(), Reason::Misaligned),
            (40, &FILE.to_be_bytes(), Reason::OutsideFile),
            (40, &(u64::MAX << 16).to_be_bytes(), Reason::OutsideFile),
            (48, &(FILE - 512).to_be_bytes(), Reason::Misaligned),
            (56, &0u32.to_be_bytes(), Reason::Table),
            (56, &129u32.to_be_bytes(), Reason::Table),
            (60, &1u32.to_be_bytes(), Reason::InternalSnapshots),
            (64, &7u64.to_be_bytes(), Reason::Misaligned),
            (64, &512u64.to_be_bytes(), Reason::Misaligned),
            (64, &(1u64 << 63).to_be_bytes(), Reason::Misaligned),
            (96, &7u32.to_be_bytes(), Reason::Header),
            (100, &96u32.to_be_bytes(), Reason::Header),
            (100, &108u32.to_be_bytes(), Reason::Header),
        ];
        for (at, field, reason) in cases {
            let refusal = with(3, at, field).unwrap_err();
            assert_eq!(refusal.reason, reason, "{at}: {refusal}");
            let place = refusal.offset.unwrap();
            // The length of a backing file's name is told at the name's offset.
            assert!(place == at as u64 || at == 16, "{at}: {refusal}");
        }
        assert_eq!(
            with(3, 64, &(5u64 << 16).to_be_bytes()),
            parse(&good(3), FILE)
        );
    }

    #[test]
    fn a_backing_file_without_a_name_is_none_and_ends_the_extensions() {
        for version in [2, 3] {
            let start = if version == 2 { 72 } else { 104 };
            let mut bytes = good(version);
            // The format of a backing file, which has no name either.
            bytes[start..start + 4].copy_from_slice(&0xe279_2aca_u32.to_be_bytes());
            bytes[15] = u8::try_from(start + 8).unwrap();
            // No extension any more.
            bytes[start + 8..start + 16].copy_from_slice(b"DATA\0\0\0\x08");
            assert_eq!(parse(&bytes, FILE), parse(&good(version), FILE));
            bytes[15] = u8::try_from(start + 24).unwrap();
            assert_eq!(parse(&bytes, FILE).unwrap_err().reason, Reason::DataFile);
            bytes[19] = 1;
            assert_eq!(parse(&bytes, FILE).unwrap_err().reason, Reason::BackingFile);
        }
    }

    #[test]
    fn an_l1_table_may_be_that_of_the_largest_disk_and_its_machine() {
        for (bits, entries) in [(16, 200_000_u32), (21, 128), (9, 4 << 20)] {
            let mut bytes = good(3);
            bytes[20..24].copy_from_slice(&u32::to_be_bytes(bits));
            bytes[36..40].copy_from_slice(&entries.to_be_bytes());
            bytes[24..32].copy_from_slice(&(1u64 << 20).to_be_bytes());
            bytes[40..48].copy_from_slice(&(2u64 << 21).to_be_bytes());
            bytes[48..56].copy_from_slice(&(1u64 << 21).to_be_bytes());
            assert_eq!(parse(&bytes, FILE).unwrap().l1.entries, u64::from(entries));
            bytes[36..40].copy_from_slice(&(entries * 2).to_be_bytes());
            assert_eq!(parse(&bytes, FILE).unwrap_err().reason, Reason::Table);
        }
    }

    #[test]
    fn fields_of_version_3_mean_nothing_in_version_2() {
        // Extensions begin where version 3 has its feature bits.
        for (at, field) in [(96, 9u32.to_be_bytes()), (100, 1u32.to_be_bytes())] {
            assert_eq!(with(2, at, &field), parse(&good(2), FILE));
        }
        assert_eq!(
            with(2, 72, b"DATA\0\0\0\0").unwrap_err().reason,
            Reason::DataFile
        );
    }

    #[test]
    fn sizes_are_known_once_they_can_be_trusted() {
        let refusal = with(3, 36, &1u32.to_be_bytes()).unwrap_err();
        assert_eq!(refusal.virtual_bytes, Some(1 << 30));
        assert_eq!(
            with(3, 32, &1u32.to_be_bytes()).unwrap_err().virtual_bytes,
            None
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            changes in proptest::collection::vec((0..120usize, any::<u8>()), 0..6),
            file_bytes: u64,
        ) {
            let _either = parse(&bytes, file_bytes);
            let mut bytes = good(3);
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            let _either = parse(&bytes, file_bytes);
            let _length = wanted(&bytes);
        }
    }
}
