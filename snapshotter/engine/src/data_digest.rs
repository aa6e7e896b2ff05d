//! The digest of a snapshot's data.
//!
//! It is the BLAKE3 hash of, for every 64 KiB cluster of the disk that is not all zero, in the order of the disk, the
//! cluster's number as 8 bytes little-endian followed by the 32 byte BLAKE3 hash of its bytes. So it is about the disk and not
//! about the file: whether zeroes are stored or holes makes no difference, nor where in the file a cluster lies.

use std::fs::File;
use std::os::unix::fs::FileExt;

use blake3::Hasher;
use pool::record::{Packed, SnapshotRecord};
use pool::{Context, Error, ErrorKind, Result};

use crate::advice;
use crate::copy::Watch;
use crate::data_map::{ClusterRuns, DataRuns};
use crate::digest::{ClusterHash, check_size, is_zero};
use crate::header::cluster_len;
use crate::layout::{CLUSTER_BYTES, Layout};
use crate::pack::pieces::{BATCH, PieceReader};
use crate::packed::{PackedImage, check_packed_size, packed};
use crate::restore::recorded_layout;
use crate::verify::{Findings, compare_front, verify};

/// How many clusters are read at once.
const CLUSTERS_AT_ONCE: u64 = 16;

/// The digest of the disk in a snapshot image, 64 hex digits, read from the disk and not from memory. 1 MiB at most is in memory, and
/// what was read does not stay in the page cache. Holes are not read. `watch.keep_going` is asked before each MiB.
///
/// # Errors
/// `Corrupt` when the image does not have the size that the record says, also when it is cut short meanwhile, as a deletion
/// does; `Uncertain` when told to stop; `Io`.
pub fn data_digest(image: &File, record: &SnapshotRecord, watch: &Watch<'_>) -> Result<String> {
    match packed(record) {
        Some(packed) => of_packed(image, record, packed, watch),
        None => of_identity(image, record, watch),
    }
}

fn of_identity(image: &File, record: &SnapshotRecord, watch: &Watch<'_>) -> Result<String> {
    let layout = recorded_layout(record)?;
    check_size(image, &layout)?;
    advice::forget(image, &advice::ALL);
    let (offset, length) = (layout.data_offset(), layout.virtual_bytes());
    let mut reader = Reader {
        image,
        layout: &layout,
        sum: Sum::default(),
        bytes: vec![0; cluster_len() * usize::try_from(CLUSTERS_AT_ONCE).unwrap_or(1)],
    };
    for run in ClusterRuns::new(DataRuns::new(image, offset, length)) {
        let run = run?;
        let mut next = run.start;
        while next < run.end {
            if !(watch.keep_going)() {
                return Err(stopped(record));
            }
            let end = run.end.min(next + CLUSTERS_AT_ONCE);
            reader.read(next, end)?;
            next = end;
            (watch.progress)(next * CLUSTER_BYTES, length);
        }
    }
    // A deletion cuts the image from its end: what was read of it may then have been a hole.
    check_size(image, &layout)?;
    (watch.progress)(length, length);
    Ok(reader.sum.finish())
}

/// Every stream has to decode on the way.
fn of_packed(
    image: &File,
    record: &SnapshotRecord,
    packed: Packed,
    watch: &Watch<'_>,
) -> Result<String> {
    advice::forget(image, &advice::ALL);
    let source = PackedImage::open(image, record, packed)?;
    let mut pieces = source.pieces();
    let mut reader = PieceReader::new(image);
    let mut sum = Sum::default();
    let mut bytes = vec![0; BATCH * cluster_len()];
    loop {
        if !(watch.keep_going)() {
            return Err(stopped(record));
        }
        let batch: Vec<_> = pieces.by_ref().take(BATCH).collect::<Result<_>>()?;
        let Some(last) = batch.last() else { break };
        let disk = bytes
            .get_mut(..batch.len() * cluster_len())
            .unwrap_or_default();
        reader.read(&batch, disk)?;
        advice::forget(image, &advice::ALL);
        for (piece, bytes) in batch.iter().zip(disk.chunks(cluster_len())) {
            hash_of(piece.cluster, bytes)
                .into_iter()
                .for_each(|hash| sum.add(&hash));
        }
        (watch.progress)((last.cluster + 1) * CLUSTER_BYTES, record.virtual_bytes);
    }
    check_packed_size(image, packed)?;
    (watch.progress)(record.virtual_bytes, record.virtual_bytes);
    Ok(sum.finish())
}

