//! A snapshot as a small file: clusters that are zero are dropped, the others compressed where that makes them smaller.
//!
//! ```text
//! pieces (what is allocated, where) ─> crew: each processor reads a batch and compresses it
//!                                        └─ in turn: the batch's places on the shelf ─> written at once, without waiting
//! caller ─> waits for the crew, and asks for room ahead of it (grant)
//! ```
//! The same disk gives the same bytes each time, however many processors there are.

mod behind;
pub(crate) mod crew;
mod grant;
pub(crate) mod pieces;
mod shelf;

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use pool::record::{Compression, Packed, SnapshotRecord};
use pool::{Context, Error, ErrorKind, Result};
use zstd::zstd_safe::{CCtx, CParameter};

use self::behind::Behind;
use self::crew::{Batch, How, Patience, Turns, Work};
use self::grant::Grant;
use self::pieces::{BATCH, Piece, PieceReader, Place};
use self::shelf::{Item, Shelf};
use crate::compact::{Compact, count};
use crate::copy::Watch;
use crate::data_digest::{Sum, digest_by_all};
use crate::digest::{ClusterHash, check_size, front_digest, is_zero};
use crate::header::cluster_len;
use crate::layout::CLUSTER_BYTES;
use crate::packed::{PackedImage, check_packed_size, packed};
use crate::restore::checked_layout;

/// zstd's own default, and what `qemu-img` uses.
const LEVEL: i32 = 3;
/// A stream gets at least this much room. A cluster of one pattern needs less, but an image whose data expands to more than 1,032
/// times its size is no image that the strict reader takes.
const MIN_STREAM: usize = 64;
/// How many batches one of the crew may have done before their turn has come. Noise is done much faster than text, so whoever meets
/// it would wait.
const HANDS: usize = 3;

/// How a snapshot is packed.
#[derive(Clone, Copy)]
pub struct Pack<'a> {
    /// Clusters that become smaller by it are compressed like this; `None`: all are stored as they are.
    pub compression: Option<Compression>,
    /// What the work has to look out for.
    pub watch: &'a Watch<'a>,
    /// Asked before the file grows from so many bytes to so many, on the thread that calls.
    pub room: &'a dyn Fn(u64, u64) -> Result<()>,
    /// Only while nobody else needs the processors or the disk.
    pub idle: bool,
    /// The digest of the data is made on the way, so that the file can be held against it.
    pub digest: bool,
}

impl fmt::Debug for Pack<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pack")
            .field("compression", &self.compression)
            .field("idle", &self.idle)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// A packed image, not durable yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "nothing is durable before the file was synced"]
pub struct PackedFile {
    /// Where its data begins, in bytes: everything before is metadata.
    pub data_offset: u64,
    /// The digest of the metadata, 64 hex digits.
    pub metadata_digest: String,
    /// Its size in bytes.
    pub file_bytes: u64,
    /// The digest of the data that was read, 64 hex digits, if it was asked for.
    pub data_digest: Option<String>,
}

/// Writes the disk of a snapshot into `target`, a new empty file, as a qcow2 file that is as small as it gets, on all
/// processors, of 16 at most. The snapshot's metadata is checked against the record first, and compressed data is verified. Memory:
/// some 4 MiB for each processor. Nothing is durable.
///
/// # Errors
/// `Corrupt` when the image is not what the record says; those of [`Watch`] and of `room`; `NoSpace`; `Io`. After an error the
/// target is worth nothing.
pub fn pack(
    image: &File,
    record: &SnapshotRecord,
    target: &File,
    how: &Pack<'_>,
) -> Result<PackedFile> {
    let packed_file = match packed(record) {
        None => {
            let layout = checked_layout(image, record)?;
            let compact = Compact::new(layout.virtual_bytes(), &count(image, &layout)?);
            let pieces = pieces::of_identity(image, &layout);
            let written = write(image, pieces, target, compact, how)?;
            check_size(image, &layout)?;
            describe(target, compact, written)?
        }
        Some(packed) => {
            let source = PackedImage::open(image, record, packed)?;
            let compact = Compact::new(record.virtual_bytes, &source.count()?);
            let written = write(image, source.pieces(), target, compact, how)?;
            check_packed_size(image, packed)?;
            describe(target, compact, written)?
        }
    };
    Ok(packed_file)
}

