//! A snapshot as a small file: clusters that are zero are dropped, the others compressed where that makes them smaller.
//!
//! ```text
//! pieces (what is allocated, where), read ahead ─> crew: each processor takes a batch, compresses it, and decodes that again
//!                                                    └─ in turn: the batch's places on the shelf ─> written, without waiting
//! caller ─> waits for the crew, and asks for room ahead of it (grant)
//! afterwards ─> the synced file is read back, and has to be what was written (proof)
//! ```
//! The same disk gives the same bytes each time, however many processors there are.

mod ahead;
mod behind;
pub(crate) mod crew;
mod effort;
mod grant;
pub(crate) mod pieces;
mod proof;
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
use zstd::zstd_safe::CCtx;

use self::ahead::Ahead;
use self::behind::Behind;
use self::crew::{Batch, How, Patience, Turns, Work};
use self::effort::Effort;
use self::grant::Grant;
use self::pieces::{BATCH, Piece, PieceReader, Place};
use self::shelf::{Item, Shelf};
use crate::compact::{Compact, count};
use crate::copy::Watch;
use crate::data_digest::Sum;
use crate::digest::{ClusterHash, check_size, front_digest, is_zero};
use crate::header::cluster_len;
use crate::layout::CLUSTER_BYTES;
use crate::packed::{PackedImage, check_packed_size, packed};
use crate::reader::{Compression as StreamKind, Decoder};
use crate::restore::checked_layout;

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
    /// Each stream is decoded and held against its cluster before it is written, and what is written is remembered by a digest, so that
    /// the file can be verified afterwards.
    pub proven: bool,
    /// The digest of the data is made on the way.
    pub digest: bool,
}

impl fmt::Debug for Pack<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pack")
            .field("compression", &self.compression)
            .field("idle", &self.idle)
            .field("proven", &self.proven)
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
    /// The digest of what was written of the data, if the file is to be verified.
    stored_digest: Option<String>,
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
            let pieces = || pieces::of_identity(image, &layout);
            let effort = effort(image, pieces(), compact, how)?;
            let written = write(image, pieces(), target, compact, effort, how)?;
            check_size(image, &layout)?;
            describe(target, compact, written)?
        }
        Some(packed) => {
            let source = PackedImage::open(image, record, packed)?;
            let compact = Compact::new(record.virtual_bytes, &source.count()?);
            let effort = effort(image, source.pieces(), compact, how)?;
            let written = write(image, source.pieces(), target, compact, effort, how)?;
            check_packed_size(image, packed)?;
            describe(target, compact, written)?
        }
    };
    Ok(packed_file)
}

fn effort(
    image: &File,
    pieces: impl Iterator<Item = Result<Piece>> + Send,
    compact: Compact,
    how: &Pack<'_>,
) -> Result<Option<Effort>> {
    let choose = |Compression::Zstd| effort::choose(image, pieces, compact.data.count, how);
    how.compression.map(choose).transpose()
}

fn describe(target: &File, compact: Compact, written: Written) -> Result<PackedFile> {
    let data_offset = compact.data.first * CLUSTER_BYTES;
    Ok(PackedFile {
        data_offset,
        metadata_digest: front_digest(target, data_offset)?,
        file_bytes: written.file_bytes,
        data_digest: written.data_digest,
        stored_digest: written.stored_digest,
    })
}

struct Written {
    file_bytes: u64,
    data_digest: Option<String>,
    stored_digest: Option<String>,
}