/// As [`verify`], and the data too, if the record has a digest of it; whether it has is in the record, not in the answer. That the
/// streams of a packed image decode shows in any case.
///
/// # Errors
/// `Uncertain` when told to stop, and `Io`: what is wrong with what was read is a finding.
pub fn verify_with_data(
    image: &File,
    record: &SnapshotRecord,
    watch: &Watch<'_>,
) -> Result<Findings> {
    let expected = record
        .checksum
        .as_ref()
        .and_then(|checksum| checksum.digest.as_ref());
    let mut findings = Findings::default();
    match (packed(record), expected) {
        (Some(packed), _) => compare_front(image, record, packed, &mut findings)?,
        (None, Some(_)) => findings = verify(image, record)?,
        (None, None) => return verify(image, record),
    }
    match (data_digest(image, record, watch), expected) {
        (Ok(_), None) => {}
        (Ok(found), Some(expected)) if found == *expected => {}
        (Ok(found), Some(expected)) => findings.add(
            None,
            format!("the data has changed: its digest is {found}, the record says {expected}"),
        ),
        // Of another size: that is a finding of the metadata already.
        (Err(error), _) if error.kind() == ErrorKind::Corrupt && !findings.is_clean() => {}
        (Err(error), _) if error.kind() == ErrorKind::Corrupt => {
            findings.add(None, error.to_string());
        }
        (Err(error), _) => return Err(error),
    }
    Ok(findings)
}

struct Reader<'a> {
    image: &'a File,
    layout: &'a Layout,
    sum: Sum,
    bytes: Vec<u8>,
}

/// The digest so far.
#[derive(Default)]
pub(crate) struct Sum(Hasher);

impl Sum {
    /// Takes a cluster of the disk in.
    pub(crate) fn add(&mut self, cluster: &ClusterHash) {
        self.0.update(&cluster.cluster.to_le_bytes());
        self.0.update(cluster.hash.as_bytes());
    }

    pub(crate) fn finish(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

/// What a cluster of the disk gives to the digest: nothing if it is zero.
fn hash_of(cluster: u64, bytes: &[u8]) -> Option<ClusterHash> {
    (!is_zero(bytes)).then(|| ClusterHash::new(cluster, bytes))
}

impl Reader<'_> {
    /// Takes the clusters of the disk from `start` to before `end` in.
    fn read(&mut self, start: u64, end: u64) -> Result<()> {
        let position = self.layout.data_offset() + start * CLUSTER_BYTES;
        let length = (end - start) * CLUSTER_BYTES;
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        let wanted = wanted.min(self.bytes.len());
        let bytes = &mut self.bytes[..wanted];
        self.image
            .read_exact_at(bytes, position)
            .context_with(|| format!("read the snapshot image at byte {position}"))?;
        advice::forget(self.image, &(position..position + length));
        for (cluster, bytes) in (start..end).zip(bytes.chunks(cluster_len())) {
            hash_of(cluster, bytes)
                .into_iter()
                .for_each(|hash| self.sum.add(&hash));
        }
        Ok(())
    }
}

fn stopped(record: &SnapshotRecord) -> Error {
    Error::new(
        ErrorKind::Uncertain,
        format!(
            "reading the data of {} was stopped; it is read again later",
            record.id
        ),
    )
}