fn describe(target: &File, compact: Compact, written: Written) -> Result<PackedFile> {
    let data_offset = compact.data.first * CLUSTER_BYTES;
    Ok(PackedFile {
        data_offset,
        metadata_digest: front_digest(target, data_offset)?,
        file_bytes: written.file_bytes,
        data_digest: written.data_digest,
    })
}

struct Written {
    file_bytes: u64,
    data_digest: Option<String>,
}

impl PackedFile {
    /// What the record says of it.
    #[must_use]
    pub fn packed(&self) -> Packed {
        Packed {
            compression: Compression::Zstd,
            file_bytes: self.file_bytes,
        }
    }

    /// What a synced file has allocated, in bytes. Room that the filesystem still keeps behind the end of a file that grew, as XFS does
    /// until it is closed, is not counted.
    ///
    /// # Errors
    /// `Io`.
    pub fn charge_bytes(&self, synced: &File) -> Result<u64> {
        let found = synced.metadata().during("look at the packed image")?;
        Ok((found.blocks() * 512).min(self.file_bytes))
    }

    /// Drops the synced file from the page cache, reads it again, all of it, and holds it against what was read of the snapshot
    /// when it was written: the tables by their digest, each stream by decoding it, the disk by the digest of its data. Nobody
    /// should throw the other image away before that.
    ///
    /// # Errors
    /// `Io`, also when what is read back differs; `Uncertain` when told to stop; `Internal` when no digest was made.
    pub fn verify(&self, synced: &File, virtual_bytes: u64, how: &Pack<'_>) -> Result<()> {
        let Some(expected) = &self.data_digest else {
            let text = "a packed image is to be held against a digest that was not made";
            return Err(Error::new(ErrorKind::Internal, text));
        };
        // Advice only: a page that is kept is compared all the same.
        let forgotten = posix_fadvise(synced, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        if let Err(errno) = forgotten {
            tracing::debug!(%errno, "advice on the cached pages of a packed image was refused");
        }
        let image = PackedImage::read_back(synced, virtual_bytes, self);
        let reading = How {
            watch: how.watch,
            idle: how.idle,
            clusters: virtual_bytes / CLUSTER_BYTES,
            tend: &|| Ok(()),
        };
        let found = image.and_then(|image| digest_by_all(synced, &image, reading));
        match found {
            Ok(found) if found == *expected => Ok(()),
            Ok(_other) => Err(misread("its data is not what was read of the snapshot")),
            Err(error) if error.kind() == ErrorKind::Corrupt => Err(misread(error)),
            Err(error) => Err(error),
        }
    }
}

fn misread(what: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::Io,
        format!(
            "the packed image reads back differently than it was written: {what}. The disk or its filesystem is not to be \
             trusted, look at the kernel's log"
        ),
    )
}