/// What is made of each cluster in its turn.
struct Shelves<'f> {
    shelf: Shelf<'f>,
    data: Sum,
    stored: Sum,
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

    /// Drops the synced file from the page cache, reads it again, all of it, and holds it against what was written: the tables by
    /// their digest, and by another one, through these tables, each stream and each plain cluster. That the streams decode to what
    /// was read of the snapshot was seen before they were written. Nobody should throw the other image away before that.
    ///
    /// # Errors
    /// `Io`, also when what is read back differs; `Uncertain` when told to stop; `Internal` when it was not packed to be proven.
    pub fn verify(&self, synced: &File, virtual_bytes: u64, how: &Pack<'_>) -> Result<()> {
        let Some(expected) = &self.stored_digest else {
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
        let found = image.and_then(|image| proof::stored_digest(synced, &image, reading));
        match found {
            Ok(found) if found == *expected => Ok(()),
            Ok(_other) => Err(misread("its data is not what was written")),
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

fn not_proven(cluster: u64) -> Error {
    Error::new(
        ErrorKind::Io,
        format!(
            "what cluster {cluster} of the disk was compressed to does not decode to it: the memory or the processor of this machine \
             is not to be trusted, test them"
        ),
    )
}

fn write<I>(
    image: &File,
    pieces: I,
    target: &File,
    compact: Compact,
    effort: Option<Effort>,
    how: &Pack<'_>,
) -> Result<Written>
where
    I: Iterator<Item = Result<Piece>> + Send,
{
    let shelves = Turns::new(Shelves {
        shelf: Shelf::new(target, compact, effort.is_some()),
        data: Sum::default(),
        stored: Sum::default(),
    });
    let behind = Behind::new(target, how.idle);
    let grant = Grant::new(compact.data.end() * CLUSTER_BYTES);
    let scarce = Cell::new(false);
    let tend = || grant.tend(how.room, &scarce);
    // Before anybody waits for it.
    tend()?;
    let packing = How {
        watch: how.watch,
        idle: how.idle,
        clusters: compact.data.count,
        tend: &tend,
    };
    let desk = Desk {
        shelves: &shelves,
        grant: &grant,
        behind: &behind,
        idle: how.idle,
        proven: how.proven,
        digest: how.digest,
    };
    crew::share(Ahead::new(image, pieces), packing, |work| {
        Packer::new(image, target, effort)?.work(work, &desk)
    })?;
    let Shelves {
        shelf,
        data,
        stored,
    } = shelves.into_inner();
    Ok(Written {
        file_bytes: shelf.finish()?,
        data_digest: how.digest.then(|| data.finish()),
        stored_digest: how.proven.then(|| stored.finish()),
    })
}

/// What the crew shares.
struct Desk<'a, 'f> {
    shelves: &'a Turns<Shelves<'f>>,
    grant: &'a Grant,
    behind: &'a Behind<'f>,
    idle: bool,
    proven: bool,
    digest: bool,
}

/// What one of the crew works with.
struct Packer<'f> {
    image: &'f File,
    target: &'f File,
    reader: PieceReader<'f>,
    encoder: Option<CCtx<'static>>,
    decoder: Decoder,
    decoded: Vec<u8>,
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
    data: Vec<ClusterHash>,
    /// And to that of what is written.
    stored: Vec<ClusterHash>,
}

/// What a cluster has become.
#[derive(Clone, Debug)]
enum Found {
    /// This part of the clusters.
    Plain(Range<usize>),
    /// This part of the streams: the frame, and then zeroes up to the end.
    Stream { frame: Range<usize>, end: usize },
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
            data: Vec::new(),
            stored: Vec::new(),
        }
    }

    fn cluster(&self, at: usize) -> &[u8] {
        let bytes = self.bytes.get(at * cluster_len()..(at + 1) * cluster_len());
        bytes.unwrap_or_default()
    }

    fn digest_data(&mut self) {
        let hash = |(number, at, _found): &_| ClusterHash::new(*number, self.cluster(*at));
        self.data = self.items.iter().map(hash).collect();
    }

    /// The places of the batch, and how large the file is with them; `None` when it is not its turn, or when the work was stopped.
    fn take_places<I>(
        &self,
        patience: Patience,
        desk: &Desk<'_, '_>,
        work: &Work<I>,
    ) -> Result<Option<(Vec<u64>, u64)>> {
        desk.shelves
            .take(self.batch.number, patience, work, |shelves| {
                let places = self.place(&mut shelves.shelf)?;
                self.data.iter().for_each(|hash| shelves.data.add(hash));
                self.stored.iter().for_each(|hash| shelves.stored.add(hash));
                let file_bytes = shelves.shelf.file_bytes();
                desk.grant.wait_for(file_bytes, work);
                Ok((places, file_bytes))
            })
    }

    fn place(&self, shelf: &mut Shelf<'_>) -> Result<Vec<u64>> {
        let place = |(cluster, _at, found): &(u64, usize, Found)| {
            let item = match found {
                Found::Plain(_) => Item::Plain,
                Found::Stream { frame, end } => Item::Stream((end - frame.start) as u64),
            };
            shelf.place(*cluster, item)
        };
        self.items.iter().map(place).collect()
    }
}

