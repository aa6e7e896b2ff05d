//! The compressed clusters of an image: none may lie in another one or in anything else, and each has to decode to one
//! cluster.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;

use super::decode::Decoder;
use super::entry::Extent;
use super::geometry::Geometry;
use super::header::Header;
use super::pieces::fill;
use super::refcounts::Refcounts;
use super::refusal::{Failure, Reason, Refusal};
use super::used::Used;

/// Up to this many bytes in all may compressed clusters expand to, however small they are: a small disk of some patterns.
const EXPANDED_ALWAYS: u64 = 256 << 20;
/// And to so many times their size beyond: what deflate can do at best. zstd could do 25,000 times.
const EXPANSION: u64 = 1032;
/// Streams of at most this many bytes are remembered, so many of them: the same again is the same cluster, and need not be decoded.
/// A disk that is large and all of one pattern takes no time by that, and what expands more than [`EXPANSION`] is such a stream.
const REMEMBERED_BYTES: usize = 256;
const REMEMBERED: usize = 1024;
const SECTOR: u64 = 512;

/// What the compressed clusters take.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// How many there are.
    pub(crate) streams: u64,
    /// In how many clusters of the file they lie.
    pub(crate) clusters: u64,
}

/// An extent in 8 bytes, in the order of the file. It fits, because this is no more than its L2 entry holds.
pub(crate) fn pack(extent: Extent, geometry: Geometry) -> u64 {
    let first_sector = extent.offset / SECTOR;
    let more_sectors = extent.end / SECTOR - first_sector - 1;
    extent.offset << (geometry.cluster_bits - 8) | more_sectors
}

fn unpack(packed: u64, geometry: Geometry) -> Extent {
    let bits = geometry.cluster_bits - 8;
    let offset = packed >> bits;
    let more_sectors = packed & ((1 << bits) - 1);
    Extent {
        offset,
        end: (offset / SECTOR + more_sectors + 1) * SECTOR,
    }
}

/// Checks all compressed clusters: first where they lie, then, in the order of the file, what they decode to.
pub(crate) fn check(
    file: &File,
    header: &Header,
    mut packed: Vec<u64>,
    used: &Used,
    refcounts: &mut Refcounts<'_>,
) -> Result<Shared, Failure> {
    packed.sort_unstable();
    let extents = Extents {
        packed: &packed,
        header,
    };
    extents.check_distinct()?;
    let clusters = extents.check_clusters(used, refcounts)?;
    extents.decode_all(file)?;
    Ok(Shared {
        streams: packed.len() as u64,
        clusters,
    })
}

struct Extents<'a> {
    packed: &'a [u64],
    header: &'a Header,
}