fn write<I>(
    image: &File,
    pieces: I,
    target: &File,
    compact: Compact,
    how: &Pack<'_>,
) -> Result<Written>
where
    I: Iterator<Item = Result<Piece>> + Send,
{
    let zstd = how.compression.is_some();
    let shelf = Turns::new((Shelf::new(target, compact, zstd), Sum::default()));
    let behind = Behind::new(target, how.idle);
    let (idle, digest) = (how.idle, how.digest);
    let grant = Grant::new(compact.data.end() * CLUSTER_BYTES);
    let scarce = Cell::new(false);
    let tend = || grant.tend(how.room, &scarce);
    // Before anybody waits for it.
    tend()?;
    let packing = How {
        watch: how.watch,
        idle,
        clusters: compact.data.count,
        tend: &tend,
    };
    crew::share(pieces, packing, |work| {
        let mut packer = Packer::new(image, target, zstd)?;
        // What waits for its turn, and what is free for more.
        let mut full = VecDeque::with_capacity(HANDS);
        let mut free = Vec::new();
        loop {
            let batch = work.next()?;
            let at_the_end = batch.is_none();
            if let Some(batch) = batch {
                let mut hand = free.pop().unwrap_or_else(Hand::new);
                packer.read(batch, &mut hand)?;
                packer.compress(&mut hand);
                if digest {
                    hand.hash();
                }
                full.push_back(hand);
            }
            while let Some(hand) = full.front() {
                let patience = Patience::of(at_the_end || full.len() == HANDS);
                let placed = hand.take_places(patience, &shelf, &grant, work)?;
                let Some((placed, file_bytes)) = placed else {
                    break;
                };
                if work.is_stopped() {
                    return Ok(());
                }
                packer.write(hand, &placed)?;
                if idle {
                    packer.forget(&hand.batch);
                }
                behind.follow(file_bytes)?;
                work.done(&hand.batch);
                free.extend(full.pop_front());
            }
            if at_the_end || work.is_stopped() {
                return Ok(());
            }
        }
    })?;
    let (shelf, sum) = shelf.into_inner();
    Ok(Written {
        file_bytes: shelf.finish()?,
        data_digest: digest.then(|| sum.finish()),
    })
}

/// What one of the crew works with.
struct Packer<'f> {
    image: &'f File,
    target: &'f File,
    reader: PieceReader<'f>,
    encoder: Option<CCtx<'static>>,
}

/// A batch, and what has become of it.
struct Hand {
    batch: Batch,
    /// Its clusters.
    bytes: Vec<u8>,
    /// Their streams, one behind the other.
    streams: Vec<u8>,
    /// What the clusters have become that are not zero: number, place in the batch.
    items: Vec<(u64, usize, Found)>,
    /// What the batch gives to the digest of the data, if that is made.
    hashes: Vec<ClusterHash>,
}

/// What a cluster has become.
#[derive(Clone, Debug)]
enum Found {
    /// This part of the clusters.
    Plain(Range<usize>),
    /// This part of the streams.
    Stream(Range<usize>),
}

impl Hand {
    fn new() -> Self {
        Self {
            batch: Batch {
                number: 0,
                pieces: Vec::new(),
            },
            bytes: vec![0; BATCH * cluster_len()],
            streams: vec![0; BATCH * cluster_len()],
            items: Vec::with_capacity(BATCH),
            hashes: Vec::new(),
        }
    }

    fn hash(&mut self) {
        let cluster = |at: usize| {
            let bytes = self.bytes.get(at * cluster_len()..(at + 1) * cluster_len());
            bytes.unwrap_or_default()
        };
        let items = self.items.iter();
        let hashes = items.map(|(number, at, _found)| ClusterHash::new(*number, cluster(*at)));
        self.hashes.clear();
        self.hashes.extend(hashes);
    }

    /// The places of the batch, and how large the file is with them; `None` when it is not its turn, or when the work was stopped.
    fn take_places<I>(
        &self,
        patience: Patience,
        shelf: &Turns<(Shelf<'_>, Sum)>,
        grant: &Grant,
        work: &Work<I>,
    ) -> Result<Option<(Vec<u64>, u64)>> {
        shelf.take(self.batch.number, patience, work, |(shelf, sum)| {
            let places = self.place(shelf)?;
            self.hashes.iter().for_each(|hash| sum.add(hash));
            grant.wait_for(shelf.file_bytes(), work);
            Ok((places, shelf.file_bytes()))
        })
    }

    fn place(&self, shelf: &mut Shelf<'_>) -> Result<Vec<u64>> {
        let place = |(cluster, _at, found): &(u64, usize, Found)| {
            let item = match found {
                Found::Plain(_) => Item::Plain,
                Found::Stream(range) => Item::Stream(range.len() as u64),
            };
            shelf.place(*cluster, item)
        };
        self.items.iter().map(place).collect()
    }
}

impl<'f> Packer<'f> {
    fn new(image: &'f File, target: &'f File, zstd: bool) -> Result<Self> {
        Ok(Self {
            image,
            target,
            reader: PieceReader::new(image),
            encoder: zstd.then(encoder).transpose()?,
        })
    }