impl<'f> Packer<'f> {
    fn new(image: &'f File, target: &'f File, effort: Option<Effort>) -> Result<Self> {
        Ok(Self {
            image,
            target,
            reader: PieceReader::new(image),
            encoder: effort.map(Effort::encoder).transpose()?,
            decoder: Decoder::new(StreamKind::Zstd),
            decoded: vec![0; cluster_len()],
        })
    }

    fn work<I>(&mut self, work: &Work<I>, desk: &Desk<'_, '_>) -> Result<()>
    where
        I: Iterator<Item = Result<Piece>>,
    {
        // What waits for its turn, and what is free for more.
        let mut full = VecDeque::with_capacity(HANDS);
        let mut free = Vec::new();
        loop {
            let batch = work.next()?;
            let at_the_end = batch.is_none();
            if let Some(batch) = batch {
                let mut hand = free.pop().unwrap_or_else(Hand::new);
                self.read(batch, &mut hand)?;
                self.compress(&mut hand);
                if desk.proven {
                    self.prove(&mut hand)?;
                }
                if desk.digest {
                    hand.digest_data();
                }
                full.push_back(hand);
            }
            while let Some(hand) = full.front() {
                let patience = Patience::of(at_the_end || full.len() == HANDS);
                let placed = hand.take_places(patience, desk, work)?;
                let Some((placed, file_bytes)) = placed else {
                    break;
                };
                if work.is_stopped() {
                    return Ok(());
                }
                self.write(hand, &placed)?;
                if desk.idle {
                    self.forget(&hand.batch);
                }
                desk.behind.follow(file_bytes)?;
                work.done(&hand.batch);
                free.extend(full.pop_front());
            }
            if at_the_end || work.is_stopped() {
                return Ok(());
            }
        }
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
                    let frame = used..used + length;
                    used = end;
                    Found::Stream { frame, end }
                }
                None => Found::Plain(at * cluster_len()..(at + 1) * cluster_len()),
            };
            hand.items.push((piece.cluster, at, found));
        }
    }

    /// Decodes what was encoded, and remembers what is about to be written.
    fn prove(&mut self, hand: &mut Hand) -> Result<()> {
        let mut hashes = Vec::with_capacity(hand.items.len());
        for (number, at, found) in &hand.items {
            let cluster = hand.cluster(*at);
            let stored = match found {
                Found::Plain(_) => cluster,
                Found::Stream { frame, .. } => {
                    let frame = hand.streams.get(frame.clone()).unwrap_or_default();
                    let decoded = self.decoder.decode(frame, &mut self.decoded);
                    if decoded.is_err() || self.decoded != cluster {
                        return Err(not_proven(*number));
                    }
                    frame
                }
            };
            hashes.push(ClusterHash::new(*number, stored));
        }
        hand.stored = hashes;
        Ok(())
    }

    /// Writes the batch, what lies together in one piece.
    fn write(&self, hand: &Hand, places: &[u64]) -> Result<()> {
        let mut run: Option<(u64, &[u8], Range<usize>)> = None;
        for ((_, _, found), place) in hand.items.iter().zip(places) {
            let (source, range) = match found {
                Found::Plain(range) => (hand.bytes.as_slice(), range.clone()),
                Found::Stream { frame, end } => (hand.streams.as_slice(), frame.start..*end),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_does_not_decode_to_its_cluster_is_not_written() {
        let file = tempfile::tempfile().unwrap();
        let mut packer = Packer::new(&file, &file, Some(Effort::USUAL)).unwrap();
        let mut hand = Hand::new();
        hand.batch.pieces = vec![Piece {
            cluster: 7,
            place: Place::Plain(0),
        }];
        let text = (0..=250).cycle().step_by(7);
        hand.bytes = text.take(cluster_len()).collect();
        packer.compress(&mut hand);
        packer.prove(&mut hand).unwrap();
        assert_eq!(hand.stored.len(), 1);
        // As memory that forgets would do it.
        for at in 4..40 {
            hand.streams[at] ^= 1;
            let error = packer.prove(&mut hand).expect_err(&format!("byte {at}"));
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            hand.streams[at] ^= 1;
        }
        hand.bytes[100] ^= 1;
        packer.prove(&mut hand).unwrap_err();
    }
}