impl Extents<'_> {
    /// The extents in the order of the file, each cut off where the next one begins.
    fn iter(&self) -> impl Iterator<Item = Extent> {
        let geometry = self.header.geometry;
        let next = self.packed.iter().skip(1).map(Some).chain([None]);
        self.packed.iter().zip(next).map(move |(packed, next)| {
            let extent = unpack(*packed, geometry);
            let limit = next.map_or(u64::MAX, |next| unpack(*next, geometry).offset);
            Extent {
                offset: extent.offset,
                end: extent.end.min(limit),
            }
        })
    }

    /// Refuses two clusters with the same beginning.
    fn check_distinct(&self) -> Result<(), Failure> {
        for extent in self.iter() {
            if extent.end == extent.offset {
                let text = "two clusters of the disk are the same compressed data";
                return Err(Refusal::at(Reason::Overlap, extent.offset, text).into());
            }
        }
        Ok(())
    }

    /// Refuses compressed data in a cluster that is used for something else or has fewer counts than references. More
    /// counts are a leak, which harms nobody. Returns how many clusters of the file are touched.
    fn check_clusters(&self, used: &Used, refcounts: &mut Refcounts<'_>) -> Result<u64, Failure> {
        let bits = self.header.geometry.cluster_bits;
        let mut references: BTreeMap<u64, u64> = BTreeMap::new();
        let mut touched = 0;
        let mut close = |references: &mut BTreeMap<u64, u64>, before: u64| {
            while let Some(first) = references
                .first_entry()
                .filter(|first| *first.key() < before)
            {
                let (cluster, count) = first.remove_entry();
                check_cluster(cluster, bits, count, used, refcounts)?;
                touched += 1;
            }
            Ok::<(), Failure>(())
        };
        for packed in self.packed {
            let extent = unpack(*packed, self.header.geometry);
            let first = extent.offset >> bits;
            close(&mut references, first)?;
            // A few: an extent has at most two clusters and a sector.
            for cluster in first..=(extent.end - 1) >> bits {
                *references.entry(cluster).or_default() += 1;
            }
        }
        close(&mut references, u64::MAX)?;
        Ok(touched)
    }

    /// Decodes every cluster once and keeps none, as long as that is in proportion to all that is compressed.
    fn decode_all(&self, file: &File) -> Result<(), Failure> {
        if self.packed.is_empty() {
            return Ok(());
        }
        let length = usize::try_from(self.header.geometry.cluster_bytes()).unwrap_or(0);
        let mut decoder = Decoder::new(self.header.compression);
        let (mut input, mut cluster) = (Vec::new(), vec![0; length]);
        let mut known = HashSet::new();
        let bytes: u64 = self.iter().map(|extent| extent.end - extent.offset).sum();
        let mut expanded = 0;
        for extent in self.iter() {
            read_extent(file, extent, &mut input)?;
            if known.contains(input.as_slice()) {
                continue;
            }
            expanded += self.header.geometry.cluster_bytes();
            if expanded > EXPANDED_ALWAYS && expanded / EXPANSION > bytes {
                return Err(bomb(extent.offset));
            }
            decoder.decode(&input, &mut cluster).map_err(|fault| {
                let text = format!("compressed data is no cluster: {fault}");
                Refusal::at(Reason::CompressedData, extent.offset, text)
            })?;
            if input.len() <= REMEMBERED_BYTES && known.len() < REMEMBERED {
                known.insert(input.clone());
            }
        }
        Ok(())
    }
}

fn bomb(offset: u64) -> Failure {
    let text = format!(
        "compressed data comes to more than {} MiB and {EXPANSION} times its size: write the disk anew with `qemu-img \
         convert` without -c",
        EXPANDED_ALWAYS >> 20
    );
    Refusal::at(Reason::CompressionBomb, offset, text).into()
}

/// Reads what may belong to a compressed cluster.
pub(crate) fn read_extent(file: &File, extent: Extent, input: &mut Vec<u8>) -> pool::Result<()> {
    input.resize(usize::try_from(extent.end - extent.offset).unwrap_or(0), 0);
    fill(file, extent.offset, input)
}

fn check_cluster(
    cluster: u64,
    bits: u32,
    references: u64,
    used: &Used,
    refcounts: &mut Refcounts<'_>,
) -> Result<(), Failure> {
    let offset = cluster << bits;
    if used.contains(cluster) {
        let text = "compressed data lies where something else lies too";
        return Err(Refusal::at(Reason::Overlap, offset, text).into());
    }
    let count = refcounts.of(cluster)?;
    if count >= references {
        return Ok(());
    }
    let text = format!(
        "compressed data refers {references} times to a cluster with the reference count {count}: repair it with \
         `qemu-img check -r all`"
    );
    Err(Refusal::at(Reason::Refcount, offset, text).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::entry::{Mapping, l2};
    use super::*;

    proptest! {
        #[test]
        fn extent_survives_packing_and_keeps_its_place_in_the_order(
            cluster_bits in 9..=21u32, entries in proptest::collection::vec(any::<u64>(), 2..20)
        ) {
            let geometry = Geometry { version: 3, cluster_bits, refcount_order: 4, file_bytes: 1 << 56 };
            let mut extents: Vec<Extent> = entries
                .iter()
                .filter_map(|entry| match l2((entry | 1 << 62) & !(1 << 63), geometry) {
                    Ok(Mapping::Compressed(extent)) => Some(extent),
                    _ => None,
                })
                .collect();
            let mut packed: Vec<u64> = extents.iter().map(|extent| pack(*extent, geometry)).collect();
            packed.sort_unstable();
            extents.sort_unstable();
            let unpacked: Vec<Extent> = packed.iter().map(|packed| unpack(*packed, geometry)).collect();
            prop_assert_eq!(unpacked, extents);
        }
    }
}