    fn read(&mut self, batch: Batch, hand: &mut Hand) -> Result<()> {
        hand.batch = batch;
        let pieces = &hand.batch.pieces;
        let room = hand.bytes.get_mut(..pieces.len() * cluster_len());
        self.reader.read(pieces, room.unwrap_or_default())
    }

    fn compress(&mut self, hand: &mut Hand) {
        let streams = &mut hand.streams;
        hand.items.clear();
        let mut used = 0;
        let clusters = hand.bytes.chunks(cluster_len());
        for ((piece, cluster), at) in hand.batch.pieces.iter().zip(clusters).zip(0..) {
            if is_zero(cluster) {
                continue;
            }
            // Less than a cluster, or it is no gain.
            let room = streams.get_mut(used..used + cluster_len() - 1);
            let stream = match (&mut self.encoder, room) {
                (Some(encoder), Some(room)) => encoder.compress2(room, cluster).ok(),
                _ => None,
            };
            let found = match stream {
                Some(length) => {
                    let end = used + length.max(MIN_STREAM);
                    if let Some(padding) = streams.get_mut(used + length..end) {
                        padding.fill(0);
                    }
                    let range = used..end;
                    used = end;
                    Found::Stream(range)
                }
                None => Found::Plain(at * cluster_len()..(at + 1) * cluster_len()),
            };
            hand.items.push((piece.cluster, at, found));
        }
    }

    /// Writes the batch, what lies together in one piece.
    fn write(&self, hand: &Hand, places: &[u64]) -> Result<()> {
        let mut run: Option<(u64, &[u8], Range<usize>)> = None;
        for ((_, _, found), place) in hand.items.iter().zip(places) {
            let (source, range) = match found {
                Found::Plain(range) => (hand.bytes.as_slice(), range.clone()),
                Found::Stream(range) => (hand.streams.as_slice(), range.clone()),
            };
            if let Some((start, of, whole)) = &mut run {
                let continues = std::ptr::eq(*of, source)
                    && whole.end == range.start
                    && *start + whole.len() as u64 == *place;
                if continues {
                    whole.end = range.end;
                    continue;
                }
                self.write_at(*start, of, whole)?;
            }
            run = Some((*place, source, range));
        }
        match run {
            Some((start, of, whole)) => self.write_at(start, of, &whole),
            None => Ok(()),
        }
    }

    fn write_at(&self, place: u64, source: &[u8], range: &Range<usize>) -> Result<()> {
        let bytes = source.get(range.clone()).unwrap_or_default();
        let written = self.target.write_all_at(bytes, place);
        written.context_with(|| format!("write the packed image at byte {place}"))
    }

    /// Lets go of what was read: nobody will soon read it again, and the page cache is the guests'.
    fn forget(&self, batch: &Batch) {
        let (Some(first), Some(last)) = (batch.pieces.first(), batch.pieces.last()) else {
            return;
        };
        let (Place::Plain(start), Place::Plain(end)) = (first.place, last.place) else {
            return;
        };
        let number = |offset| i64::try_from(offset).unwrap_or(i64::MAX);
        let length = number((end + CLUSTER_BYTES).saturating_sub(start));
        let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        if let Err(errno) = posix_fadvise(self.image, number(start), length, advice) {
            tracing::debug!(%errno, "advice on cached pages of a snapshot was refused");
        }
    }
}

/// Each stream carries a checksum of its cluster (4 bytes), which every decoder compares.
fn encoder() -> Result<CCtx<'static>> {
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(LEVEL),
        CParameter::ChecksumFlag(true),
    ] {
        context.set_parameter(parameter).map_err(|code| {
            Error::new(
                ErrorKind::Internal,
                format!("zstd does not take its settings: error {code}"),
            )
        })?;
    }
    Ok(context)
}
